//! The AppArmor profile of containers that ask for none: when there is one, and what it says.

use std::fmt::Write as _;

/// Its name.
pub const PROFILE: &str = "hull-default";

/// What the host has of AppArmor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// The kernel enforces no profiles.
    None,
    /// It does, but there is no program to load one with: dockerd, too, confines nothing then.
    NoParser,
    /// Profiles can be loaded.
    Full,
}

/// `enabled`: what the kernel's module says of itself (`parameters/enabled`). `mounted`: whether
/// its directory in securityfs is there.
#[must_use]
pub fn support(enabled: &str, mounted: bool, parser: bool) -> Support {
    match (enabled.starts_with('Y') && mounted, parser) {
        (false, _) => Support::None,
        (true, false) => Support::NoParser,
        (true, true) => Support::Full,
    }
}

/// Whether the kernel's list of profiles has ours. Its lines are `NAME (MODE)`.
#[must_use]
pub fn is_loaded(profiles: &str) -> bool {
    profiles.lines().any(|line| line.split_once(" (").is_some_and(|(name, _)| name == PROFILE))
}

/// What the profile depends on.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The manager's own profile, as its `attr/current` says it.
    pub manager: &'a str,
    /// The host has `tunables/global`.
    pub tunables: bool,
    /// The host has `abstractions/base`.
    pub base: bool,
}

/// Files that the container may not use so, whatever its capabilities are. What is not named
/// below `/proc` is: processes' own directories, `sys/kernel/shm*`, and what is only read.
/// The patterns are the long way to say "not", which the language does not have.
const DENIED: [&str; 15] = [
    "@{PROC}/* w",
    "@{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w",
    "@{PROC}/sys/[^k]** w",
    "@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w",
    "@{PROC}/sysrq-trigger rwklx",
    "@{PROC}/kcore rwklx",
    "/sys/[^f]*/** wklx",
    "/sys/f[^s]*/** wklx",
    "/sys/fs/[^c]*/** wklx",
    "/sys/fs/c[^g]*/** wklx",
    "/sys/fs/cg[^r]*/** wklx",
    "/sys/firmware/** rwklx",
    "/sys/devices/virtual/powercap/** rwklx",
    "/sys/kernel/security/** rwklx",
    "mount",
];

/// The profile in the parser's language: what docker-default allows.
#[must_use]
pub fn text(site: &Site<'_>) -> String {
    // `hulld (enforce)`, `unconfined`.
    let manager = site.manager.split(" (").next().unwrap_or_default().trim();
    let manager = if manager.is_empty() { "unconfined" } else { manager };
    let mut text = match site.tunables {
        true => "#include <tunables/global>\n".to_owned(),
        false => "@{PROC}=/proc/\n".to_owned(),
    };
    // Mounts of the host's that the container sees are not below its root.
    let _ = writeln!(text, "profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{");
    if site.base {
        text.push_str("  #include <abstractions/base>\n");
    }
    for rule in ["network", "capability", "file", "umount"] {
        let _ = writeln!(text, "  {rule},");
    }
    // The manager and the shim stop it; its processes signal and trace each other.
    for peer in ["unconfined", manager] {
        let _ = writeln!(text, "  signal (receive) peer=\"{peer}\",");
    }
    let _ = writeln!(text, "  signal (send,receive) peer={PROFILE},");
    let _ = writeln!(text, "  ptrace (trace,read,tracedby,readby) peer={PROFILE},");
    for rule in DENIED {
        let _ = writeln!(text, "  deny {rule},");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_needs_the_kernel_and_the_parser() {
        for (enabled, mounted, parser, expected) in [
            ("Y\n", true, true, Support::Full),
            ("Y\n", true, false, Support::NoParser),
            ("Y\n", false, true, Support::None),
            ("N\n", true, true, Support::None),
            ("", false, false, Support::None),
        ] {
            assert_eq!(support(enabled, mounted, parser), expected);
        }
    }

    #[test]
    fn a_loaded_profile_is_known_by_its_whole_name() {
        assert!(is_loaded("docker-default (enforce)\nhull-default (enforce)\n"));
        for list in ["", "hull-default2 (enforce)\n", "/x/hull-default (enforce)\n"] {
            assert!(!is_loaded(list), "{list}");
        }
    }

    #[test]
    fn the_profile_fits_its_host() {
        let site = Site { manager: "unconfined\n", tunables: false, base: false };
        let plain = text(&site);
        assert!(plain.starts_with("@{PROC}=/proc/\nprofile hull-default flags="), "{plain}");
        assert!(!plain.contains("#include") && plain.ends_with("  deny mount,\n}\n"), "{plain}");
        let site = Site { manager: "hulld (enforce)\n", tunables: true, base: true };
        let full = text(&site);
        assert!(full.starts_with("#include <tunables/global>\n"));
        assert!(full.contains("  #include <abstractions/base>\n"));
        assert!(full.contains("  signal (receive) peer=\"hulld\",\n"));
        assert!(full.contains("  deny /sys/firmware/** rwklx,\n"));
    }
}
