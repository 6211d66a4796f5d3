//! Seccomp profiles compiled to BPF.
//!
//! `profile` checks a profile and lowers it to rules, `precedence` decides which of several
//! rules for a call applies, `compile` turns that into a program by way of `bpf`; `arch` and
//! `names` hold facts. All of it is pure: [`compile()`] only asks the kernel which flags it
//! takes, and loading the program is `sys::seccomp::load`.
//!
//! A container must meet the same answer to each call as under runc with libseccomp, so the
//! semantics here are theirs: which rule wins, what becomes of foreign architectures and
//! ABIs, of calls newer than the profile, of `socketcall` and `ipc`. The program's form is
//! not: it searches ranges of numbers, because the kernel runs every filter for every number
//! of its table when one is installed.
//!
//! The crate seccompiler was the first choice for this and can't express the specification:
//! - one action for all rules of a filter, so neither a profile with both errors and
//!   notifications nor an errno per rule;
//! - no user notification (`SCMP_ACT_NOTIFY`) at all;
//! - one architecture a filter; calls of any other kill the process, so no 32-bit programs
//!   on 64-bit kernels, no x32, no multiplexed socket calls;
//! - its loader sets `no_new_privs` whatever the container's configuration says.
//!
//! The tests use it as a second opinion on the profiles that it can express.
//!
//! Not done on purpose: libseccomp loses parts of some overlapping rules with different
//! actions (comparisons of 64-bit values that share a high half); here such rules apply as
//! written, in the order that `precedence` documents.

mod arch;
mod bpf;
mod compile;
mod names;
mod precedence;
mod profile;
mod summary;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result};
use hull_runtime_sys::seccomp::{self as sys, sock_filter};
use hull_specs_oci as oci;

pub(crate) use summary::{Summary, summarize};

/// A profile ready for the kernel.
#[derive(Debug)]
pub(crate) struct Program {
    /// The filter.
    pub(crate) instructions: Vec<sock_filter>,
    /// The flags to load it with, but for `NEW_LISTENER`.
    pub(crate) flags: u32,
    /// Whether a listener must be made and sent to the profile's `listenerPath`.
    pub(crate) notify: bool,
    /// What the profile asks for and will not get; not worth failing for.
    pub(crate) warnings: Vec<String>,
}

impl Program {
    /// The flags to load the filter with.
    pub(crate) fn load_flags(&self) -> u32 {
        self.flags | if self.notify { sys::NEW_LISTENER } else { 0 }
    }
}

/// Compiles a profile for this machine.
pub(crate) fn compile(profile: &oci::Seccomp) -> Result<Program> {
    let native = arch::NATIVE.context("seccomp is not supported on this architecture")?;
    compile_for(profile, native, profile::kernel_supports)
}

/// Compiles a profile for a machine whose own architecture is `native`.
fn compile_for(
    profile: &oci::Seccomp,
    native: oci::SeccompArch,
    flag_supported: impl Fn(u32) -> bool,
) -> Result<Program> {
    let lowered = profile::lower(profile)?;
    let flags = profile::flags(profile, lowered.notify, flag_supported)?;
    let architectures = architectures(profile, native);
    let hide_newer = profile::hides_newer_calls(profile);
    let instructions = compile::compile(&lowered, &architectures, hide_newer)?;
    let warnings =
        lowered.unknown.iter().map(|name| format!("unknown seccomp syscall {name} ignored"));
    Ok(Program { instructions, flags, notify: lowered.notify, warnings: warnings.collect() })
}

/// The architectures of a profile: the machine's own always is one of them.
fn architectures(profile: &oci::Seccomp, native: oci::SeccompArch) -> Vec<oci::SeccompArch> {
    let mut architectures = vec![native];
    for arch in &profile.architectures {
        if !architectures.contains(arch) {
            architectures.push(*arch);
        }
    }
    architectures
}

/// The actions that a profile can name, sorted.
pub(crate) fn known_actions() -> Vec<&'static str> {
    sorted(oci::SeccompAction::ALL.iter().map(|action| action.as_str()))
}

/// The operators that a profile can name, sorted.
pub(crate) fn known_operators() -> Vec<&'static str> {
    sorted(oci::SeccompOperator::ALL.iter().map(|operator| operator.as_str()))
}

/// The architectures that a profile can name on this machine, sorted.
pub(crate) fn known_architectures() -> Vec<&'static str> {
    sorted(arch::Arch::supported().map(oci::SeccompArch::as_str))
}

/// The flags that a profile can name.
pub(crate) fn known_flags() -> Vec<&'static str> {
    profile::FLAGS.iter().map(|(name, _)| *name).collect()
}

/// Those of [`known_flags`] that this kernel takes.
pub(crate) fn supported_flags() -> Vec<&'static str> {
    let supported = profile::FLAGS.iter().filter(|(_, flag)| profile::kernel_supports(*flag));
    supported.map(|(name, _)| *name).collect()
}

fn sorted(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
