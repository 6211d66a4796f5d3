//! The state that the v1 devices controller would be in after a list of rules: a default and
//! its exceptions. v2 gets the same semantics from it.
//!
//! One difference to the kernel, for safety and as runc has it: the kernel silently ignores
//! the removal of a part of a wildcard exception; here it is an error.

use anyhow::{Result, bail, ensure};

use super::{Devices, Kind, Modes, Rule};

/// Whether devices are allowed by default, and the exceptions from that, in the order of the
/// rules: a v1 cgroup's `devices.list` shows it. It means nothing to the kernel, nor here.
#[derive(Clone, Debug, Default)]
pub(in crate::cgroup) struct Access {
    allow: bool,
    exceptions: Vec<(Devices, Modes)>,
}

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        self.allow == other.allow
            && self.exceptions.len() == other.exceptions.len()
            && self.exceptions.iter().all(|(devices, modes)| other.modes(devices) == *modes)
    }
}

impl Access {
    /// Whether what no exception names is allowed.
    pub(in crate::cgroup) fn allows_by_default(&self) -> bool {
        self.allow
    }

    /// The exceptions: allowed devices under a default of deny, and the other way round.
    pub(in crate::cgroup) fn exceptions(&self) -> &[(Devices, Modes)] {
        &self.exceptions
    }

    /// Applies the next rule.
    pub(super) fn apply(&mut self, rule: Rule) -> Result<()> {
        let Some(devices) = rule.devices else {
            *self = Self { allow: rule.allow, exceptions: Vec::new() };
            return Ok(());
        };
        if rule.allow == self.allow {
            self.remove(devices, rule.modes)?
        } else {
            self.add(devices, rule.modes)
        }
        Ok(())
    }

    fn position(&self, devices: &Devices) -> Option<usize> {
        self.exceptions.iter().position(|(d, _)| d == devices)
    }

    fn modes(&self, devices: &Devices) -> Modes {
        self.position(devices).map(|at| self.exceptions[at].1).unwrap_or_default()
    }

    fn add(&mut self, devices: Devices, modes: Modes) {
        match self.position(&devices) {
            Some(at) => self.exceptions[at].1 = self.exceptions[at].1.union(modes),
            None => self.exceptions.push((devices, modes)),
        }
    }

    fn remove(&mut self, devices: Devices, modes: Modes) -> Result<()> {
        for wider in [
            Devices { major: None, ..devices },
            Devices { minor: None, ..devices },
            Devices { major: None, minor: None, ..devices },
        ] {
            ensure!(
                wider == devices || !self.modes(&wider).overlaps(modes),
                "requested rule [{devices} {modes}] not supported by devices cgroupv1 (cannot \
                 punch hole in existing wildcard rule [{wider} {}])",
                self.modes(&wider)
            );
        }
        if let Some(at) = self.position(&devices) {
            let left = self.exceptions[at].1.without(modes);
            if left.is_empty() {
                self.exceptions.remove(at);
            } else {
                self.exceptions[at].1 = left;
            }
        }
        Ok(())
    }

    /// The fewest rules that turn a cgroup in this state into `target`. A rule for all devices
    /// (which shuts running processes out for a moment) is only used where the default
    /// changes, or where this state allows by default: the kernel does not show the
    /// exceptions of such a cgroup.
    pub(super) fn transition(&self, target: &Self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let reset = self.allow || self.allow != target.allow;
        let nothing = Self::default();
        let old = if reset { &nothing } else { self };
        if reset {
            rules.push(Rule { allow: target.allow, devices: None, modes: Modes::ALL });
        }
        let mut differences = |from: &Self, to: &Self, allow| {
            for (devices, modes) in &from.exceptions {
                let modes = modes.without(to.modes(devices));
                if !modes.is_empty() {
                    rules.push(Rule { allow, devices: Some(*devices), modes });
                }
            }
        };
        differences(old, target, target.allow);
        differences(target, old, !target.allow);
        rules
    }

    /// Reads `devices.list`. Under a default of allow the kernel prints no exceptions.
    pub(super) fn parse_list(text: &str) -> Result<Self> {
        let mut access = Self::default();
        for line in text.lines() {
            match parse_line(line) {
                Some(rule) => access.apply(rule)?,
                None => bail!("malformed devices.list rule {line:?}"),
            }
        }
        Ok(access)
    }
}

fn parse_line(line: &str) -> Option<Rule> {
    let mut fields = line.split([' ', ':']);
    let (kind, major, minor, modes) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let kind = match kind {
        "a" => return Some(Rule { allow: true, devices: None, modes: Modes::ALL }),
        "b" => Kind::Block,
        "c" => Kind::Char,
        _ => return None,
    };
    let number = |text: &str| match text {
        "*" => Some(None),
        _ => text.parse().ok().map(Some),
    };
    let modes = Modes::parse(modes).filter(|m| !m.is_empty())?;
    if fields.next().is_some() {
        return None;
    }
    let devices = Devices { kind, major: number(major)?, minor: number(minor)? };
    Some(Rule { allow: true, devices: Some(devices), modes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(rules: &[(bool, &str)]) -> Result<Access> {
        let mut access = Access::default();
        for (allow, text) in rules {
            access.apply(Rule { allow: *allow, ..parse_line(text).expect("a rule") })?;
        }
        Ok(access)
    }

    fn transition(from: &[(bool, &str)], to: &[(bool, &str)]) -> Vec<(bool, String)> {
        access(from)
            .expect("valid")
            .transition(&access(to).expect("valid"))
            .into_iter()
            .map(|rule| (rule.allow, rule.to_string()))
            .collect()
    }

    fn check(actual: Vec<(bool, String)>, expected: &[(bool, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(a, t)| (*a, (*t).to_owned())).collect();
        assert_eq!(actual, expected);
    }

    #[test]
    fn the_start_is_deny_all() {
        let empty = access(&[]).expect("valid");
        assert!(!empty.allows_by_default() && empty.exceptions().is_empty());
        assert_eq!(access(&[(false, "a *:* rwm")]).expect("valid"), empty);
    }

    #[test]
    fn rules_merge_and_subtract() {
        let merged = access(&[
            (true, "c 1:3 r"),
            (true, "c 1:3 w"),
            (true, "b 8:0 rwm"),
            (false, "b 8:0 m"),
            (true, "c 9:9 r"),
            (false, "c 9:9 rw"),
        ]);
        assert_eq!(
            merged.expect("valid"),
            access(&[(true, "c 1:3 rw"), (true, "b 8:0 rw")]).expect("valid")
        );
    }

    #[test]
    fn exceptions_keep_the_order_of_the_rules_and_are_compared_without_it() {
        let rules = [(true, "c 10:200 rw"), (true, "b 8:0 r"), (true, "c *:* m")];
        let access = access(&rules).expect("valid");
        let order: Vec<_> = access.exceptions().iter().map(|(d, _)| d.to_string()).collect();
        assert_eq!(order, ["c 10:200", "b 8:0", "c *:*"]);
        let other = Access::parse_list("c *:* m\nb 8:0 r\nc 10:200 rw\n").expect("valid");
        assert_eq!(access, other);
        assert_ne!(access, Access::parse_list("c *:* m\nb 8:0 r\n").expect("valid"));
    }

    #[test]
    fn a_rule_for_all_devices_resets() {
        let all = access(&[(true, "c 1:3 r"), (true, "a *:* rwm")]).expect("valid");
        assert!(all.allows_by_default() && all.exceptions().is_empty());
        let but = access(&[(true, "a *:* rwm"), (false, "c 1:3 r")]).expect("valid");
        assert_eq!(but.exceptions().len(), 1);
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        for wide in ["c *:* r", "c 1:* r", "c *:3 r"] {
            let error = access(&[(true, wide), (false, "c 1:3 r")]).expect_err(wide);
            assert!(error.to_string().contains("cannot punch hole"), "{error}");
        }
        assert!(access(&[(true, "c 1:* r"), (false, "c 1:3 w")]).is_ok(), "other modes");
        assert!(access(&[(true, "c 1:* r"), (false, "b 1:3 r")]).is_ok(), "another kind");
        assert!(access(&[(true, "c 1:* r"), (false, "c 1:* r")]).is_ok(), "the rule itself");
    }

    #[test]
    fn an_update_writes_only_the_difference() {
        check(
            transition(
                &[(true, "c 1:3 rwm"), (true, "c 1:5 rw")],
                &[(true, "c 1:5 rwm"), (true, "c 5:* r")],
            ),
            &[(false, "c 1:3 rwm"), (true, "c 1:5 m"), (true, "c 5:* r")],
        );
        check(transition(&[(true, "c 1:3 rwm")], &[(true, "c 1:3 rwm")]), &[]);
    }

    #[test]
    fn a_cgroup_that_allows_by_default_is_reset() {
        check(
            transition(&[(true, "a *:* rwm")], &[(true, "c 1:3 rwm")]),
            &[(false, "a *:* rwm"), (true, "c 1:3 rwm")],
        );
        check(
            transition(&[(true, "a *:* rwm")], &[(true, "a *:* rwm"), (false, "c 1:3 w")]),
            &[(true, "a *:* rwm"), (false, "c 1:3 w")],
        );
        check(transition(&[(true, "c 1:3 r")], &[(true, "a *:* rwm")]), &[(true, "a *:* rwm")]);
    }

    #[test]
    fn devices_list_is_parsed_strictly() {
        let list = "c *:* m\nb *:* m\nc 1:3 rwm\n";
        assert_eq!(Access::parse_list(list).expect("valid").exceptions().len(), 3);
        assert!(Access::parse_list("a *:* rwm\n").expect("valid").allows_by_default());
        for bad in ["x 1:3 r", "c 1 r", "c 1:3 x", "c 1:3", "c 1:3 r r", "c y:3 r", "c 1:3 "] {
            assert!(Access::parse_list(bad).is_err(), "{bad}");
        }
    }
}
