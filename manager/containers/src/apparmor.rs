//! Loading the AppArmor profile, as dockerd does: by the parser's program, when the manager
//! starts, and again before a container that needs it if somebody has unloaded it meanwhile.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hull_manager_core::{Error, Result};
use hull_manager_spec::apparmor::{self as plan, PROFILE, Site, Support};

const SECURITYFS: &str = "/sys/kernel/security/apparmor";

/// What the host has of AppArmor.
#[must_use]
pub fn support() -> Support {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let enabled = read("/sys/module/apparmor/parameters/enabled");
    plan::support(&enabled, Path::new(SECURITYFS).exists(), parser().is_some())
}

/// Beside `PATH`, which of a service may lack them.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

fn parser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join("apparmor_parser")).find(|path| path.is_file())
}

/// Loads the profile, if a container is to have it and the kernel has it no more.
pub(crate) fn ensure(profile: &str) -> Result<()> {
    if profile != PROFILE {
        return Ok(());
    }
    let loaded = fs::read_to_string(format!("{SECURITYFS}/profiles")).unwrap_or_default();
    if plan::is_loaded(&loaded) { Ok(()) } else { load() }
}

/// Loads the profile, in place of one of its name.
///
/// # Errors
/// What the parser says.
pub fn load() -> Result<()> {
    let exists = |name: &str| Path::new("/etc/apparmor.d").join(name).exists();
    let manager = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let text = plan::text(&Site {
        manager: &manager,
        tunables: exists("tunables/global"),
        base: exists("abstractions/base"),
    });
    let refused = |why: String| {
        Error::conflict(format!(
            "AppArmor enabled on system but the {PROFILE} profile could not be loaded: {why}"
        ))
    };
    let parser = parser().ok_or_else(|| refused("apparmor_parser is not installed".to_owned()))?;
    let said = run(&parser, &text).map_err(|error| refused(error.to_string()))?;
    if said.status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&said.stderr).trim().to_owned()))
}

/// Replaces without the parser's cache, from its standard input.
fn run(parser: &Path, text: &str) -> io::Result<std::process::Output> {
    let mut child = Command::new(parser)
        .args(["--skip-cache", "--replace"])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why on its standard error.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output()
}
