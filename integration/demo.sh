#!/bin/bash
# `make demo`: runs a busybox and a Debian container step by step and says what each step
# shows. Every result is checked; the first that is not as announced ends the demo with an
# error. All it makes is in one temporary directory and two cgroups, and is removed at the end.
set -euo pipefail

runtime=${HULL_RUNTIME:?make demo sets it}
[ "$(id -u)" -eq 0 ] || { echo "the demo makes containers and has to run as root" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/var/tmp}/hull-demo.XXXXXX")
state=$work/state
name=hull-demo-$$
debian_maker=
started=$SECONDS

cleanup() {
    if [ -n "$debian_maker" ]; then kill "$debian_maker" 2>/dev/null && wait "$debian_maker" || true; fi
    for id in busybox debian; do
        "$runtime" --root "$state" delete --force "$id" >/dev/null 2>&1 || true
    done
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- what the demo says -----------------------------------------------------------------
step=0
title() { step=$((step + 1)); printf '\n\033[1m%d. %s\033[0m\n' "$step" "$1"; }
say() { printf '   => %s\n' "$1"; }
fail() { printf '\nNOT AS ANNOUNCED: %s\n' "$1" >&2; exit 1; }

# Shows and runs a command of the runtime: its output goes to $work/out, its status to $code.
hull() {
    local word shown=
    for word in "$@"; do
        if [[ $word == *[[:space:]]* ]]; then shown+=" '$word'"; else shown+=" $word"; fi
    done
    printf '   $ hull-runtime%s\n' "$shown"
    code=0
    "$runtime" --root "$state" "$@" > "$work/out" 2>&1 < /dev/null || code=$?
    fold -s -w 110 "$work/out" | awk -v max="${lines:-12}" 'NR <= max { print "     " $0 }'
}
works() { hull "$@"; [ "$code" -eq 0 ] || fail "'$1' ended with status $code"; }
holds() { grep -qE -- "$1" "$work/out" || fail "the output does not hold: $1"; }
is() {
    local status
    status=$("$runtime" --root "$state" state busybox | jq -r .status)
    [ "$status" = "$1" ] || fail "the container is $status, not $1"
}
said() { wc -l < "$work/container.out"; }

# --- root file systems --------------------------------------------------------------------
title "Two root file systems: busybox, and Debian from its archive"
mkdir -p "$work/busybox/rootfs/bin" "$work/debian/rootfs"
cp "$(command -v busybox)" "$work/busybox/rootfs/bin/busybox"
chroot "$work/busybox/rootfs" /bin/busybox --install -s /bin
say "busybox: $(find "$work/busybox/rootfs/bin" | wc -l) programs, one file"
mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$work/debian/rootfs" > "$work/mmdebstrap.log" 2>&1 &
debian_maker=$!
say "Debian: mmdebstrap is at work on it meanwhile"

title "A bundle: a directory with a config.json"
works spec --bundle "$work/busybox"
cat > "$work/busybox/rootfs/bin/count" <<'PROGRAM'
#!/bin/sh
# Counts until it is asked to stop.
echo "hello from $(hostname), process $$"
trap "echo asked to stop; exit 0" TERM
n=0
while :; do n=$((n + 1)); echo "$n"; sleep 0.1; done
PROGRAM
chmod 755 "$work/busybox/rootfs/bin/count"
configure() {
    jq --arg name "$name" "$1" "$2/config.json" > "$work/new"
    mv "$work/new" "$2/config.json"
}
configure '.process.terminal = false | .process.args = ["count"] | .hostname = "demo"
    | .linux.cgroupsPath = "/" + $name + "-busybox"' "$work/busybox"
say "runc's starting point, changed: no terminal, a program that counts, a host name"

title "What would happen, before anything does"
lines=30 works explain --bundle "$work/busybox"
holds 'count'
say "the namespaces, mounts, capabilities, limits and filter that create would make"

# --- one container's life -----------------------------------------------------------------
title "create: everything is made, and the program waits"
# The container keeps the descriptors that it is created with, so they are files here.
printf '   $ hull-runtime create --bundle BUNDLE --pid-file FILE busybox\n'
"$runtime" --root "$state" create --bundle "$work/busybox" --pid-file "$work/pid" busybox \
    > "$work/container.out" 2>&1 < /dev/null || fail "create: $(cat "$work/container.out")"
is created
[ ! -s "$work/container.out" ] || fail "the program ran before start"
works state busybox
say "its process is $(cat "$work/pid"); the program has not run: it has printed nothing"

title "start: now it runs"
works start busybox
is running
for _ in $(seq 50); do [ "$(said)" -ge 3 ] && break; sleep 0.1; done
head -n 3 "$work/container.out" | sed 's/^/     /'
grep -q '^hello from demo, process 1$' "$work/container.out" || fail "the program did not say hello"
say "it has the host name of the bundle, and is process 1 of its pid namespace"

title "exec: another process in the same container"
works exec busybox ps
holds ' 1 .*/bin/count'
hull exec busybox sh -c 'exit 7'
[ "$code" -eq 7 ] || fail "the exit status is $code, not 7"
say "it sees the container's processes only; its exit status comes back: 7"

title "ps: the container's processes, seen from the host"
works ps busybox
holds "$(cat "$work/pid")"

title "pause and resume: every process stands still, then goes on"
works pause busybox
is paused
before=$(said); sleep 0.7; after=$(said)
[ "$before" -eq "$after" ] || fail "a paused program went on counting"
say "paused: the count was $before, and 0.7 s later it is $after"
works resume busybox
is running
for _ in $(seq 50); do [ "$(said)" -gt "$after" ] && break; sleep 0.1; done
[ "$(said)" -gt "$after" ] || fail "a resumed program does not count"
say "resumed: it counts again"

title "events --stats: what it uses"
lines=0 works events --stats busybox
jq -e '.type == "stats" and .data.pids.current >= 1 and .data.memory.usage.usage > 0' \
    "$work/out" > /dev/null || fail "the statistics are not complete"
say "$(jq -r '"\(.data.pids.current) processes, \(.data.memory.usage.usage / 1024 | floor) KiB of memory, " +
    "\(.data.cpu.usage.total / 1000000 | floor) ms of processor time"' "$work/out")"

title "update: another limit while it runs"
works update --pids-limit 25 busybox
hull exec busybox sh -c 'cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null'
holds '^25$'
say "at most 25 processes now, as the kernel says in the container's own cgroup"

title "list, kill, delete"
works list
works kill busybox TERM
for _ in $(seq 50); do
    "$runtime" --root "$state" state busybox | grep -q '"stopped"' && break
    sleep 0.1
done
is stopped
[ "$(tail -n 1 "$work/container.out")" = "asked to stop" ] || fail "the program did not end by itself"
say "it was asked to stop, said so, and has ended"
works delete busybox
hull state busybox
[ "$code" -ne 0 ] || fail "a deleted container has a state"
holds 'container does not exist'
say "gone"

# --- Debian ---------------------------------------------------------------------------------
title "run: Debian in one command"
wait "$debian_maker" || fail "mmdebstrap: $(tail -n 3 "$work/mmdebstrap.log")"
debian_maker=
"$runtime" spec --bundle "$work/debian"
debian() {
    configure ".process.terminal = false | .process.args = $1 | .root.readonly = false
        | .linux.cgroupsPath = \"/\" + \$name + \"-debian\"" "$work/debian"
    printf '   config.json: "args": %s\n' "$1"
    hull run --bundle "$work/debian" debian
}
debian '["cat", "/etc/os-release"]'
[ "$code" -eq 0 ] || fail "run ended with status $code"
holds 'Debian GNU/Linux 12'
debian '["apt", "--version"]'
[ "$code" -eq 0 ] || fail "run ended with status $code"
holds '^apt [0-9]'
say "Debian's own programs, in a container that is made, run and removed by one command"

title "What a mistake looks like"
debian '["/usr/bin/no-such-program"]'
[ "$code" -ne 0 ] || fail "a missing program was run"
holds 'no such file or directory'
printf '#!/usr/bin/no-such-shell\n' > "$work/debian/rootfs/script"
chmod 755 "$work/debian/rootfs/script"
debian '["/script"]'
[ "$code" -ne 0 ] || fail "a script without its interpreter was run"
holds 'no-such-shell'
say "one sentence, which names the cause; and nothing is left of either container"

title "features: what this runtime can do, for programs to read"
lines=0 works features
say "specification $(jq -r .ociVersionMax "$work/out"), $(jq '.mountOptions | length' "$work/out") mount options, \
$(jq '.linux.namespaces | length' "$work/out") kinds of namespace, $(jq '.linux.capabilities | length' "$work/out") capabilities, \
$(jq '.linux.seccomp.actions | length' "$work/out") seccomp actions"

# --- nothing left -----------------------------------------------------------------------------
title "What is left"
left=$(find "$state" -mindepth 1 -maxdepth 1)
[ -z "$left" ] || fail "state is left: $left"
left=$(find /sys/fs/cgroup -name "$name*" -type d 2>/dev/null || true)
[ -z "$left" ] || fail "cgroups are left: $left"
left=$(grep -F "$work" /proc/self/mountinfo || true)
[ -z "$left" ] || fail "mounts are left: $left"
# A cgroup cannot be removed while a process is in it.
say "no container, no mount, no cgroup and so no process; the temporary directory goes now"
printf '\nAll %d steps did what they said, in %d s.\n' "$step" $((SECONDS - started))
