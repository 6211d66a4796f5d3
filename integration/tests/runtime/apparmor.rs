//! AppArmor profiles. Needs a kernel that enforces them and the profile `hull-vm`, which
//! the virtual machine of `make test-vm` loads.

use std::fs;

use hull_integration::{Bundle, Container, require, tests};

tests![
    the_profile_is_applied_and_enforced,
    exec_has_the_profile_as_well,
    exec_takes_another_profile,
    a_profile_that_is_not_loaded_is_refused,
    exec_with_a_profile_that_is_not_loaded_is_refused,
];

const PROFILE: &str = "hull-vm";
const DENIED: &str = "/tmp/denied-by-apparmor";

fn need() {
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let loaded = loaded.lines().any(|line| line == "hull-vm (enforce)");
    require!(loaded, "no AppArmor profile {PROFILE} is loaded");
}

fn confined(bundle: Bundle) -> Bundle {
    bundle.set("/process/apparmorProfile", PROFILE)
}

fn the_profile_is_applied_and_enforced() {
    need();
    let script = format!("cat /proc/self/attr/current; echo x > /tmp/other; echo x > {DENIED}");
    let output = Container::new(confined(Bundle::shell(&script))).run();
    assert_ne!(output.code(), Some(0), "{}", output.summary());
    assert_eq!(output.stdout.trim(), "hull-vm (enforce)");
    assert!(output.stderr.contains("denied-by-apparmor: Permission denied"), "{}", output.stderr);
    assert!(!output.stderr.contains("other"), "{}", output.stderr);
    // The same without a profile: it is the profile that denies.
    let script = format!("cat /proc/self/attr/current; echo x > {DENIED}");
    let output = Container::new(Bundle::shell(&script)).run().ok();
    assert_eq!(output.stdout.trim(), "unconfined");
}

fn exec_has_the_profile_as_well() {
    need();
    let container = Container::new(confined(Bundle::sleeper()));
    container.run_detached().ok();
    let output = container.exec(&["cat", "/proc/self/attr/current"]).ok();
    assert_eq!(output.text(), "hull-vm (enforce)");
    container.exec(&["touch", DENIED]).fails();
}

fn exec_takes_another_profile() {
    need();
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let read = ["cat", "/proc/self/attr/current"];
    assert_eq!(container.exec(&read).ok().text(), "unconfined");
    let output = container.exec_with(&["--apparmor", PROFILE], &read).ok();
    assert_eq!(output.text(), "hull-vm (enforce)");
}

fn a_profile_that_is_not_loaded_is_refused() {
    need();
    let bundle = Bundle::new().set("/process/apparmorProfile", "hull-not-loaded");
    let container = Container::new(bundle);
    let output = container.run();
    output.fails_with("unable to apply apparmor profile");
    container.assert_gone();
}

fn exec_with_a_profile_that_is_not_loaded_is_refused() {
    need();
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let output = container.exec_with(&["--apparmor", "hull-not-loaded"], &["true"]);
    output.fails_with("unable to apply apparmor profile");
    assert_eq!(container.status(), "running");
}
