#!/bin/bash
# `make demo`: starts a manager of its own, gets images, runs containers in several ways, looks
# at them, stops them, and says what each step shows. Every result is checked; the first that is
# not as announced ends the demo with an error. All it makes is in one temporary directory, one
# cgroup and one network namespace, which stands for the host's, and is removed at the end.
set -euo pipefail

hulld=${HULL_HULLD:?make demo sets it}
cli=${HULL_CLI:?make demo sets it}
[ "$(id -u)" -eq 0 ] || { echo "the demo makes containers and has to run as root" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/var/tmp}/hull-demo.XXXXXX")
name=hull-demo-$$
daemon=
debian_maker=
started=$SECONDS
mkdir "$work/client"

on_host() { nsenter --net="/run/netns/$name" "$@"; }

host_start() {
    ip netns add "$name"
    ip -n "$name" link set lo up
}

daemon_start() {
    echo '{}' > "$work/daemon.json"
    nsenter --net="/run/netns/$name" "$hulld" --config-file "$work/daemon.json" --data-root "$work/data" --exec-root "$work/exec" \
        --socket "$work/hull.sock" --cgroup-parent "/$name" --add-runtime "hull=$HULL_RUNTIME" \
        --shim-path "$HULL_SHIM_PROGRAM" --init-path "$HULL_INIT" >> "$work/hulld.log" 2>&1 &
    daemon=$!
    for _ in $(seq 100); do "$cli" -H "unix://$work/hull.sock" version > /dev/null 2>&1 && return; sleep 0.05; done
    fail "hulld does not answer: $(tail -n 5 "$work/hulld.log")"
}

cleanup() {
    if [ -n "$debian_maker" ]; then kill "$debian_maker" 2>/dev/null && wait "$debian_maker" || true; fi
    if [ -n "$daemon" ]; then
        "$cli" -H "unix://$work/hull.sock" ps -aq 2>/dev/null | while read -r id; do
            "$cli" -H "unix://$work/hull.sock" rm -f -v "$id" > /dev/null 2>&1 || true
        done || true
        kill "$daemon" 2>/dev/null && wait "$daemon" || true
    fi
    for place in /sys/fs/cgroup/*/"$name" /sys/fs/cgroup/"$name"; do
        [ ! -d "$place" ] || rmdir "$place" 2>/dev/null || true
    done
    if [ -e "/run/netns/$name" ]; then ip netns del "$name"; fi
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- what the demo says -----------------------------------------------------------------
step=0
title() { step=$((step + 1)); printf '\n\033[1m%d. %s\033[0m\n' "$step" "$1"; }
say() { printf '   => %s\n' "$1"; }
fail() { printf '\nNOT AS ANNOUNCED: %s\n' "$1" >&2; exit 1; }

# Shows and runs a command of hull: its output goes to $work/out, its status to $code.
hull() {
    local word shown=
    for word in "$@"; do
        if [[ $word == *[[:space:]]* ]]; then shown+=" '$word'"; else shown+=" $word"; fi
    done
    printf '   $ hull%s\n' "$shown"
    code=0
    "$cli" --config "$work/client" -H "unix://$work/hull.sock" "$@" > "$work/out" 2>&1 < "${input:-/dev/null}" || code=$?
    fold -s -w 110 "$work/out" | awk -v max="${lines:-12}" 'NR <= max { print "     " $0 }'
}
works() { hull "$@"; [ "$code" -eq 0 ] || fail "'$1' ended with status $code"; }
holds() { grep -qE -- "$1" "$work/out" || fail "the output does not hold: $1"; }
is() { hull_quiet inspect --format '{{.State.Status}}' "$1"; [ "$(cat "$work/quiet")" = "$2" ] || fail "$1 is $(cat "$work/quiet"), not $2"; }
hull_quiet() { "$cli" --config "$work/client" -H "unix://$work/hull.sock" "$@" > "$work/quiet" 2>&1; }

title "The manager: hulld, with a data directory and a socket of its own"
mkdir -p "$work/debian"
mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$work/debian.tar" > "$work/mmdebstrap.log" 2>&1 &
debian_maker=$!
host_start
daemon_start
works version
say "it answers; meanwhile mmdebstrap makes a Debian for later"

title "An image, from a directory with busybox in it"
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp"
cp "$(command -v busybox)" "$work/root/bin/busybox"
chroot "$work/root" /bin/busybox --install -s /bin
echo 'root:x:0:0:root:/:/bin/sh' > "$work/root/etc/passwd"
tar -C "$work/root" -cf "$work/root.tar" .
works import --change 'CMD ["sh"]' "$work/root.tar" busybox
works images
holds '^busybox +latest'
say "one layer; its id is the digest of its configuration, as everywhere"

title "run: a command in a new container"
works run --rm busybox echo "hello from a container"
holds '^hello from a container$'
hull run --rm busybox sh -c 'exit 7'
[ "$code" -eq 7 ] || fail "the exit status is $code, not 7"
say "it was made, ran, and was removed; its exit status came back: 7"

title "run, with something to read"
echo "typed by nobody" > "$work/input"
input=$work/input works run --rm -i busybox tr a-z A-Z
holds '^TYPED BY NOBODY$'

title "run -d: it stays"
works run -d --name counter --hostname box --memory 64m busybox sh -c \
    'trap "echo asked to stop; exit 0" TERM; n=0; while :; do n=$((n+1)); echo "$n on $(hostname)"; sleep 0.1; done'
sleep 0.5
works ps
holds 'counter'
works logs --tail 2 counter
holds 'on box$'
say "it counts, and its output is kept"

title "Looking at it: exec, top, stats, inspect"
works exec counter sh -c 'echo I am in $(hostname); ps'
holds 'I am in box'
works top counter
works stats --no-stream counter
holds '64MiB'
works inspect --format '{{.State.Status}}, {{.HostConfig.Memory}} bytes at most' counter
holds '^running, 67108864 bytes'

title "The manager is killed; the container does not notice"
kill -KILL "$daemon"; wait "$daemon" 2>/dev/null || true
daemon_start
works ps
holds 'Up .*counter'
say "a new manager found it by looking"

title "A file in, a change out"
echo "from outside" > "$work/file"
works cp "$work/file" counter:/etc/motd
works exec counter cat /etc/motd
holds '^from outside$'
works diff counter
holds '^A /etc/motd'
works commit -m "with a message of the day" counter busybox:motd
works run --rm busybox:motd cat /etc/motd
holds '^from outside$'
say "what it changed is an image now"

title "stop: asked first, killed only if it does not listen"
works stop counter
is counter exited
works logs --tail 1 counter
holds '^asked to stop$'
hull why counter
[ "$code" -eq 0 ] || fail "why ended with status $code"

title "A volume, shared by two containers that come one after the other"
works volume create data
works run --rm -v data:/data busybox sh -c 'echo kept > /data/file'
works run --rm -v data:/data busybox cat /data/file
holds '^kept$'

title "save and load: the same image, through an archive"
works save -o "$work/saved.tar" busybox:motd
works rmi busybox:motd
works load -i "$work/saved.tar"
holds 'Loaded image: busybox:motd'

title "Debian"
wait "$debian_maker" || fail "mmdebstrap: $(tail -n 3 "$work/mmdebstrap.log")"
debian_maker=
works import "$work/debian.tar" debian:12
works run --rm debian:12 cat /etc/os-release
holds 'Debian GNU/Linux 12'

title "Networks: a name that is found, and a published port"
works network create shop
works run -d --name web --network shop -p 8080:80 busybox \
    sh -c 'echo "welcome to the shop" > /tmp/index.html; exec httpd -f -h /tmp'
works run --rm --network shop busybox sh -c 'until wget -qO- http://web/; do sleep 0.1; done'
holds '^welcome to the shop$'
works port web
holds '^80/tcp -> 0.0.0.0:8080$'
on_host busybox wget -qO- http://127.0.0.1:8080/ > "$work/out" || fail "the port does not answer"
holds '^welcome to the shop$'
works network audit
works rm -f web
works network rm shop
say "web is found by its name, and answers on the host's port 8080; audit says who reaches what"

title "What a mistake looks like"
hull run --rm debian:12 /usr/bin/no-such-program
[ "$code" -eq 127 ] || fail "a missing program gave status $code"
hull rmi nothing
[ "$code" -eq 1 ] || fail "a missing image gave status $code"
holds 'No such image: nothing'
say "one sentence, and a status that scripts know"

title "Cleaning up, and what is left"
works rm counter
works volume rm data
works rmi busybox busybox:motd debian:12
works system df
hull_quiet ps -aq
[ ! -s "$work/quiet" ] || fail "containers are left: $(cat "$work/quiet")"
kill "$daemon"; wait "$daemon" || fail "hulld ended with an error: $(tail -n 3 "$work/hulld.log")"
daemon=
left=$(grep -F "$work" /proc/self/mountinfo || true)
[ -z "$left" ] || fail "mounts are left: $left"
left=$(find /sys/fs/cgroup -path "*$name/*" -type d 2>/dev/null || true)
[ -z "$left" ] || fail "cgroups are left: $left"
left=$(pgrep -f "$work" | grep -vx $$ || true)
[ -z "$left" ] || fail "processes are left: $left"
left=$(ip -n "$name" -o link show type veth)
[ -z "$left" ] || fail "interfaces are left: $left"
say "no container, no mount, no cgroup, no interface, no process; the temporary directory goes now"
printf '\nAll %d steps did what they said, in %d s.\n' "$step" $((SECONDS - started))
