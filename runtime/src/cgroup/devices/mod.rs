//! Device access: the rule list of `linux.resources.devices`, evaluated once into a closed
//! set (`Access`), which v1 gets as allow and deny writes and v2 as an eBPF program.
//!
//! A container starts with no device at all (the first rule need not say so); rules are
//! applied in order, and runc's default rules come last, because that is how callers expect
//! `/dev/null` to work after a list that ends in "deny".

mod access;
mod program;
pub(super) mod v1;
pub(super) mod v2;

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use hull_specs_oci as oci;

pub(super) use access::Access;

/// Block or character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Char,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Self::Block => 'b',
            Self::Char => 'c',
        }
    }
}

/// A set of read, write and mknod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes(u8);

impl Modes {
    const READ: u8 = 1;
    const WRITE: u8 = 2;
    const MKNOD: u8 = 4;
    pub(super) const ALL: Self = Self(7);

    fn parse(text: &str) -> Option<Self> {
        let mut set = 0;
        for letter in text.bytes() {
            set |= match letter {
                b'r' => Self::READ,
                b'w' => Self::WRITE,
                b'm' => Self::MKNOD,
                _ => return None,
            };
        }
        Some(Self(set))
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.0 & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// Which devices a rule matches; `None` is every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Devices {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{} {}:{}", self.kind.letter(), number(self.major), number(self.minor))
    }
}

/// One rule. `devices` is `None` for the type `a`, which resets everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) devices: Option<Devices>,
    pub(super) modes: Modes,
}

impl fmt::Display for Rule {
    /// As `devices.allow` and `devices.deny` take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.devices {
            None => f.write_str("a *:* rwm"),
            Some(devices) => write!(f, "{devices} {}", self.modes),
        }
    }
}

fn rule(rule: &oci::DeviceRule) -> Result<Rule> {
    ensure!(!rule.access.is_empty(), "device access cannot be empty");
    let kind = match rule.kind.as_str() {
        "" | "a" => None,
        "b" => Some(Kind::Block),
        "c" | "u" => Some(Kind::Char),
        other => bail!("invalid cgroup device type {other:?}"),
    };
    let Some(modes) = Modes::parse(&rule.access) else {
        bail!("device access {:?} holds something else than r, w and m", rule.access);
    };
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .with_context(|| format!("{value} is not a device number")),
    };
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    Ok(Rule { allow: rule.allow, devices: kind.map(|kind| Devices { kind, major, minor }), modes })
}

/// A default device: its rule, and the path that a device of the configuration may take over.
struct Default {
    path: &'static str,
    kind: &'static str,
    major: i64,
    minor: i64,
    access: &'static str,
}

const fn default(
    path: &'static str,
    kind: &'static str,
    major: i64,
    minor: i64,
    access: &'static str,
) -> Default {
    Default { path, kind, major, minor, access }
}

/// What runc lets every container use.
const DEFAULTS: &[Default] = &[
    // Making a node is harmless where opening it is refused.
    default("", "c", -1, -1, "m"),
    default("", "b", -1, -1, "m"),
    default("/dev/null", "c", 1, 3, "rwm"),
    default("/dev/random", "c", 1, 8, "rwm"),
    default("/dev/full", "c", 1, 7, "rwm"),
    default("/dev/tty", "c", 5, 0, "rwm"),
    default("/dev/zero", "c", 1, 5, "rwm"),
    default("/dev/urandom", "c", 1, 9, "rwm"),
    // Pseudo-terminals and their multiplexer.
    default("", "c", 136, -1, "rwm"),
    default("", "c", 5, 2, "rwm"),
    // /dev/net/tun, which callers rely on since Docker's first versions.
    default("", "c", 10, 200, "rwm"),
];

/// The rules of a configuration: those of `resources`, then the defaults, less the defaults
/// whose path `devices` (`linux.devices`) defines otherwise.
pub(crate) fn rules(
    resources: Option<&oci::Resources>,
    devices: &[oci::Device],
) -> Vec<oci::DeviceRule> {
    let mut rules = resources.map(|r| r.devices.clone()).unwrap_or_default();
    for entry in DEFAULTS {
        if entry.path.is_empty() || devices.iter().all(|device| device.path != entry.path) {
            rules.push(oci::DeviceRule {
                allow: true,
                kind: entry.kind.to_owned(),
                major: Some(entry.major),
                minor: Some(entry.minor),
                access: entry.access.to_owned(),
            });
        }
    }
    rules
}

/// Evaluates a rule list.
pub(super) fn evaluate(rules: &[oci::DeviceRule]) -> Result<Access> {
    let mut access = Access::default();
    for (index, entry) in rules.iter().enumerate() {
        rule(entry)
            .and_then(|rule| access.apply(rule))
            .with_context(|| format!("device rule {index}"))?;
    }
    Ok(access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_come_last_and_give_way_to_the_configurations_devices() {
        let resources = oci::Resources {
            devices: vec![oci::DeviceRule {
                access: "rwm".to_owned(),
                ..std::default::Default::default()
            }],
            ..std::default::Default::default()
        };
        let all = rules(Some(&resources), &[]);
        assert_eq!(all.len(), 12);
        assert!(!all[0].allow);
        let tty = oci::Device { path: "/dev/tty".to_owned(), ..std::default::Default::default() };
        let less = rules(Some(&resources), &[tty]);
        assert_eq!(less.len(), 11);
        assert!(!less.iter().any(|r| (r.major, r.minor) == (Some(5), Some(0))));
    }

    #[test]
    fn bad_rules_are_refused() {
        let base = oci::DeviceRule {
            allow: true,
            kind: "c".to_owned(),
            major: Some(1),
            minor: Some(3),
            access: "r".to_owned(),
        };
        for bad in [
            oci::DeviceRule { access: String::new(), ..base.clone() },
            oci::DeviceRule { access: "rx".to_owned(), ..base.clone() },
            oci::DeviceRule { kind: "p".to_owned(), ..base.clone() },
            oci::DeviceRule { major: Some(-2), ..base.clone() },
            oci::DeviceRule { minor: Some(1 << 32), ..base.clone() },
        ] {
            assert!(evaluate(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        assert!(evaluate(&[base]).is_ok());
    }

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let text =
            |json| rule(&serde_json::from_value(json).expect("a rule")).expect("valid").to_string();
        assert_eq!(
            text(serde_json::json!({"allow": true, "type": "c", "major": 136, "access": "mr"})),
            "c 136:* rm"
        );
        assert_eq!(text(serde_json::json!({"allow": false, "access": "rwm"})), "a *:* rwm");
    }
}
