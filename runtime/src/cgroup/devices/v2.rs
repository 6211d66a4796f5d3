//! The v2 device filter: an eBPF program attached to the cgroup.

use std::{os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result};
use hull_runtime_sys::bpf;

use super::{Access, program};
use crate::cgroup::file;

/// Installs the filter for `target`, in place of those that are there: an own one of an
/// earlier update, or one that systemd attached to a scope.
pub(in crate::cgroup) fn install(dir: &Path, target: &Access) -> Result<()> {
    let cgroup = file::open_dir(dir)?;
    let program = bpf::load_cgroup_device(&program::assemble(target), c"Apache")
        .context("failed to load the eBPF device filter")?;
    let old = attached(&cgroup)?;
    // One filter is replaced in one step, so that no access goes unfiltered in between.
    let replaced = match old.as_slice() {
        [only] => bpf::attach_cgroup_device(&cgroup, &program, Some(only)),
        _ => bpf::attach_cgroup_device(&cgroup, &program, None),
    };
    replaced
        .context("failed to attach the eBPF device filter")
        .with_context(|| dir.display().to_string())?;
    // Filters only restrict, and all of them must agree: more than one old one is removed
    // after the new one works.
    if old.len() > 1 {
        for filter in &old {
            bpf::detach_cgroup_device(&cgroup, filter)
                .context("failed to detach an old eBPF device filter")?;
        }
    }
    Ok(())
}

/// The filters on this cgroup itself that may be opened. One that a security module hides
/// stays: it can only restrict further.
fn attached(cgroup: &OwnedFd) -> Result<Vec<OwnedFd>> {
    // The kernel's limit for one cgroup and type (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0; 64];
    let count = bpf::query_cgroup_device(cgroup, &mut ids)
        .context("failed to list the cgroup's eBPF device filters")?;
    let mut programs = Vec::with_capacity(count);
    for id in &ids[..count] {
        match bpf::program_by_id(*id) {
            Ok(program) => programs.push(program),
            Err(error) if file::is_denied(&error) => {}
            // Detached by somebody else since.
            Err(error) if error.errno() == libc::ENOENT => {}
            Err(error) => return Err(error).context("failed to open an eBPF device filter"),
        }
    }
    Ok(programs)
}
