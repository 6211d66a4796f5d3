//! Capabilities: names to masks, and the five sets of a process.
//!
//! The sets are applied exactly as the configuration names them; nothing is inferred from
//! another set (CVE-2022-24769 and its kin came from inheritable sets that nobody asked
//! for). A name the kernel does not have, or a capability this process may not grant, is
//! dropped with a warning, as the specification demands.

use anyhow::{Context, Result};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

/// Every capability's name without `CAP_`, in order of its bytes, with its number.
const TABLE: [(&str, u8); 41] = [
    ("AUDIT_CONTROL", 30),
    ("AUDIT_READ", 37),
    ("AUDIT_WRITE", 29),
    ("BLOCK_SUSPEND", 36),
    ("BPF", 39),
    ("CHECKPOINT_RESTORE", 40),
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("DAC_READ_SEARCH", 2),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("IPC_LOCK", 14),
    ("IPC_OWNER", 15),
    ("KILL", 5),
    ("LEASE", 28),
    ("LINUX_IMMUTABLE", 9),
    ("MAC_ADMIN", 33),
    ("MAC_OVERRIDE", 32),
    ("MKNOD", 27),
    ("NET_ADMIN", 12),
    ("NET_BIND_SERVICE", 10),
    ("NET_BROADCAST", 11),
    ("NET_RAW", 13),
    ("PERFMON", 38),
    ("SETFCAP", 31),
    ("SETGID", 6),
    ("SETPCAP", 8),
    ("SETUID", 7),
    ("SYSLOG", 34),
    ("SYS_ADMIN", 21),
    ("SYS_BOOT", 22),
    ("SYS_CHROOT", 18),
    ("SYS_MODULE", 16),
    ("SYS_NICE", 23),
    ("SYS_PACCT", 20),
    ("SYS_PTRACE", 19),
    ("SYS_RAWIO", 17),
    ("SYS_RESOURCE", 24),
    ("SYS_TIME", 25),
    ("SYS_TTY_CONFIG", 26),
    ("WAKE_ALARM", 35),
];

/// All capabilities that have a name.
const ALL: u64 = (1 << TABLE.len()) - 1;

/// The five sets, as masks: bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// The number of a capability, by its full name (`CAP_CHOWN`), as runc takes it.
pub(crate) fn number(name: &str) -> Option<u8> {
    let name = name.strip_prefix("CAP_")?;
    TABLE.binary_search_by(|(known, _)| known.cmp(&name)).ok().map(|at| TABLE[at].1)
}

/// The full name of a capability.
pub(crate) fn name(number: u8) -> Option<String> {
    TABLE.iter().find(|(_, n)| *n == number).map(|(name, _)| format!("CAP_{name}"))
}

/// The full names of the capabilities in a mask, in order of their numbers.
pub(crate) fn names(mask: u64) -> Vec<String> {
    numbers(mask).filter_map(name).collect()
}

/// The full names of every capability we know, in order of their numbers.
pub(crate) fn known() -> Vec<String> {
    names(ALL)
}

fn numbers(mask: u64) -> impl Iterator<Item = u8> {
    (0..64).filter(move |n| mask >> n & 1 == 1)
}

impl Sets {
    /// The configured sets; names nobody knows become a warning.
    pub(super) fn plan<'a>(sets: &'a oci::Capabilities, warnings: &mut Vec<String>) -> Self {
        let mut unknown: Vec<&'a str> = Vec::new();
        let mut mask = |names: &'a [String]| {
            names.iter().fold(0, |mask, name| match number(name) {
                Some(number) => mask | 1 << number,
                None => {
                    if !unknown.contains(&name.as_str()) {
                        unknown.push(name);
                    }
                    mask
                }
            })
        };
        let planned = Self {
            bounding: mask(&sets.bounding),
            effective: mask(&sets.effective),
            permitted: mask(&sets.permitted),
            inheritable: mask(&sets.inheritable),
            ambient: mask(&sets.ambient),
        };
        if !unknown.is_empty() {
            unknown.sort_unstable();
            warnings.push(format!("ignoring unknown or unavailable capabilities: {unknown:?}"));
        }
        planned
    }

    /// Leaves only what this process could set itself.
    pub(super) fn drop_ungrantable(&mut self, warnings: &mut Vec<String>) -> Result<()> {
        let held = sys::caps::get()?.permitted;
        // Most often there is nothing to do, and CAP_SETPCAP lets more become inheritable.
        if (self.permitted | self.effective | self.inheritable) & !held == 0 {
            return Ok(());
        }
        let wanted = self.kernel_sets();
        let granted = grantable(wanted, held, self.bounding);
        warnings.push(refusal(wanted, granted));
        self.permitted = granted.permitted;
        self.effective = granted.effective;
        self.inheritable = granted.inheritable;
        self.ambient &= granted.permitted & granted.inheritable;
        Ok(())
    }

    fn kernel_sets(&self) -> sys::caps::Sets {
        sys::caps::Sets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        }
    }

    /// Takes what the bounding set must not hold out of it. Needs CAP_SETPCAP, so it comes
    /// before the user changes.
    ///
    /// Dropping what is not there succeeds and costs no more than asking, so nothing asks.
    pub(super) fn drop_bounding(&self) -> Result<()> {
        for number in numbers(!self.bounding) {
            match sys::caps::drop_bounding(number.into()) {
                Ok(()) => {}
                // The first number after the kernel's last capability.
                Err(error) if error.errno() == libc::EINVAL => break,
                // Without CAP_SETPCAP: fine while there is nothing to drop.
                Err(error) if error.errno() == libc::EPERM => {
                    if sys::caps::bounding_holds(number.into()) == Some(true) {
                        return Err(error).context("unable to apply bounding set");
                    }
                }
                Err(error) => return Err(error).context("unable to apply bounding set"),
            }
        }
        Ok(())
    }

    /// Sets the permitted, effective, inheritable and ambient sets. Returns warnings about
    /// what could not be granted.
    pub(super) fn apply(&self) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let wanted = self.kernel_sets();
        let granted = match sys::caps::set(wanted) {
            Ok(()) => wanted,
            Err(error) if error.errno() == libc::EPERM => {
                let granted = grantable(wanted, sys::caps::get()?.permitted, self.bounding);
                sys::caps::set(granted)
                    .context("can't apply capabilities")
                    .context("unable to apply caps")?;
                warnings.push(refusal(wanted, granted));
                granted
            }
            Err(error) => {
                return Err(error)
                    .context("can't apply capabilities")
                    .context("unable to apply caps");
            }
        };
        // capset has taken out of the ambient set whatever is not permitted and inheritable;
        // only what is both, and not asked for, can be left from our caller.
        if granted.permitted & granted.inheritable & !self.ambient != 0 {
            sys::caps::clear_ambient().context("unable to apply caps")?;
        }
        for number in numbers(self.ambient) {
            if let Err(error) = sys::caps::raise_ambient(number.into()) {
                let name = name(number).unwrap_or_default();
                warnings.push(format!("can't raise ambient capability {name}: {error}"));
            }
        }
        Ok(warnings)
    }
}

/// What of the wanted sets the kernel grants a process with this permitted set.
fn grantable(wanted: sys::caps::Sets, permitted: u64, bounding: u64) -> sys::caps::Sets {
    let granted = wanted.permitted & permitted;
    sys::caps::Sets {
        permitted: granted,
        effective: wanted.effective & granted,
        // Without CAP_SETPCAP only what was permitted may become inheritable.
        inheritable: wanted.inheritable & permitted & bounding,
    }
}

fn refusal(wanted: sys::caps::Sets, granted: sys::caps::Sets) -> String {
    let refused = wanted.permitted & !granted.permitted
        | wanted.effective & !granted.effective
        | wanted.inheritable & !granted.inheritable;
    format!("ignoring capabilities that can't be granted: {:?}", names(refused))
}

/// Makes every permitted capability effective again after a change of the user, for the one
/// step that needs it before [`Sets::apply`]: loading a seccomp filter without
/// `noNewPrivileges`.
pub(crate) fn make_effective() -> Result<()> {
    let mut sets = sys::caps::get()?;
    sets.effective = sets.permitted;
    sys::caps::set(sets).context("unable to regain capabilities after the user changed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_in_order() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        let all = TABLE.iter().fold(0_u64, |mask, (_, n)| mask | 1 << n);
        assert_eq!(all, ALL);
        assert_eq!(all.count_ones(), 41);
    }

    #[test]
    fn names_are_those_of_the_kernel() {
        // include/uapi/linux/capability.h, in its order.
        let kernel = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID \
            SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK \
            IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT \
            SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE \
            AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND \
            AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";
        let kernel: Vec<String> = kernel.split(' ').map(|name| format!("CAP_{name}")).collect();
        assert_eq!(known(), kernel);
        for (n, name) in kernel.iter().enumerate() {
            assert_eq!(number(name).map(usize::from), Some(n));
        }
    }

    fn sets(names: &[&str]) -> oci::Capabilities {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        oci::Capabilities { bounding: names, ..Default::default() }
    }

    #[test]
    fn docker_default_set_has_the_known_mask() {
        let names = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE",
        ];
        let mut warnings = Vec::new();
        let planned = Sets::plan(&sets(&names), &mut warnings);
        assert_eq!(planned, Sets { bounding: 0xa804_25fb, ..Sets::default() });
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn each_set_is_its_own() {
        let one = |name: &str| vec![name.to_owned()];
        let configured = oci::Capabilities {
            bounding: one("CAP_CHOWN"),
            effective: one("CAP_KILL"),
            inheritable: one("CAP_BPF"),
            permitted: one("CAP_SETUID"),
            ambient: one("CAP_SYSLOG"),
        };
        let planned = Sets::plan(&configured, &mut Vec::new());
        assert_eq!(
            planned,
            Sets {
                bounding: 1,
                effective: 1 << 5,
                permitted: 1 << 7,
                inheritable: 1 << 39,
                ambient: 1 << 34
            }
        );
    }

    #[test]
    fn unknown_names_are_a_warning_and_nothing_else() {
        let mut warnings = Vec::new();
        let configured = sets(&["CAP_ZZZ", "CHOWN", "cap_chown", "CAP_ZZZ", "", "CAP_CHOWN"]);
        assert_eq!(Sets::plan(&configured, &mut warnings).bounding, 1);
        assert_eq!(
            warnings,
            [
                r#"ignoring unknown or unavailable capabilities: ["", "CAP_ZZZ", "CHOWN", "cap_chown"]"#
            ]
        );
    }

    #[test]
    fn what_cannot_be_granted_is_left_out_and_named() {
        let wanted = sys::caps::Sets { effective: 0b111, permitted: 0b011, inheritable: 0b101 };
        let granted = grantable(wanted, 0b110, 0b011);
        assert_eq!(granted, sys::caps::Sets { effective: 0b010, permitted: 0b010, inheritable: 0 });
        assert_eq!(
            refusal(wanted, granted),
            r#"ignoring capabilities that can't be granted: ["CAP_CHOWN", "CAP_DAC_READ_SEARCH"]"#
        );
    }
}
