//! A profile lowered to rules: values checked, names looked up, conditions in order.
//!
//! What is refused, what is only warned of and what is passed over is runc's choice, except
//! that an errno which its action can't carry is an error, as the specification demands.

use anyhow::{Context, Result, bail};
use hull_runtime_sys::seccomp::{self as sys, ret};
use hull_specs_oci::{Seccomp, SeccompAction, SeccompArg, SeccompOperator, SeccompSyscall};

use super::names::Name;

/// The arguments of a system call.
const ARGUMENTS: u32 = 6;
/// The kernel caps the errno of a filter here (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

/// One comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u32,
    pub(super) op: SeccompOperator,
    /// All ones but for `SCMP_CMP_MASKED_EQ`.
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// An action and the conditions (in the order of the arguments, each argument at most
/// once) under all of which it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: u32,
    pub(super) conditions: Vec<Condition>,
}

/// A name of the profile, with the rules that its entry gives it: a range of
/// [`Profile::rules`], empty where the entry's action is the default one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) name: Name,
    pub(super) rules: (usize, usize),
}

/// A profile, checked.
#[derive(Debug)]
pub(super) struct Profile<'a> {
    pub(super) default_action: u32,
    pub(super) rules: Vec<Rule>,
    pub(super) calls: Vec<Call>,
    /// Names that no architecture knows.
    pub(super) unknown: Vec<&'a str>,
    /// Whether some entry notifies, so that a listener is needed.
    pub(super) notify: bool,
}

/// Checks a profile and lowers it.
pub(super) fn lower(profile: &Seccomp) -> Result<Profile<'_>> {
    if profile.default_action == SeccompAction::Notify {
        // The runtime itself could not hand the listener over any more.
        bail!("SCMP_ACT_NOTIFY cannot be used as default action");
    }
    if profile.listener_path.is_empty() && !profile.listener_metadata.is_empty() {
        bail!("seccomp listenerMetadata is set but listenerPath is not");
    }
    let default_action = returned(profile.default_action, profile.default_errno_ret)
        .context("seccomp default action")?;
    let names = profile.syscalls.iter().map(|entry| entry.names.len()).sum();
    let mut lowered = Profile {
        default_action,
        rules: Vec::with_capacity(profile.syscalls.len()),
        calls: Vec::with_capacity(names),
        unknown: Vec::new(),
        notify: false,
    };
    for entry in &profile.syscalls {
        lower_entry(entry, &mut lowered).with_context(|| match entry.names.first() {
            Some(name) => format!("seccomp rule for {name}"),
            None => "seccomp rule without names".to_owned(),
        })?;
    }
    if lowered.notify && profile.listener_path.is_empty() {
        bail!("seccomp listenerPath is not set, but a rule has SCMP_ACT_NOTIFY");
    }
    Ok(lowered)
}

fn lower_entry<'a>(entry: &'a SeccompSyscall, lowered: &mut Profile<'a>) -> Result<()> {
    let action = returned(entry.action, entry.errno_ret)?;
    let conditions = entry.args.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let first = lowered.rules.len();
    // A rule that repeats the default action says nothing, and in particular does not keep
    // a later rule for the same call from applying.
    if action != lowered.default_action {
        push_rules(action, conditions, &mut lowered.rules);
    }
    let rules = (first, lowered.rules.len());
    for text in &entry.names {
        if text.is_empty() {
            bail!("empty string is not a valid syscall");
        }
        if entry.action == SeccompAction::Notify {
            if text == "write" {
                // The listener's number reaches its receiver by a write.
                bail!("SCMP_ACT_NOTIFY cannot be used for the write syscall");
            }
            lowered.notify = true;
        }
        match Name::find(text) {
            Some(name) => lowered.calls.push(Call { name, rules }),
            None => lowered.unknown.push(text),
        }
    }
    Ok(())
}

/// Several conditions on one argument can't all be meant to hold; each becomes a rule of
/// its own, and so does every other condition of that entry. This is what runc has always
/// made of such entries, and profiles rely on it.
fn push_rules(action: u32, mut conditions: Vec<Condition>, rules: &mut Vec<Rule>) {
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(i, a)| conditions[..i].iter().any(|b| a.index == b.index));
    if repeated {
        rules.extend(
            conditions.into_iter().map(|condition| Rule { action, conditions: vec![condition] }),
        );
    } else {
        conditions.sort_unstable_by_key(|condition| condition.index);
        rules.push(Rule { action, conditions });
    }
}

fn condition(arg: &SeccompArg) -> Result<Condition> {
    if arg.index >= ARGUMENTS {
        bail!("system calls only have arguments 0 to 5, not {}", arg.index);
    }
    let (mask, value) = match arg.op {
        SeccompOperator::MaskedEqual => (arg.value, arg.value_two & arg.value),
        _ => (u64::MAX, arg.value),
    };
    Ok(Condition { index: arg.index, op: arg.op, mask, value })
}

/// What a filter returns for an action.
fn returned(action: SeccompAction, errno: Option<u32>) -> Result<u32> {
    let most = match action {
        SeccompAction::Errno => MAX_ERRNO,
        SeccompAction::Trace => u32::from(u16::MAX),
        _ if errno.is_some() => bail!("{} takes no errno", action.as_str()),
        _ => 0,
    };
    let data = match errno {
        Some(errno) if errno > most => {
            bail!("errno {errno} of {} is above {most}", action.as_str());
        }
        Some(errno) => errno,
        None => libc::EPERM.unsigned_abs(),
    };
    Ok(match action {
        SeccompAction::Kill | SeccompAction::KillThread => ret::KILL_THREAD,
        SeccompAction::KillProcess => ret::KILL_PROCESS,
        SeccompAction::Trap => ret::TRAP,
        SeccompAction::Errno => ret::ERRNO | data,
        SeccompAction::Trace => ret::TRACE | data,
        SeccompAction::Allow => ret::ALLOW,
        SeccompAction::Log => ret::LOG,
        SeccompAction::Notify => ret::USER_NOTIF,
    })
}

/// The flags of seccomp(2) that a profile can ask for. TSYNC is accepted and means nothing:
/// the process that loads the filter has a single thread.
pub(super) const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", sys::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", sys::LOG),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", sys::WAIT_KILLABLE_RECV),
];

/// The flags to load the filter with. A profile that names none, not even an empty list,
/// gets `SPEC_ALLOW` where the kernel has it.
pub(super) fn flags(
    profile: &Seccomp,
    notify: bool,
    supported: impl Fn(u32) -> bool,
) -> Result<u32> {
    let Some(names) = &profile.flags else {
        return Ok(if supported(sys::SPEC_ALLOW) { sys::SPEC_ALLOW } else { 0 });
    };
    let mut flags = 0;
    for name in names {
        let Some((_, flag)) = FLAGS.iter().find(|(known, _)| known == name) else {
            bail!("seccomp flag {name} is not known");
        };
        if *flag != 0 && !supported(*flag) {
            bail!("seccomp flag {name} is not supported by this kernel");
        }
        flags |= flag;
    }
    if flags & sys::WAIT_KILLABLE_RECV != 0 && !notify {
        bail!(
            "seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY"
        );
    }
    Ok(flags)
}

/// Whether this kernel takes one of [`FLAGS`]; it takes `WAIT_KILLABLE_RECV` only together
/// with a listener.
pub(super) fn kernel_supports(flag: u32) -> bool {
    let needs = if flag == sys::WAIT_KILLABLE_RECV { sys::NEW_LISTENER } else { 0 };
    sys::flags_available(flag | needs)
}

/// Whether calls newer than the profile's newest must fail with `ENOSYS`, so that programs
/// fall back as they would on an older kernel. Not where the default action lets calls
/// through (a tracer is expected to cope by itself).
pub(super) fn hides_newer_calls(profile: &Seccomp) -> bool {
    !matches!(
        profile.default_action,
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace
    )
}
