//! The classes of attack that touch a runtime, one test each, mounted for real.
//!
//! What has to hold is the same everywhere: a request is refused or it is harmless. What
//! the host keeps as a canary is looked at afterwards. Where the reference that is driven
//! is known to be weak, the attack has to work on it (`weak_peer!`).
//!
//! `HULL_RACES` is how often a race is tried (default 200).

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hull_integration::{
    Bundle, ConsoleSocket, Container, Invocation, note, peer_lacks, require, runtime, scratch_dir,
    tests, wait_until, weak_peer,
};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

tests![
    a_working_directory_on_the_host_is_out_of_reach,
    no_descriptor_of_the_caller_gets_inside,
    the_programs_own_file_is_not_written_by_an_entrypoint,
    entering_processes_do_not_give_their_program_away,
    a_race_on_a_mount_target_does_not_escape,
    links_for_dev_proc_and_sys_do_not_escape,
    a_replaced_mask_source_masks_nothing_less,
    links_for_the_console_do_not_escape,
    writes_to_procfs_are_not_redirected,
    capability_sets_are_as_requested,
    odd_users_are_refused_or_numbers,
    a_hostile_passwd_does_not_delay,
    devices_are_denied_by_default,
    side_channels_are_masked_by_the_default_configuration,
];

const EPERM: i64 = 1;

/// How many rounds a race gets.
fn races() -> usize {
    env::var("HULL_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// A directory of the host that nothing may touch, with a secret in it.
struct Canary {
    directory: PathBuf,
    before: BTreeMap<PathBuf, (u64, u64, u32, i64, Vec<u8>)>,
}

const SECRET: &str = "a secret of the host";

impl Canary {
    fn new() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = scratch_dir().join(format!("canary-{number}"));
        for name in ["", "dir", "pts", "net/ipv4"] {
            fs::create_dir_all(directory.join(name)).expect("the scratch directory is writable");
        }
        for name in ["secret", "null", "console", "dir/file"] {
            fs::write(directory.join(name), SECRET).expect("the scratch directory is writable");
        }
        let before = tree(&directory);
        Self { directory, before }
    }

    fn path(&self) -> &str {
        self.directory.to_str().expect("the scratch directory's name is text")
    }

    /// What is not as it was: files, or mounts on them.
    fn changes(&self) -> Vec<String> {
        let after = tree(&self.directory);
        let mut found: Vec<String> = after
            .iter()
            .filter(|(path, state)| self.before.get(*path) != Some(state))
            .map(|(path, state)| format!("{} is {state:?}", path.display()))
            .collect();
        let missing = self.before.keys().filter(|path| !after.contains_key(*path));
        found.extend(missing.map(|path| format!("{} is gone", path.display())));
        let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        found.extend(table.lines().filter(|line| line.contains(self.path())).map(str::to_owned));
        found
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(self.changes(), Vec::<String>::new(), "the host was changed");
    }
}

/// Everything below a directory: inode, device, mode, change time, content.
fn tree(directory: &Path) -> BTreeMap<PathBuf, (u64, u64, u32, i64, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is listed");
        let content = match metadata.is_file() {
            true => fs::read(&path).expect("it is readable"),
            false => Vec::new(),
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("it is readable").flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        }
        let changed = metadata.ctime_nsec();
        out.insert(path, (metadata.ino(), metadata.dev(), metadata.mode(), changed, content));
    }
    out
}

/// A directory beside the root, which several containers could share.
fn share(bundle: &Bundle) -> PathBuf {
    let path = bundle.dir().join("share");
    fs::create_dir_all(&path).expect("the bundle is writable");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the scratch directory's name is text")
}

// Leaked descriptors: CVE-2024-21626, CVE-2015-3627.

/// `/proc/self/fd/N` for a descriptor that the runtime has open on the host, and for one
/// that its caller forgot to close.
fn a_working_directory_on_the_host_is_out_of_reach() {
    let canary = Canary::new();
    let up = "../".repeat(12);
    let script = format!("cat {up}{0}/secret; cat .{0}/secret; pwd -P", canary.path());
    // The caller has the host's root open as descriptor 9.
    let mut container = Container::new(Bundle::shell(&script)).prelude("exec 9</");
    let victim = Container::new(Bundle::sleeper()).prelude("exec 9</");
    victim.run_detached().ok();
    let mut entered = 0;
    for number in 3..=64 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")] {
            if number > 16 && cwd.ends_with("..") {
                continue;
            }
            container.bundle.config["process"]["cwd"] = json!(cwd);
            container.write_config();
            let output = container.run();
            assert!(!output.stdout.contains(SECRET), "run in {cwd}: {}", output.transcript());
            entered += usize::from(output.code() == Some(0));
            container.delete_force();
            if number > 16 {
                continue;
            }
            let output = victim.exec_with(&["--cwd", &cwd], &["sh", "-c", &script]);
            assert!(!output.stdout.contains(SECRET), "exec in {cwd}: {}", output.transcript());
        }
    }
    note(&format!("{entered} directories were entered"));
    // A link of the root names them as well as the configuration does.
    let bundle =
        Bundle::shell(&script).link("/work", "/proc/self/fd/9").set("/process/cwd", "/work");
    let output = Container::new(bundle).prelude("exec 9</").run();
    assert!(!output.stdout.contains(SECRET), "through a link: {}", output.transcript());
}

fn no_descriptor_of_the_caller_gets_inside() {
    let only_standard = |report: &Value| {
        let numbers: Vec<&String> =
            report["fds"].as_object().expect("/proc is mounted").keys().collect();
        assert_eq!(numbers, ["0", "1", "2"], "{}", report["fds"]);
    };
    let container = Container::new(Bundle::probe(&[])).prelude("exec 5</ 9</etc");
    only_standard(&container.report());
    let container = Container::new(Bundle::sleeper()).prelude("exec 5</ 9</etc");
    container.run_detached().ok();
    only_standard(&container.exec_report(&[]));
}

// The runtime's own program and the process that enters: CVE-2019-5736, CVE-2016-9962.

/// A copy of the driven runtime, which may be lost.
fn copy_of_the_runtime() -> PathBuf {
    peer_lacks!("crun", "it is driven through a shell here");
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let directory = scratch_dir().join(format!("copy-{}", COUNTER.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&directory).expect("the scratch directory is writable");
    let program = &runtime().program;
    let copy = directory.join(program.file_name().expect("a program has a name"));
    fs::copy(program, &copy).expect("the runtime is readable");
    copy
}

fn with_copy(copy: &Path, container: &Container, words: &[&str]) -> Invocation {
    Invocation::new(copy).arg("--root").arg(container.root()).args(words)
}

#[track_caller]
fn assert_same(copy: &Path) {
    let same = fs::read(copy).expect("it is there") == fs::read(&runtime().program).expect("there");
    assert!(same, "the runtime's own program was overwritten");
}

/// The entrypoint is the program that starts it, or a script that names it.
fn the_programs_own_file_is_not_written_by_an_entrypoint() {
    let copy = copy_of_the_runtime();
    let script = "#!/proc/self/exe\n";
    for args in [["/proc/self/exe", "--version"], ["/entry", "--version"], ["/link", "--version"]] {
        let bundle = Bundle::new().args(&args).file("/entry", script, 0o755);
        let bundle = bundle.link("/link", "/proc/self/exe");
        let container = Container::new(bundle);
        let dir = text(container.bundle.dir()).to_owned();
        with_copy(&copy, &container, &["run", "--bundle", &dir, &container.id]).run();
        assert_same(&copy);
        container.delete_force();
    }
    let bundle = Bundle::sleeper().file("/entry", script, 0o755);
    let container = Container::new(bundle);
    container.run_detached().ok();
    for program in ["/proc/self/exe", "/entry"] {
        with_copy(&copy, &container, &["exec", &container.id, program, "--version"]).run();
        assert_same(&copy);
    }
}

/// A process inside waits for those that enter, opens their program and writes to it once
/// they have ended, and tries their memory and descriptors.
fn entering_processes_do_not_give_their_program_away() {
    let copy = copy_of_the_runtime();
    let container = Container::new(Bundle::new().args(&["/probe", "scan", "6"]));
    let dir = text(container.bundle.dir()).to_owned();
    let scanner = with_copy(&copy, &container, &["run", "--bundle", &dir, &container.id]).start();
    wait_until("it runs", Duration::from_secs(5), || {
        let output = container.command("state", &[]);
        output.code() == Some(0) && output.json()["status"] == "running"
    });
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(5) {
        for program in [&["true"][..], &["/proc/self/exe", "--version"]] {
            with_copy(&copy, &container, &["exec", &container.id]).args(program).run();
            rounds += 1;
        }
    }
    let report = scanner.wait().ok().json();
    assert_same(&copy);
    assert!(report["met"].as_u64().is_some_and(|met| met > 0), "nobody was met: {report}");
    assert_eq!(report["written"], json!([]), "{rounds} rounds: {report}");
    // What it met of memory and descriptors is not judged: after its exec an entering process
    // is the container's own, and the scanner cannot tell the two apart.
}

// A race on a mount's target: CVE-2019-19921, CVE-2021-30465, CVE-2024-45310.

/// Swaps two names until it is dropped.
struct Swapper {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<u64>>,
}

impl Swapper {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut swaps = 0;
            while !seen.load(Ordering::Relaxed) {
                let swap = RenameFlags::RENAME_EXCHANGE;
                swaps += u64::from(renameat2(AT_FDCWD, &one, AT_FDCWD, &other, swap).is_ok());
            }
            swaps
        });
        Self { stop, thread: Some(thread) }
    }

    fn swaps(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it was started").join().expect("it does not panic")
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

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
            let output = container.with_bundle(&["run"]).limit(Duration::from_secs(5)).run();
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
                .without_mount("/sys/fs/cgroup");
            let fake = share(&bundle);
            for base in ["", "sys", "net", "ipv4"] {
                let path = match base {
                    "" => fake.join(file),
                    "sys" => fake.join(file.trim_start_matches("sys/")),
                    "net" => fake.join(file.trim_start_matches("sys/net/")),
                    _ => fake.join(file.trim_start_matches("sys/net/ipv4/")),
                };
                fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
                fs::write(path, "1024").expect("ours");
            }
            fs::write(fake.join("current"), "").expect("ours");
            fs::write(fake.join("exec"), "").expect("ours");
            let before = tree(&fake);
            let bundle = match kind {
                "tmpfs" => bundle.mount(destination, "tmpfs", "tmpfs", &["mode=755"]),
                _ => bundle.mount(destination, "bind", text(&fake), &["bind"]),
            };
            let container = Container::new(bundle);
            let output = container.run();
            let content = |tree: BTreeMap<PathBuf, (u64, u64, u32, i64, Vec<u8>)>| -> Vec<Vec<u8>> {
                tree.into_values().map(|state| state.4).filter(|bytes| !bytes.is_empty()).collect()
            };
            if content(tree(&fake)) != content(before) {
                redirected.push(format!("{kind} on {destination}: {}", output.summary()));
            }
            container.delete_force();
            container.assert_gone();
        }
    }
    assert!(redirected.is_empty(), "a write went into a volume: {redirected:#?}");
    // Undisturbed, it arrives.
    let bundle =
        Bundle::shell(&format!("cat /proc/{file}")).set("/linux/sysctl", json!({ key: "7" }));
    Container::new(bundle).run().ok().says("7");
}

// Capabilities: CVE-2016-8867, CVE-2022-29162, CVE-2022-24769, CVE-2025-27612.

/// Bits of CAP_AUDIT_WRITE, CAP_KILL and CAP_NET_BIND_SERVICE.
const DEFAULT_SET: u64 = 1 << 29 | 1 << 5 | 1 << 10;
const CAP_SYS_PTRACE: u64 = 1 << 19;

fn capability_sets_are_as_requested() {
    let sets = |report: &Value| -> Vec<u64> {
        ["inheritable", "permitted", "effective", "bounding", "ambient"]
            .into_iter()
            .map(|name| {
                let text = report["capabilities"][name].as_str().expect("/proc is mounted");
                u64::from_str_radix(text, 16).expect("a mask is hexadecimal")
            })
            .collect()
    };
    let user = json!({ "uid": 1000, "gid": 1000 });
    let all = DEFAULT_SET;
    let run = |bundle: Bundle| sets(&Container::new(bundle).report());
    assert_eq!(run(Bundle::probe(&[])), [0, all, all, all, 0], "root");
    assert_eq!(
        run(Bundle::probe(&[]).set("/process/user", user.clone())),
        [0, 0, 0, all, 0],
        "a user"
    );
    assert_eq!(run(Bundle::probe(&[]).capabilities(&[])), [0; 5], "none");
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let exec = |options: &[&str]| sets(&container.exec_report(options));
    assert_eq!(exec(&[]), [0, all, all, all, 0], "exec");
    assert_eq!(exec(&["--user", "1000:1000"]), [0, 0, 0, all, 0], "exec as a user");
    let more = all | CAP_SYS_PTRACE;
    assert_eq!(exec(&["--cap", "CAP_SYS_PTRACE"]), [0, more, more, more, 0], "exec --cap");
    let as_user = exec(&["--cap", "CAP_SYS_PTRACE", "--user", "1000:1000"]);
    assert_eq!((as_user[0], as_user[4]), (0, 0), "exec --cap as a user: {as_user:x?}");
    assert_eq!(as_user[3], more);
}

// Users: CVE-2016-3697, CVE-2024-40635, CVE-2026-30892.

fn odd_users_are_refused_or_numbers() {
    peer_lacks!("crun", "it reads a prefix as a number");
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let mut wrong = Vec::new();
    for user in [
        "-1",
        "-1:0",
        "0:-1",
        "4294967295",
        "4294967296",
        "4294967297",
        "8589934592",
        "18446744073709551616",
        "99999999999999999999",
        "0x0",
        "1e3",
        "root",
        "1000:root",
        "1:",
        ":1",
        "1:2:3",
        " 0",
        "0 ",
        "0\n",
        "00x",
        "1000:1000:",
        "1000,0",
        "\u{661}",
        "../0",
        "1000:4294967296",
    ] {
        let output = container.exec_with(&["--user", user], &["/probe", "report"]);
        if output.code() != Some(0) {
            continue;
        }
        let report = output.json();
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let (uid, gid): (Option<u64>, Option<u64>) = (uid.parse().ok(), gid.parse().ok());
        if (report["uid"][0].as_u64(), report["gid"][0].as_u64()) != (uid, gid) {
            wrong.push(format!("{user:?} became {}:{}", report["uid"], report["gid"]));
        }
    }
    for uid in [-1_i64, 4_294_967_295, 4_294_967_296, 4_294_967_297] {
        for field in ["uid", "gid"] {
            let bundle = Bundle::probe(&[]).set(&format!("/process/user/{field}"), uid);
            let container = Container::new(bundle);
            let output = container.run();
            if output.code() == Some(0) {
                wrong.push(format!("{field} {uid} was taken"));
            }
            container.delete_force();
        }
    }
    weak_peer!("runc 1.1.5", "numbers cut to 32 bits", !wrong.is_empty(), "{wrong:?}");
}

// Hostile passwd and group files: CVE-2024-9676, CVE-2025-4437.

fn a_hostile_passwd_does_not_delay() {
    let mut slow = Vec::new();
    for kind in ["fifo", "sparse", "zero", "link", "loop", "directory", "lines", "line"] {
        let bundle = Bundle::shell("echo \"$HOME\"")
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        for name in ["/etc/passwd", "/etc/group"] {
            let path = bundle.path(name);
            fs::remove_file(&path).expect("it is there");
            match kind {
                "fifo" => mkfifo(&path, Mode::from_bits_truncate(0o666)).expect("ours"),
                "sparse" => {
                    let file = File::create(&path).expect("ours");
                    file.set_len(1 << 40)
                        .or_else(|_| file.set_len(4 << 30))
                        .expect("holes are free");
                }
                "zero" => {
                    let mode = Mode::from_bits_truncate(0o666);
                    mknod(&path, SFlag::S_IFCHR, mode, makedev(1, 5)).expect("the suite is root");
                }
                "link" => symlink("/dev/zero", &path).expect("ours"),
                "loop" => symlink(name, &path).expect("ours"),
                "directory" => fs::create_dir(&path).expect("ours"),
                "lines" => fs::write(&path, "x:x:1:1:::\n".repeat(500_000)).expect("ours"),
                _ => fs::write(&path, "x".repeat(8 << 20)).expect("ours"),
            }
        }
        let container = Container::new(bundle);
        let limit = Duration::from_secs(10);
        let began = Instant::now();
        let mut create = container.with_bundle(&["create"]).limit(limit).start();
        while !create.ended() && began.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        let rss = peak(create.pid());
        note(&format!("{kind}: create took {took:?}, {rss:?}"));
        if took > Duration::from_secs(2) {
            slow.push(format!("{kind}: {took:?}"));
        }
        drop(create);
        container.delete_force();
    }
    weak_peer!("runc 1.1.5", "CVE-2024-9676", !slow.is_empty(), "create was held up: {slow:?}");
}

/// The most memory a process has had, while it is there.
fn peak(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find(|line| line.starts_with("VmHWM")).map(str::to_owned)
}

// Devices: GHSA-g54h-m393-cpwq, CVE-2023-6476.

fn devices_are_denied_by_default() {
    require!(hull_integration::cgroup::hierarchy("devices").is_some(), "no device cgroup");
    // Not 10:200: like runc, the runtime lets containers have tun devices.
    let nodes = [
        ("b", 8, 0),
        ("b", 7, 0),
        ("b", 252, 0),
        ("b", 253, 0),
        ("b", 254, 0),
        ("b", 259, 0),
        ("c", 1, 1),
        ("c", 1, 2),
        ("c", 1, 4),
        ("c", 1, 11),
        ("c", 4, 0),
        ("c", 10, 229),
        ("c", 10, 232),
        ("c", 10, 237),
        ("c", 29, 0),
        ("c", 108, 0),
        ("c", 226, 0),
        ("c", 13, 63),
        ("b", 0, 0),
        ("c", 511, 7),
    ];
    let container = Container::new(Bundle::sleeper().capabilities(&["CAP_MKNOD"]));
    container.run_detached().ok();
    for (kind, major, minor) in nodes {
        let (path, major, minor) =
            (format!("/tmp/{kind}-{major}-{minor}"), major.to_string(), minor.to_string());
        let made = container.exec(&["/probe", "mknod", &path, kind, &major, &minor]).ok().json();
        if made["mknod"] == 0 {
            assert_eq!(made["open"].as_i64(), Some(EPERM), "{kind} {major}:{minor}: {made}");
        } else {
            assert_eq!(made["mknod"].as_i64(), Some(EPERM), "{kind} {major}:{minor}: {made}");
        }
        let opened = container.exec(&["/probe", "open", &path, "rw"]).ok().json();
        assert_ne!(opened["open"], 0, "{kind} {major}:{minor}");
    }
    container.exec(&["/probe", "mknod", "/tmp/null", "c", "1", "3"]).ok();
    assert_eq!(container.exec(&["/probe", "open", "/tmp/null", "rw"]).ok().json()["open"], 0);
}

// Side channels: CVE-2018-10892, GHSA-7ww5-4wqc-m92c, GHSA-6fw5-f8r9-fgfm.

/// What `spec` writes, with this suite's root.
fn side_channels_are_masked_by_the_default_configuration() {
    let bundle = Bundle::new();
    let directory = bundle.dir().join("default");
    fs::create_dir(&directory).expect("ours");
    Invocation::runtime().arg("spec").cwd(&directory).run().ok();
    let written = fs::read(directory.join("config.json")).expect("spec writes it");
    let default: Value = serde_json::from_slice(&written).expect("spec writes JSON");
    let paths = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    ];
    let mut args = vec!["/probe", "report"];
    args.extend(paths);
    let mut bundle = bundle.args(&args);
    for pointer in
        ["/linux/maskedPaths", "/linux/readonlyPaths", "/mounts", "/process/capabilities"]
    {
        let value = default.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}: {default}"));
        bundle = bundle.set(pointer, value.clone());
    }
    let report = Container::new(bundle).report();
    let mut there = 0;
    for path in paths {
        let found = &report["paths"][path];
        if found["stat"] != 0 {
            continue;
        }
        there += 1;
        match found["kind"].as_str() {
            Some("directory") => assert_eq!(found["entries"], json!([]), "{path}"),
            _ => assert_eq!(
                (&found["device"], &found["text"]),
                (&json!("1:3"), &json!("")),
                "{path}: {found}"
            ),
        }
    }
    assert!(there > 0, "nothing to mask on this kernel: {report}");
}
