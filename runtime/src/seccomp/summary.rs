//! A profile in a few lines, for `explain`.

use std::fmt;

use hull_specs_oci::{Seccomp, SeccompAction};
use serde::Serialize;

use super::{arch, architectures};

/// What a profile does, by action.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// What happens to calls without a rule.
    pub(crate) default: Action,
    /// The architectures whose calls are not refused outright.
    pub(crate) architectures: Vec<&'static str>,
    /// What rules add to that.
    pub(crate) rules: Vec<Rules>,
}

/// An action, with its errno where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    /// The specification's name.
    pub(crate) action: &'static str,
    /// The errno, or a tracer's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errno: Option<u32>,
}

/// How many system calls have rules with an action.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rules {
    /// The action.
    #[serde(flatten)]
    pub(crate) action: Action,
    /// Calls named whatever their arguments.
    pub(crate) calls: usize,
    /// Calls named under conditions on their arguments.
    pub(crate) conditional_calls: usize,
}

/// Summarizes a profile.
pub(crate) fn summarize(profile: &Seccomp) -> Summary {
    let default = Action::of(profile.default_action, profile.default_errno_ret);
    let mut rules: Vec<Rules> = Vec::new();
    for entry in &profile.syscalls {
        let action = Action::of(entry.action, entry.errno_ret);
        let at = rules.iter().position(|rules| rules.action == action).unwrap_or_else(|| {
            rules.push(Rules { action, calls: 0, conditional_calls: 0 });
            rules.len() - 1
        });
        if entry.args.is_empty() {
            rules[at].calls += entry.names.len();
        } else {
            rules[at].conditional_calls += entry.names.len();
        }
    }
    let architectures = match arch::NATIVE {
        Some(native) => architectures(profile, native),
        None => profile.architectures.clone(),
    };
    let architectures = architectures.iter().map(|arch| arch.as_str()).collect();
    Summary { default, architectures, rules }
}

impl Action {
    fn of(action: SeccompAction, errno: Option<u32>) -> Self {
        let carries = matches!(action, SeccompAction::Errno | SeccompAction::Trace);
        let errno = carries.then(|| errno.unwrap_or(libc::EPERM.unsigned_abs()));
        Self { action: action.as_str(), errno }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action)?;
        match self.errno {
            Some(errno) => write!(f, "({errno})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "default {} on {}", self.default, self.architectures.join(", "))?;
        for rules in &self.rules {
            write!(f, "; {} for {} calls", rules.action, rules.calls)?;
            if rules.conditional_calls != 0 {
                write!(f, " and {} by their arguments", rules.conditional_calls)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_counted_with_and_without_conditions() {
        let profile: Seccomp = serde_json::from_str(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#,
        )
        .unwrap();
        let summary = summarize(&profile);
        let text = summary.to_string();
        assert!(text.starts_with("default SCMP_ACT_ERRNO(38) on SCMP_ARCH_"), "{text}");
        assert!(
            text.ends_with(
                "; SCMP_ACT_ALLOW for 2 calls and 1 by their arguments; \
                 SCMP_ACT_ERRNO(38) for 1 calls"
            ),
            "{text}"
        );
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["rules"][0]["conditionalCalls"], 1);
        assert_eq!(json["rules"][1]["errno"], 38);
    }
}
