//! Names that an image or a volume turns into something else: links, fakes and races.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use hull_integration::{Bundle, ConsoleSocket, Container, note, runtime, tests, weak_peer};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::{Canary, Swapper, races, share, text, tree};

tests![
    a_race_on_a_mount_target_does_not_escape,
    links_for_dev_proc_and_sys_do_not_escape,
    a_replaced_mask_source_masks_nothing_less,
    links_for_the_console_do_not_escape,
    writes_to_procfs_are_not_redirected,
];

// A race on a mount's target: CVE-2019-19921, CVE-2021-30465, CVE-2024-45310.

fn a_race_on_a_mount_target_does_not_escape() {
    let canary = Canary::new();
    let bundle = Bundle::shell("cat /proc/self/mountinfo");
    let shared = share(&bundle);
    let share_path = text(&shared).to_owned();
    // Absolute, and with more steps up than there are directories.
    let relative = format!("{}{}", "../".repeat(12), canary.path().trim_start_matches('/'));
    fs::create_dir(shared.join("one")).expect("ours");
    symlink(canary.path(), shared.join("one-link")).expect("ours");
    fs::create_dir(shared.join("two")).expect("ours");
    symlink(relative, shared.join("two-link")).expect("ours");
    let mut container = Container::new(bundle);
    let base = container.bundle.config["mounts"].clone();
    let swappers = [
        Swapper::start(shared.join("one"), shared.join("one-link")),
        Swapper::start(shared.join("two"), shared.join("two-link")),
    ];
    let (mut started, mut inside) = (0, 0);
    for round in 0..races() {
        let mut mounts = base.as_array().expect("a list").clone();
        let mut mount = |destination: String, kind: &str, source: &str, options: &[&str]| {
            mounts.push(json!({
                "destination": destination, "type": kind, "source": source, "options": options,
            }));
        };
        mount("/share".to_owned(), "bind", &share_path, &["bind"]);
        mount("/share/one/dir".to_owned(), "tmpfs", "tmpfs", &["mode=700"]);
        mount("/share/two/dir".to_owned(), "tmpfs", "tmpfs", &["mode=700"]);
        // The missing ones are made on the way.
        mount(format!("/share/one/made-{round}/a/b"), "tmpfs", "tmpfs", &[]);
        mount(format!("/share/two/file-{round}"), "bind", "/etc/hostname", &["bind"]);
        container.bundle.config["mounts"] = Value::from(mounts);
        container.write_config();
        let output = container.run();
        if output.code() == Some(0) {
            started += 1;
            let escaped = output.stdout.contains(&format!(" {}", canary.path()));
            // Inside the root, the link's name is a name of the root.
            inside += u64::from(escaped);
        }
        container.delete_force();
    }
    let swaps: Vec<u64> = swappers.into_iter().map(Swapper::swaps).collect();
    note(&format!("{started} of {} started, {inside} through the link, {swaps:?} swaps", races()));
    assert!(swaps.iter().all(|count| *count > races() as u64), "no race: {swaps:?}");
    assert!(started > 0, "none started: the race was not about a mount");
    let changes = canary.changes();
    weak_peer!("runc 1.1.5", "CVE-2024-45310", !changes.is_empty(), "outside: {changes:?}");
}

// The image's /dev, /proc, /sys are links: CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.

fn links_for_dev_proc_and_sys_do_not_escape() {
    let canary = Canary::new();
    let mut escaped = Vec::new();
    let relative = format!("{}{}", "../".repeat(12), canary.path().trim_start_matches('/'));
    for name in ["/dev", "/proc", "/sys"] {
        for target in
            [relative.as_str(), canary.path(), "/nowhere", "nowhere", "/elsewhere", "/", "."]
        {
            let bundle = Bundle::probe(&["/proc/self", "/dev/null"]).directory("/elsewhere");
            fs::remove_dir(bundle.path(name)).expect("it is empty");
            symlink(target, bundle.path(name)).expect("ours");
            let container = Container::new(bundle);
            let output = container.run();
            escaped
                .extend(canary.changes().first().map(|one| format!("{name} -> {target}: {one}")));
            if output.code() == Some(0) && escaped.is_empty() {
                let report = output.json();
                let at_root = report["mounts"].as_array().into_iter().flatten();
                let covered = at_root.filter(|mount| mount["at"] == "/").count();
                assert_eq!(covered, 1, "{name} -> {target} covers the root: {}", report["mounts"]);
                assert_eq!(report["paths"]["/dev/null"]["device"], "1:3", "{name} -> {target}");
            }
            container.delete_force();
            container.assert_gone();
        }
    }
    // The device links of /dev are made through its name.
    weak_peer!("runc 1.1.5", "a linked /dev", !escaped.is_empty(), "{escaped:?}");
}

// The source of a mask is replaced: CVE-2025-31133.

fn a_replaced_mask_source_masks_nothing_less() {
    let mut worked = Vec::new();
    for kind in ["link", "file", "zero", "missing", "directory", "fifo"] {
        if kind == "fifo" && runtime().is_at_most("runc 1.1.5") {
            continue; // it opens the pipe and waits for ever
        }
        for volume in [true, false] {
            let script = "head -c 100 /etc/hidden; echo X > /etc/hidden; head -c 100 /etc/hidden";
            let mut bundle = Bundle::shell(script)
                .file("/etc/hidden", "hidden", 0o644)
                .file("/hostile", "from a hostile source", 0o666)
                .set("/linux/maskedPaths", json!(["/etc/hidden", "/proc/keys", "/proc/kcore"]));
            for name in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                bundle = bundle.without_mount(name);
            }
            let shared = share(&bundle);
            let null = match volume {
                true => shared.join("null"),
                false => bundle.path("/dev/null"),
            };
            if volume {
                bundle = bundle.mount("/dev", "bind", text(&shared), &["bind"]);
            }
            match kind {
                "link" => symlink("/hostile", &null).expect("ours"),
                "file" => fs::write(&null, "from a hostile source").expect("ours"),
                "directory" => fs::create_dir(&null).expect("ours"),
                "fifo" => mkfifo(&null, Mode::from_bits_truncate(0o666)).expect("ours"),
                "zero" => {
                    let mode = Mode::from_bits_truncate(0o666);
                    mknod(&null, SFlag::S_IFCHR, mode, makedev(1, 5)).expect("the suite is root");
                }
                _ => {}
            }
            let container = Container::new(bundle);
            let output = container.run();
            let hidden = container.bundle.path("/etc/hidden");
            assert_eq!(fs::read_to_string(hidden).expect("there"), "hidden", "{kind}");
            if output.code() == Some(0) && !output.stdout.is_empty() {
                worked.push(format!("{kind}, volume {volume}: {:.20}", output.stdout));
            }
            container.delete_force();
            container.assert_gone();
        }
    }
    weak_peer!("runc 1.1.5", "CVE-2025-31133", !worked.is_empty(), "a masked file had {worked:?}");
}

// The console and the null device: CVE-2025-52565, CVE-2026-88264, CVE-2026-88265.

fn links_for_the_console_do_not_escape() {
    let canary = Canary::new();
    let host = |name: &str| format!("{}{}/{name}", "../".repeat(12), canary.path());
    for target in [host("console"), format!("{}/console", canary.path()), "/etc/target".to_owned()]
    {
        for name in ["console", "null", "ptmx", "tty", "fd", "pts", "shm"] {
            let mut bundle = Bundle::shell("tty; cat /dev/console </dev/null >/dev/null; true")
                .file("/etc/target", "untouched", 0o644)
                .set("/process/terminal", true);
            let shared = share(&bundle);
            symlink(&target, shared.join(name)).expect("ours");
            let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
            for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/dev") {
                *mount = json!({ "destination": "/dev", "type": "bind", "source": text(&shared), "options": ["bind"] });
            }
            let container = Container::new(bundle);
            let socket = ConsoleSocket::bind(container.bundle.dir());
            container.with_bundle(&["create", "--console-socket", socket.path()]).run();
            container.delete_force();
            container.assert_gone();
            canary.assert_untouched();
        }
    }
    // One name of the terminals' own directory is swapped while the console is attached.
    let mut bundle = Bundle::sleeper().set("/process/terminal", true);
    let shared = share(&bundle);
    fs::write(shared.join("console"), "").expect("ours");
    symlink(host("console"), shared.join("console-link")).expect("ours");
    let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
    for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/dev") {
        *mount = json!({ "destination": "/dev", "type": "bind", "source": text(&shared), "options": ["bind"] });
    }
    let container = Container::new(bundle);
    let swapper = Swapper::start(shared.join("console"), shared.join("console-link"));
    for _ in 0..races() / 4 {
        let socket = ConsoleSocket::bind(container.bundle.dir());
        container.with_bundle(&["create", "--console-socket", socket.path()]).run();
        container.delete_force();
        fs::remove_file(socket.path()).expect("ours");
    }
    assert!(swapper.swaps() > 0);
    canary.assert_untouched();
}

// Writes to procfs are redirected: CVE-2019-16884, CVE-2025-52881, CVE-2025-62161.

fn writes_to_procfs_are_not_redirected() {
    let key = "net.ipv4.ip_unprivileged_port_start";
    let file = "sys/net/ipv4/ip_unprivileged_port_start";
    let mut redirected = Vec::new();
    for destination in [
        "/proc",
        "/proc/self",
        "/proc/self/attr",
        "/proc/thread-self/attr",
        "/proc/sys",
        "/proc/sys/net",
        "/proc/sys/net/ipv4",
        "/proc/1",
        "/alias",
        "/alias/net/ipv4",
        "//proc/./sys",
        "/tmp/../proc/sys",
    ] {
        for kind in ["tmpfs", "bind"] {
            // What the process sees of the real one, wherever that is then.
            let bundle = Bundle::shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
                .link("/alias", "proc/sys")
                .set("/linux/sysctl", json!({ key: "7" }))
                .set("/process/oomScoreAdj", 501)
                .without_mount("/sys/fs/cgroup");
            let fake = fake_procfs(&bundle);
            let before = tree(&fake);
            let bundle = match kind {
                "tmpfs" => bundle.mount(destination, "tmpfs", "tmpfs", &["mode=755"]),
                _ => bundle.mount(destination, "bind", text(&fake), &["bind"]),
            };
            let container = Container::new(bundle);
            let output = container.run();
            if tree(&fake) != before {
                redirected.push(format!("{kind} on {destination}: {}", output.summary()));
            }
            container.delete_force();
            container.assert_gone();
        }
    }
    assert!(redirected.is_empty(), "a write went into a volume: {redirected:#?}");
    // Undisturbed, both arrive.
    let bundle = Bundle::shell(&format!("cat /proc/{file} /proc/self/oom_score_adj"))
        .set("/linux/sysctl", json!({ key: "7" }))
        .set("/process/oomScoreAdj", 501);
    Container::new(bundle).run().ok().says("7\n501");
    // The control: one write to a fake is seen.
    let bundle = Bundle::shell("echo 501 > /mnt/self/oom_score_adj");
    let fake = fake_procfs(&bundle);
    let before = tree(&fake);
    let container = Container::new(bundle.mount("/mnt", "bind", text(&fake), &["bind"]));
    container.run().ok();
    assert_ne!(tree(&fake), before);
}

/// A volume that has the files which a runtime writes, wherever in procfs it is mounted.
fn fake_procfs(bundle: &Bundle) -> PathBuf {
    let fake = share(bundle);
    let add = |path: &str| {
        let path = fake.join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
        fs::write(path, "1024").expect("ours");
    };
    for below in ["", "sys/", "sys/net/", "sys/net/ipv4/"] {
        add("sys/net/ipv4/ip_unprivileged_port_start".trim_start_matches(below));
    }
    for process in ["", "self/", "thread-self/", "1/"] {
        for name in ["oom_score_adj", "attr/current", "attr/exec", "attr/apparmor/exec"] {
            add(&format!("{process}{name}"));
        }
    }
    for name in ["current", "exec", "apparmor/exec"] {
        add(name);
    }
    fake
}
