//! Namespaces: new, of the host, of another container, by path.

use std::fs;
use std::os::unix::fs::MetadataExt;

use hull_integration::engine::{Podman, SLEEPER, command};
use hull_integration::{SOON, tests, wait_until};

use crate::seen::INIT;

tests![
    a_container_has_its_own_unless_it_asks_for_the_hosts,
    without_a_network_there_is_only_the_loopback,
    containers_share_namespaces,
    a_network_namespace_is_joined_by_path,
    names_and_kernel_parameters_belong_to_the_container,
    ids_are_mapped,
    a_user_namespace_takes_every_other_option,
];

fn own(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("/proc is mounted");
    link.to_string_lossy().into_owned()
}

fn a_container_has_its_own_unless_it_asks_for_the_hosts() {
    let podman = Podman::new();
    let seen = |options: &[&str], kind: &str| {
        podman.shell(options, &format!("readlink /proc/self/ns/{kind}")).ok().text().to_owned()
    };
    for (kind, option) in
        [("net", "--network"), ("pid", "--pid"), ("ipc", "--ipc"), ("uts", "--uts")]
    {
        assert_ne!(seen(&[], kind), own(kind), "{kind}");
        assert_eq!(seen(&[option, "host"], kind), own(kind), "{kind}");
    }
    assert_ne!(seen(&[], "mnt"), own("mnt"));
    assert_eq!(seen(&[], "user"), own("user"));
    assert_ne!(seen(&["--cgroupns", "private"], "cgroup"), own("cgroup"));
    assert_eq!(seen(&["--cgroupns", "host"], "cgroup"), own("cgroup"));
}

fn without_a_network_there_is_only_the_loopback() {
    let podman = Podman::new();
    podman.shell(&[], "ls /sys/class/net").ok().says("lo");
}

fn containers_share_namespaces() {
    let podman = Podman::new();
    podman.detach("one", &["--ipc", "shareable"], SLEEPER);
    for kind in ["net", "pid", "ipc", "uts"] {
        let option = match kind {
            "net" => "--network=container:one".to_owned(),
            _ => format!("--{kind}=container:one"),
        };
        let script = format!("readlink /proc/self/ns/{kind}");
        let theirs = podman.run(&["exec", "one", "sh", "-c", &script]).ok();
        podman.shell(&[&option], &script).ok().says(theirs.text());
    }
    podman.shell(&["--pid", "container:one"], INIT).ok().says("sh");
}

fn a_network_namespace_is_joined_by_path() {
    let podman = Podman::new();
    let holder = command(&["unshare", "--net", "sleep", "60"]).start();
    let path = format!("/proc/{}/ns/net", holder.pid());
    let theirs =
        || fs::read_link(&path).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
    wait_until("the holder has its namespace", SOON, || theirs() != own("net"));
    podman
        .shell(&["--network", &format!("ns:{path}")], "readlink /proc/self/ns/net")
        .ok()
        .says(&theirs());
}

fn names_and_kernel_parameters_belong_to_the_container() {
    let podman = Podman::new();
    podman.shell(&["--hostname", "inside"], "hostname").ok().says("inside");
    podman
        .shell(
            &["--sysctl", "net.ipv4.ip_default_ttl=42", "--sysctl", "kernel.shm_rmid_forced=1"],
            "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shm_rmid_forced",
        )
        .ok()
        .says("42\n1");
}

fn ids_are_mapped() {
    let podman = Podman::new();
    let shared = podman.site().make("shared");
    let volume = format!("{shared}:/shared");
    let map = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--volume", &volume];
    std::os::unix::fs::chown(&shared, Some(100_000), Some(200_000)).expect("the suite is root");
    let run = podman.shell(&map, "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /shared/new /new; ls -ln /bin/busybox /new | tr -s ' ' | cut -d' ' -f3,4").ok();
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "0", "200000", "65536", "0", "0", "0", "0"]);
    let new = fs::metadata(format!("{shared}/new")).expect("the container made it");
    assert_eq!((new.uid(), new.gid()), (100_000, 200_000));
    podman.shell(&map, "chown 1 /sys/kernel").exits(1);
    podman
        .shell(&map, "[ $(stat -c %u /proc/1) = 0 ] && [ -c /dev/null ] && echo > /dev/null")
        .ok();
}

fn a_user_namespace_takes_every_other_option() {
    let podman = Podman::new();
    let map = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    let shell = |more: &[&str], script: &str| podman.shell(&[&map[..], more].concat(), script);
    shell(&["--user", "1000:1000"], "id -u").ok().says("1000");
    shell(&["--read-only"], "touch /new").exits(1).stderr_says("Read-only");
    shell(&["--cap-drop", "all"], "grep CapEff /proc/self/status")
        .ok()
        .says("CapEff:\t0000000000000000");
    shell(&["--tmpfs", "/t"], "touch /t/new; stat -c %u /t/new").ok().says("0");
    shell(&["--hostname", "inside"], "hostname").ok().says("inside");
    shell(&["--memory", "64m"], &crate::seen::limit("memory")).ok().says("67108864");
    podman.detach("one", &map, SLEEPER);
    podman.run(&["exec", "one", "sh", "-c", "id -u; cut -c1-21 /proc/self/uid_map"]).ok();
    let link = "readlink /proc/self/ns/user";
    let theirs = podman.run(&["exec", "one", "sh", "-c", link]).ok();
    podman.shell(&["--userns", "container:one"], link).ok().says(theirs.text());
    let mut terminal =
        podman.terminal(&["run", "--rm", "-it", map[0], map[1], map[2], map[3], "busybox", "sh"]);
    terminal.read_until("/ #");
    terminal.write("tty; exit 3\n");
    terminal.read_until("/dev/pts/0");
    assert_eq!(terminal.exit_code(), Some(3));
}
