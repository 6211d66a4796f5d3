//! Where Debian's packages put the programs that the tests start.

use std::path::Path;

use crate::{NotRun, not_run, suite};

/// Program and the package that has it.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("conmon", "conmon"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("criu", "criu"),
    ("crun", "crun"),
    ("ctr", "containerd"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("docker-init", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("dockerd", "docker.io"),
    ("dpkg-deb", "dpkg"),
    ("env", "coreutils"),
    ("firewall-cmd", "firewalld"),
    ("firewalld", "firewalld"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("journalctl", "systemd"),
    ("mmdebstrap", "mmdebstrap"),
    ("netavark", "netavark"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("podman", "podman"),
    ("prlimit", "util-linux"),
    ("python3", "python3-venv"),
    ("runc", "runc"),
    ("setsid", "util-linux"),
    ("skopeo", "skopeo"),
    ("strace", "strace"),
    ("stat", "coreutils"),
    ("stty", "coreutils"),
    ("systemctl", "systemd"),
    ("tar", "tar"),
    ("ufw", "ufw"),
    ("umoci", "umoci"),
    ("unshare", "util-linux"),
];

/// The program of a Debian package, whatever else PATH has under its name. A test for which it
/// is missing is not run; anything else fails. Both name the package.
#[track_caller]
pub fn stock(name: &str) -> String {
    let (_, package) = PACKAGES
        .iter()
        .find(|(program, _)| *program == name)
        .unwrap_or_else(|| panic!("no package is known to have {name}"));
    let missing = || {
        let reason = format!("{name} is missing: install the Debian package {package}");
        match suite::runs() {
            true => not_run(NotRun::Missing(reason)),
            false => panic!("{reason}"),
        }
    };
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/lib/podman"]
        .iter()
        .map(|directory| format!("{directory}/{name}"))
        .find(|path| Path::new(path).is_file())
        .unwrap_or_else(missing)
}
