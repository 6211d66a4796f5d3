//! The options of run, each by what it does in the container.

use hull_integration::engine::{Engine, Hull, SLEEPER, reference};
use hull_integration::{NotRun, not_run, require, tests};

tests![
    the_process_is_what_was_asked,
    the_environment_is_images_and_ours,
    users_and_groups,
    names_of_the_machine,
    capabilities_are_docker_s,
    privileged_has_everything,
    seccomp_is_on_unless_told_otherwise,
    a_profile_of_the_users_own,
    containers_are_confined_by_apparmor,
    no_new_privileges,
    the_root_is_read_only,
    temporary_file_systems,
    bind_mounts,
    the_mount_syntax,
    devices,
    limits_of_memory_and_processes,
    limits_of_the_processor,
    ulimits_and_sysctls,
    shared_memory_has_its_size,
    namespaces_of_the_host,
    namespaces_of_another_container,
    masks_cover_what_they_should,
    an_init_reaps,
    a_cidfile_has_the_id,
    labels_and_annotations,
    another_runtime,
    runc_does_the_same,
    crun_does_the_same,
    an_out_of_memory_kill_is_known,
    entrypoint_and_command,
    what_needs_a_network_is_refused_clearly,
];

fn the_process_is_what_was_asked() {
    let engine = Engine::start();
    engine.shell(&["--workdir", "/var/tmp"], "pwd").ok().says("/var/tmp");
    engine.shell(&["-w", "/made/here"], "pwd").ok().says("/made/here");
    engine.shell(&[], "tr '\\0' ' ' < /proc/1/cmdline | cut -c1-5").ok().says("sh -c");
    engine
        .run(&["run", "--rm", "--network", "none", "-w", "relative", "busybox", "pwd"])
        .exits(125);
}

fn the_environment_is_images_and_ours() {
    let engine = Engine::start();
    let file = engine.site().write("env", "# comment\nFROM_FILE=f\nEMPTY=\n");
    let output = engine
        .shell(
            &["-e", "A=1", "-e", "B=x y", "--env-file", &file],
            "echo $A,$B,$FROM_FILE,$EMPTY,$HOME,$PATH",
        )
        .ok();
    output.says("1,x y,f,,/root,/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    engine.shell(&["-h", "box"], "echo $HOSTNAME").ok().says("box");
}

fn users_and_groups() {
    let engine = Engine::start();
    let id = "id -u; id -g; id -G";
    engine.shell(&[], id).ok().says("0\n0\n0");
    engine.shell(&["-u", "user"], id).ok().says("1000\n1000\n1000 2000");
    engine.shell(&["-u", "1000"], id).ok().says("1000\n1000\n1000 2000");
    engine.shell(&["-u", "user:extra"], id).ok().says("1000\n2000\n2000");
    engine.shell(&["-u", "5:6"], id).ok().says("5\n6\n6");
    engine
        .shell(&["-u", "5:6", "--group-add", "extra", "--group-add", "77"], "id -G")
        .ok()
        .says("6 77 2000");
    engine.shell(&["-u", "user"], "echo $HOME").ok().says("/home");
    engine
        .shell(&["-u", "nosuchuser"], "true")
        .exits(125)
        .stderr_says("unable to find user nosuchuser");
}

fn names_of_the_machine() {
    let engine = Engine::start();
    engine.shell(&["--hostname", "box"], "hostname; cat /etc/hostname").ok().says("box\nbox");
    engine
        .shell(&["--domainname", "example.org"], "cat /proc/sys/kernel/domainname")
        .ok()
        .says("example.org");
    let hosts = engine.shell(&["--hostname", "box"], "cat /etc/hosts").ok();
    assert!(hosts.text().contains("127.0.0.1\tlocalhost"), "{}", hosts.transcript());
}

const CAPABILITIES: &str = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u";

fn capabilities_are_docker_s() {
    let engine = Engine::start();
    engine.shell(&[], CAPABILITIES).ok().says("00000000a80425fb");
    engine.shell(&["--cap-drop", "ALL"], CAPABILITIES).ok().says("0000000000000000");
    engine
        .shell(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], CAPABILITIES)
        .ok()
        .says("0000000000001000");
    engine.shell(&["--cap-add", "CAP_SYS_PTRACE"], CAPABILITIES).ok().says("00000000a80c25fb");
    engine.shell(&["--cap-drop", "chown"], CAPABILITIES).ok().says("00000000a80425fa");
    engine.shell(&["--cap-add", "NONSENSE"], "true").exits(125).stderr_says("NONSENSE");
    engine
        .shell(&["-u", "user"], "grep CapEff /proc/self/status | cut -f2")
        .ok()
        .says("0000000000000000");
}

fn privileged_has_everything() {
    let engine = Engine::start();
    engine.shell(&["--privileged"], "grep Seccomp: /proc/self/status | cut -f2").ok().says("0");
    engine
        .shell(&["--privileged"], "mount -t tmpfs none /mnt && echo mounted")
        .ok()
        .says("mounted");
    engine
        .shell(
            &["--privileged"],
            "touch /proc/sys/kernel/domainname && test -b /dev/vda -o -e /dev/kmsg && echo all",
        )
        .ok()
        .says("all");
    engine.shell(&[], "mount -t tmpfs none /mnt").fails();
}

fn seccomp_is_on_unless_told_otherwise() {
    let engine = Engine::start();
    let mode = "grep Seccomp: /proc/self/status | cut -f2";
    engine.shell(&[], mode).ok().says("2");
    engine.shell(&["--security-opt", "seccomp=unconfined"], mode).ok().says("0");
    engine.shell(&[], "unshare -m true").fails();
}

fn a_profile_of_the_users_own() {
    let engine = Engine::start();
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    let file = engine.site().write("profile.json", profile);
    let option = format!("seccomp={file}");
    engine
        .shell(&["--security-opt", &option], "mkdir /x")
        .exits(1)
        .stderr_says("Operation not permitted");
    engine.shell(&["--security-opt", "seccomp=/nonexistent"], "true").exits(125);
    let broken = format!("seccomp={}", engine.site().write("broken.json", "{"));
    engine.shell(&["--security-opt", &broken], "true").exits(125);
    engine.shell(&["--security-opt", "nonsense=1"], "true").exits(125);
}

fn containers_are_confined_by_apparmor() {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let enabled = enabled.is_ok_and(|text| text.starts_with('Y'));
    let parser = std::path::Path::new("/usr/sbin/apparmor_parser").exists();
    require!(enabled && parser, "AppArmor is not enabled, or its parser is not installed");
    let engine = Engine::start();
    let own = "cat /proc/self/attr/current";
    let default = if reference() { "docker-default (enforce)" } else { "hull-default (enforce)" };
    engine.shell(&[], own).ok().says(default);
    engine.sleeper("one", &[]);
    let name = default.trim_end_matches(" (enforce)");
    assert_eq!(engine.inspect("one", "{{.AppArmorProfile}}"), name);
    engine.shell(&["--privileged"], own).ok().says("unconfined");
    engine.shell(&["--security-opt", "apparmor=unconfined"], own).ok().says("unconfined");
    let refused = engine.shell(&["--security-opt", "apparmor=no-such-profile"], own);
    assert_ne!(refused.code(), Some(0), "{}", refused.transcript());
}

fn no_new_privileges() {
    let engine = Engine::start();
    let flag = "grep NoNewPrivs /proc/self/status | cut -f2";
    engine.shell(&[], flag).ok().says("0");
    engine.shell(&["--security-opt", "no-new-privileges"], flag).ok().says("1");
}

fn the_root_is_read_only() {
    let engine = Engine::start();
    engine.shell(&["--read-only"], "touch /x").exits(1).stderr_says("Read-only file system");
    engine.shell(&["--read-only", "--tmpfs", "/tmp"], "touch /tmp/x && echo yes").ok().says("yes");
}

fn temporary_file_systems() {
    let engine = Engine::start();
    let options = "grep ' /t ' /proc/mounts";
    let mounted = engine.shell(&["--tmpfs", "/t:size=4m,mode=700"], options).ok();
    for word in ["tmpfs", "size=4096k", "mode=700", "nosuid", "nodev", "noexec"] {
        assert!(mounted.text().contains(word), "{word}: {}", mounted.transcript());
    }
    engine
        .shell(
            &["--mount", "type=tmpfs,target=/t,tmpfs-size=1m"],
            "df -k /t | tail -1 | awk '{print $2}'",
        )
        .ok()
        .says("1024");
    engine.shell(&["--tmpfs", "/t:nonsense=1"], "true").exits(125);
}

fn bind_mounts() {
    let engine = Engine::start();
    let directory = engine.site().make("shared");
    let (plain, read_only) = (format!("{directory}:/s"), format!("{directory}:/s:ro"));
    engine.shell(&["-v", &plain], "echo text > /s/file").ok();
    assert_eq!(
        std::fs::read_to_string(format!("{directory}/file")).expect("it was written"),
        "text\n"
    );
    engine
        .shell(&["-v", &read_only], "cat /s/file; touch /s/other")
        .exits(1)
        .says("text")
        .stderr_says("Read-only");
    let made = format!("{directory}/made/now:/s");
    engine.shell(&["-v", &made], "touch /s/x").ok();
    assert!(std::path::Path::new(&format!("{directory}/made/now/x")).exists());
    engine.shell(&["-v", "relative/path:/s"], "true").exits(125);
    engine
        .shell(&["-v", &plain, "-v", &made], "true")
        .exits(125)
        .stderr_says("Duplicate mount point: /s");
    engine.shell(&["-v", &plain, "-v", &plain], "true").ok();
}

fn the_mount_syntax() {
    let engine = Engine::start();
    let directory = engine.site().make("shared");
    let plain = format!("type=bind,source={directory},target=/s");
    engine.shell(&["--mount", &plain], "echo text > /s/file").ok();
    engine.shell(&["--mount", &format!("{plain},readonly")], "touch /s/x").exits(1);
    let missing = format!("type=bind,source={directory}/missing,target=/s");
    engine
        .shell(&["--mount", &missing], "true")
        .exits(125)
        .stderr_says("bind source path does not exist");
    engine.shell(&["--mount", "type=nonsense,target=/s"], "true").exits(125);
    engine.shell(&["--mount", "type=bind,source=/tmp"], "true").exits(125).stderr_says("target");
}

fn devices() {
    let engine = Engine::start();
    engine.shell(&["--device", "/dev/kmsg"], "test -c /dev/kmsg && echo there").ok().says("there");
    engine
        .shell(&["--device", "/dev/fuse:/dev/other:r"], ": < /dev/other; echo $?; : > /dev/other")
        .exits(1)
        .says("0");
    engine.shell(&[], "mknod /tmp/fuse c 10 229 && : < /tmp/fuse").fails();
    // docker takes any error with the words "no such file" for a missing program.
    let missing = if reference() { 127 } else { 125 };
    engine.shell(&["--device", "/dev/nonexistent"], "true").exits(missing);
    engine
        .shell(
            &["--device-cgroup-rule", "c 10:229 rwm"],
            "mknod /tmp/fuse c 10 229 && : < /tmp/fuse && echo opened",
        )
        .ok()
        .says("opened");
}

fn limits_of_memory_and_processes() {
    let engine = Engine::start();
    let memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    engine.shell(&["--memory", "48m"], memory).ok().says(&(48 << 20).to_string());
    engine
        .shell(&["--memory", "1m"], "true")
        .exits(125)
        .stderr_says("Minimum memory limit allowed is 6MB");
    let pids = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
    engine.shell(&["--pids-limit", "20"], pids).ok().says("20");
}

fn limits_of_the_processor() {
    let engine = Engine::start();
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    engine.shell(&["--cpus", "0.5"], quota).ok().says("50000");
    engine.shell(&["--cpu-quota", "20000"], quota).ok().says("20000");
    engine
        .shell(&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status | cut -f2")
        .ok()
        .says("0");
    engine.shell(&["--cpus", "1000"], "true").exits(125).stderr_says("CPUs");
}

fn ulimits_and_sysctls() {
    let engine = Engine::start();
    engine.shell(&["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn").ok().says("100\n200");
    engine.shell(&["--ulimit", "nonsense=1"], "true").exits(125);
    engine.shell(&["--sysctl", "kernel.shmmni=77"], "cat /proc/sys/kernel/shmmni").ok().says("77");
    engine.shell(&["--sysctl", "kernel.panic=1"], "true").exits(125);
}

fn shared_memory_has_its_size() {
    let engine = Engine::start();
    let size = "df -k /dev/shm | tail -1 | awk '{print $2}'";
    engine.shell(&[], size).ok().says("65536");
    engine.shell(&["--shm-size", "1m"], size).ok().says("1024");
}

fn namespaces_of_the_host() {
    let engine = Engine::start();
    for (option, name) in [
        ("--pid", "pid"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--network", "net"),
        ("--cgroupns", "cgroup"),
    ] {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}")).expect("procfs has it");
        let script = format!("readlink /proc/self/ns/{name}");
        let run = |words: &[&str]| {
            engine
                .run(&[&["run", "--rm"], words, &["busybox", "sh", "-c", &script]].concat())
                .ok()
                .text()
                .to_owned()
        };
        assert_eq!(run(&[option, "host"]), own.to_string_lossy(), "{option}");
        if option != "--network" && option != "--cgroupns" {
            assert_ne!(run(&["--network", "none"]), own.to_string_lossy(), "{option}");
        }
    }
}

fn namespaces_of_another_container() {
    let engine = Engine::start();
    engine.sleeper("one", &["--ipc", "shareable"]);
    for (option, name) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
        let script = format!("readlink /proc/self/ns/{name}");
        let own = engine.run(&["exec", "one", "sh", "-c", &script]).ok().text().to_owned();
        let other = engine
            .run(&["run", "--rm", option, "container:one", "busybox", "sh", "-c", &script])
            .ok();
        assert_eq!(other.text(), own, "{option}");
    }
    engine
        .run(&["run", "--rm", "--pid", "container:none-such", "busybox", "true"])
        .exits(125)
        .stderr_says("none-such");
}

fn masks_cover_what_they_should() {
    let engine = Engine::start();
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list; do test -e $f && wc -c < $f; done | sort -u; ls /proc/scsi /proc/acpi 2>/dev/null | grep -v : | grep . ; (echo x > /proc/sys/kernel/domainname) 2>&1 | grep -c Read-only";
    engine.shell(&[], script).ok().says("0\n1");
    engine
        .shell(
            &["--security-opt", "systempaths=unconfined"],
            "test $(wc -c < /proc/timer_list) -gt 0 -o $(wc -c < /proc/keys) -gt 0 && echo open",
        )
        .ok()
        .says("open");
}

fn an_init_reaps() {
    let engine = Engine::start();
    engine.shell(&["--init"], "readlink /proc/1/exe").ok();
    let output = engine.shell(&["--init"], "test $$ -ne 1 && echo second").ok();
    assert_eq!(output.text(), "second");
    engine.shell(&["--init"], "exit 9").exits(9);
    engine.sleeper("one", &["--init"]);
    engine.run(&["stop", "-t", "20", "one"]).ok();
    assert_eq!(engine.inspect("one", "{{.State.ExitCode}}"), "7");
}

fn a_cidfile_has_the_id() {
    let engine = Engine::start();
    let file = engine.site().path("cid");
    let id = engine.run(&["create", "--cidfile", &file, "busybox", "true"]).ok().text().to_owned();
    assert_eq!(std::fs::read_to_string(&file).expect("it was written"), id);
    engine.run(&["create", "--cidfile", &file, "busybox", "true"]).fails();
}

fn labels_and_annotations() {
    let engine = Engine::start();
    engine.run(&["create", "--name", "one", "-l", "a=1", "--label", "b", "busybox", "true"]).ok();
    engine.run(&["create", "--name", "two", "-l", "a=2", "busybox", "true"]).ok();
    assert_eq!(engine.inspect("one", "{{.Config.Labels.a}}"), "1");
    engine.run(&["ps", "-a", "--filter", "label=a=1", "--format", "{{.Names}}"]).ok().says("one");
    engine.run(&["ps", "-a", "--filter", "label=b", "--format", "{{.Names}}"]).ok().says("one");
    engine.run(&["ps", "-a", "--filter", "name=two", "--format", "{{.Names}}"]).ok().says("two");
    engine.run(&["ps", "--filter", "nonsense=1"]).exits(1).stderr_says("nvalid filter");
}

/// Everything that a manager asks of a runtime.
#[track_caller]
fn a_life_under(engine: &Engine, runtime: &str) {
    engine.sleeper("one", &["--runtime", runtime, "--memory", "64m"]);
    assert_eq!(engine.inspect("one", "{{.HostConfig.Runtime}}"), runtime);
    engine.run(&["exec", "-e", "A=1", "one", "sh", "-c", "echo $A; exit 4"]).exits(4).says("1");
    engine.run(&["pause", "one"]).ok();
    assert_eq!(engine.inspect("one", "{{.State.Status}}"), "paused");
    engine.run(&["unpause", "one"]).ok();
    engine.run(&["update", "--memory", "32m", "--memory-swap", "64m", "one"]).ok();
    let top = engine.run(&["top", "one"]).ok();
    assert!(top.text().contains("sleep"), "{}", top.text());
    engine.run(&["stats", "--no-stream", "one"]).ok();
    engine.run(&["kill", "-s", "USR1", "one"]).ok();
    engine.run(&["stop", "one"]).ok();
    assert_eq!(engine.inspect("one", "{{.State.ExitCode}}"), "7", "{runtime}");
    engine.run(&["logs", "one"]).ok().says("usr1");
    engine.run(&["start", "one"]).ok();
    engine.run(&["rm", "-f", "one"]).ok();
    let missing = ["run", "--rm", "--network", "none", "--runtime", runtime, "busybox"];
    engine.run(&[&missing[..], &["no-such-program"]].concat()).exits(127);
}

fn runc_does_the_same() {
    a_life_under(&Engine::start(), "runc");
}

fn crun_does_the_same() {
    if reference() {
        not_run(NotRun::PeerLacks("docker: it is told of crun in its configuration".into()));
    }
    let engine = Engine::Hull(Hull::start_with_crun());
    a_life_under(&engine, "crun");
    engine.shell(&["--runtime", "other"], "echo under another").ok().says("under another");
}

fn another_runtime() {
    let engine = Engine::start();
    engine.shell(&["--runtime", "runc"], "echo under runc").ok().says("under runc");
    engine.shell(&["--runtime", "nonsense"], "true").exits(125);
}

fn an_out_of_memory_kill_is_known() {
    let engine = Engine::start();
    let eat = "x=0123456789abcdef; while :; do x=$x$x; done";
    let run = |name: &str, script: &str| {
        let limits = ["--network", "none", "--memory", "12m", "--memory-swap", "12m"];
        let (first, last) = (["run", "--name", name], ["busybox", "sh", "-c", script]);
        engine.run(&[&first[..], &limits, &last].concat())
    };
    let state = |name: &str| engine.inspect(name, "{{.State.OOMKilled}} {{.State.ExitCode}}");
    run("one", eat).exits(137);
    assert_eq!(state("one"), "true 137");
    // Not the first process, which goes on.
    run("two", &format!("sh -c '{eat}'; exit 3")).exits(3);
    assert_eq!(state("two"), "true 3");
    run("three", "exit 4").exits(4);
    assert_eq!(state("three"), "false 4");
}

fn entrypoint_and_command() {
    let engine = Engine::start();
    engine
        .run(&["run", "--rm", "--network", "none", "--entrypoint", "echo", "busybox", "a", "b"])
        .ok()
        .says("a b");
    engine.run(&["create", "--name", "one", "--entrypoint", "sh", "busybox", "-c", SLEEPER]).ok();
    assert_eq!(engine.inspect("one", "{{.Path}} {{index .Args 0}}"), "sh -c");
    engine
        .run(&["run", "--rm", "--network", "none", "busybox"])
        .exits(125)
        .stderr_says("o command specified");
}

fn what_needs_a_network_is_refused_clearly() {
    if reference() {
        not_run(NotRun::PeerLacks("docker: it has networks".into()));
    }
    let engine = Engine::start();
    for words in [&["-p", "80:80"][..], &["--network", "other"], &["--ip", "10.0.0.1"], &["-P"]] {
        let output = engine.run(&[&["run", "--rm"], words, &["busybox", "true"]].concat());
        output.exits(125).stderr_says("network");
    }
}
