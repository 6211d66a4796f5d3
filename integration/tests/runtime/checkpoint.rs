//! checkpoint and restore.
//!
//! CRIU knows kernels up to its own release, so that on a newer kernel it fails before it
//! has looked at a container. A test that needs it to work then checks what the runtime
//! makes of such a failure instead: it says so, and the container runs on.

use std::{fs, path::Path, process::Command, sync::LazyLock};

use hull_integration::{Bundle, Container, Output, SOON, peer_lacks, require, tests, wait_until};

tests![
    a_container_goes_on_where_it_was,
    a_container_that_stays_runs_on,
    a_restored_container_has_its_mounts_and_takes_an_exec,
    a_foreground_restore_ends_as_the_container_does,
    a_created_container_is_not_checkpointed,
    without_criu_there_is_one_sentence,
    a_restore_without_images_leaves_nothing,
    forged_descriptors_are_refused,
];

/// Counts into a file, with no descriptor of the host open.
const COUNT: &str = "exec </dev/null >/dev/null 2>&1; i=0; \
                     while :; do i=$((i+1)); echo $i > /count; sleep 0.05; done";

fn criu_is_installed() -> bool {
    Command::new("criu").arg("--version").output().is_ok()
}

fn criu_works() -> bool {
    static WORKS: LazyLock<bool> = LazyLock::new(|| {
        let check = Command::new("criu").arg("check").output();
        check.is_ok_and(|output| output.status.success())
    });
    *WORKS
}

fn counting(script: &str) -> Container {
    peer_lacks!("crun", "Debian's is built without libcriu");
    let container = Container::new(Bundle::shell(script).set("/root/readonly", false));
    container.run_detached().ok();
    wait_until("the first count", SOON, || count(&container) > 0);
    container
}

fn count(container: &Container) -> u64 {
    let text = fs::read_to_string(container.bundle.path("count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn images(container: &Container) -> String {
    container.bundle.dir().join("images").display().to_string()
}

fn checkpoint(container: &Container, options: &[&str]) -> Output {
    let words = ["checkpoint", "--image-path", &images(container)];
    container.invoke(&words).args(options).arg(&container.id).run()
}

/// Whether the checkpoint was made. Where CRIU cannot, the container must be unharmed.
fn saved(container: &Container, options: &[&str]) -> bool {
    let output = checkpoint(container, options);
    if criu_works() {
        output.ok();
        return true;
    }
    output.fails_with(if criu_is_installed() { "criu failed" } else { "criu is not installed" });
    assert_eq!(container.status(), "running");
    let before = count(container);
    wait_until("the container to run on", SOON, || count(container) > before);
    false
}

fn restore(container: &Container, options: &[&str]) -> Output {
    let images = images(container);
    let mut words = vec!["restore", "--image-path", &images];
    words.extend(options);
    container.with_bundle(&words).run()
}

fn a_container_goes_on_where_it_was() {
    let container = counting(COUNT);
    if !saved(&container, &[]) {
        return;
    }
    container.assert_gone();
    let stopped_at = count(&container);
    let pid_file = container.bundle.dir().join("pid");
    let pid_file = pid_file.to_str().expect("UTF-8");
    restore(&container, &["--detach", "--pid-file", pid_file]).ok();
    assert_eq!(container.status(), "running");
    let pid = fs::read_to_string(pid_file).expect("the pid file is there");
    assert_eq!(pid, container.pid().to_string());
    wait_until("the count to go on", SOON, || count(&container) > stopped_at);
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    assert!(cgroup.contains(&container.cgroup_path()), "{cgroup}");
    container.delete_force().ok();
    container.assert_gone();
}

fn a_container_that_stays_runs_on() {
    let container = counting(COUNT);
    if saved(&container, &["--leave-running"]) {
        let before = count(&container);
        wait_until("the container to run on", SOON, || count(&container) > before);
    }
}

fn a_restored_container_has_its_mounts_and_takes_an_exec() {
    peer_lacks!("crun", "Debian's is built without libcriu");
    let bundle = Bundle::shell(COUNT)
        .set("/root/readonly", false)
        .link("var/run", "/run")
        .mount("/scratch", "tmpfs", "tmpfs", &["nosuid"])
        .mount("/var/run/hosts", "none", "/etc/hosts", &["bind", "ro"]);
    let container = Container::new(bundle);
    container.run_detached().ok();
    wait_until("the first count", SOON, || count(&container) > 0);
    container.exec(&["sh", "-c", "echo kept > /scratch/file"]).ok();
    let points = |container: &Container| {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid()));
        let table = table.expect("it lives");
        let mut points: Vec<String> =
            table.lines().filter_map(|l| l.split(' ').nth(4)).map(str::to_owned).collect();
        points.sort();
        points
    };
    let before = points(&container);
    if !saved(&container, &[]) {
        return;
    }
    restore(&container, &["--detach"]).ok();
    assert_eq!(points(&container), before);
    container.exec(&["cat", "/scratch/file"]).ok().says("kept");
    container.exec(&["sh", "-c", "echo x > /run/hosts"]).fails();
    let state = container.root().join(&container.id);
    assert!(!Path::new(&state).join("criu-root").exists(), "a mount point stayed");
}

fn a_foreground_restore_ends_as_the_container_does() {
    let container = counting(
        "exec </dev/null >/dev/null 2>&1; echo 1 > /count; trap 'exit 7' TERM; i=1; \
         while :; do i=$((i+1)); echo $i > /count; sleep 0.05; done",
    );
    if !saved(&container, &[]) {
        return;
    }
    let stopped_at = count(&container);
    let images = images(&container);
    let running = container.with_bundle(&["restore", "--image-path", &images]).start();
    wait_until("the count to go on", SOON, || count(&container) > stopped_at);
    container.kill("TERM").ok();
    running.wait().exits(7);
    container.assert_gone();
}

fn a_created_container_is_not_checkpointed() {
    peer_lacks!("crun", "Debian's is built without libcriu");
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    checkpoint(&container, &[]).fails_with("cannot be checkpointed in created state");
}

fn without_criu_there_is_one_sentence() {
    peer_lacks!("crun", "Debian's is built without libcriu");
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let images = images(&container);
    let nowhere = |words: &[&str]| {
        container.with_bundle(words).env("PATH", "/nowhere").run().fails_with("criu")
    };
    let words = ["checkpoint", "--image-path", &images, &container.id];
    container.invoke(&words).env("PATH", "/nowhere").run().fails_with("criu");
    assert_eq!(container.status(), "running");
    container.delete_force().ok();
    fs::create_dir_all(&images).expect("ours");
    fs::write(format!("{images}/descriptors.json"), "[]").expect("ours");
    nowhere(&["restore", "--detach", "--image-path", &images]);
    container.assert_gone();
}

fn a_restore_without_images_leaves_nothing() {
    peer_lacks!("crun", "Debian's is built without libcriu");
    require!(criu_is_installed(), "criu is not installed");
    let container = Container::new(Bundle::sleeper());
    restore(&container, &["--detach"]).fails();
    container.assert_gone();
    fs::create_dir_all(images(&container)).expect("ours");
    fs::write(format!("{}/descriptors.json", images(&container)), "[]").expect("ours");
    restore(&container, &["--detach"]).fails_with("criu failed");
    container.assert_gone();
}

/// The class "checkpoint as control input".
fn forged_descriptors_are_refused() {
    peer_lacks!("crun", "Debian's is built without libcriu");
    peer_lacks!("runc", "it hands any text that holds \"pipe:\" to criu");
    require!(criu_is_installed(), "criu is not installed");
    let container = Container::new(Bundle::sleeper());
    fs::create_dir_all(images(&container)).expect("ours");
    let file = format!("{}/descriptors.json", images(&container));
    for forged in [
        r#"["extRootNetNS pipe:[1]", "", ""]"#,
        r#"["pipe:[1]", "pipe:[2]", "pipe:[3]", "pipe:[4]"]"#,
        "{}",
        "[1, 2, 3]",
        &format!("[\"{}\"]", "x".repeat(100_000)),
    ] {
        fs::write(&file, forged).expect("ours");
        restore(&container, &["--detach"]).fails_with("descriptors.json");
        container.assert_gone();
    }
}
