//! The container's namespaces: which are made, which are joined, and in how many stages.
//!
//! One clone3(2) with every flag at once is enough for nearly every container. A second
//! stage is needed where the kernel forces an order between namespaces:
//! - a user namespace is joined and others are made: those must belong to it;
//! - a user namespace is made and others are joined: entering them may need the
//!   privileges that the new user namespace takes away;
//! - a time namespace is made: its clocks can be set only before a process is in it, and
//!   only children of the process that unshared it are.

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{Linux, NamespaceKind};

/// The plan, with the descriptors of what is joined.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// `CLONE_NEW*` of those that are made.
    pub(crate) new: u64,
    joined: Vec<(NamespaceKind, OwnedFd)>,
    /// Every kind that is not the runtime's own.
    pub(crate) own: Vec<NamespaceKind>,
}

/// The kernel's flag of a kind.
pub(crate) fn flag(kind: NamespaceKind) -> u64 {
    let flag = match kind {
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::Network => libc::CLONE_NEWNET,
        NamespaceKind::Mount => libc::CLONE_NEWNS,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Time => libc::CLONE_NEWTIME,
    };
    u64::from(flag.cast_unsigned())
}

impl Plan {
    /// Opens what is joined; checks that each file is a namespace of the right kind.
    pub(crate) fn new(linux: &Linux) -> Result<Self> {
        let mut plan = Self::default();
        for namespace in &linux.namespaces {
            plan.own.push(namespace.kind);
            if namespace.path.is_empty() {
                plan.new |= flag(namespace.kind);
                continue;
            }
            let path = CString::new(namespace.path.as_str()).context("a path holds a NUL byte")?;
            let what =
                || format!("cannot join {} namespace {}", namespace.kind.as_str(), namespace.path);
            let fd =
                sys::fd::openat(sys::fd::AT_FDCWD, &path, libc::O_RDONLY | libc::O_NONBLOCK, 0)
                    .with_context(what)?;
            let kind = sys::namespace::kind(&fd)
                .map_err(|_| anyhow::anyhow!("the file is not a namespace"))
                .with_context(what)?;
            if u64::from(kind.cast_unsigned()) != flag(namespace.kind) {
                bail!("{}: it is a namespace of another kind", what());
            }
            plan.joined.push((namespace.kind, fd));
        }
        Ok(plan)
    }

    pub(crate) fn makes(&self, kind: NamespaceKind) -> bool {
        self.new & flag(kind) != 0
    }

    pub(crate) fn joins(&self, kind: NamespaceKind) -> Option<&OwnedFd> {
        self.joined.iter().find(|(joined, _)| *joined == kind).map(|(_, fd)| fd)
    }

    pub(crate) fn has(&self, kind: NamespaceKind) -> bool {
        self.own.contains(&kind)
    }

    /// Whether the kernel's order between namespaces needs a second stage.
    pub(crate) fn is_staged(&self) -> bool {
        let user = NamespaceKind::User;
        let others = self.new & !flag(user) & !flag(NamespaceKind::Cgroup);
        (self.joins(user).is_some() && others != 0)
            || (self.makes(user) && !self.joined.is_empty())
            || self.makes(NamespaceKind::Time)
    }

    /// The flags for the one clone3 of an unstaged plan. The cgroup namespace is left
    /// out: its root is the cgroup that its maker is in, so it is made after joining.
    pub(crate) fn clone_flags(&self) -> u64 {
        self.new & !flag(NamespaceKind::Cgroup)
    }

    /// Enters what an unstaged plan joins, except the pid namespace, which only a child
    /// can be in. The user namespace comes last: it may take privileges away.
    pub(crate) fn join(&self) -> Result<()> {
        let rank = |kind: &NamespaceKind| *kind == NamespaceKind::User;
        for late in [false, true] {
            for (kind, fd) in &self.joined {
                if *kind != NamespaceKind::Pid && rank(kind) == late {
                    enter(*kind, fd)?;
                }
            }
        }
        Ok(())
    }

    /// The first stage of a staged plan: on return everything but new pid and cgroup
    /// namespaces is entered or made. A joined pid namespace has the second stage in it,
    /// whose pid the first one, still outside, is told as the runtime sees it. `map` is called inside a new user namespace and
    /// returns when the runtime has mapped its ids.
    pub(crate) fn stage(&self, map: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let user = NamespaceKind::User;
        let mut refused = Vec::new();
        for (kind, fd) in self.joined.iter().filter(|(kind, _)| *kind != user) {
            // Owned by the user namespace that is joined below: enter it from there.
            if enter(*kind, fd).is_err() {
                refused.push((*kind, fd));
            }
        }
        if let Some(fd) = self.joins(user) {
            enter(user, fd)?;
        }
        if self.makes(user) {
            sys::namespace::unshare(libc::CLONE_NEWUSER).context("cannot make a user namespace")?;
            map()?;
        }
        for (kind, fd) in refused {
            enter(kind, fd)?;
        }
        let later = flag(user) | flag(NamespaceKind::Pid) | flag(NamespaceKind::Cgroup);
        let now = i32::try_from(self.new & !later).context("impossible namespace flags")?;
        if now != 0 {
            sys::namespace::unshare(now).context("cannot make namespaces")?;
        }
        Ok(())
    }
}

fn enter(kind: NamespaceKind, fd: impl AsFd) -> Result<()> {
    let flag = i32::try_from(flag(kind)).context("impossible namespace flag")?;
    sys::namespace::setns(fd, flag)
        .with_context(|| format!("cannot enter the {} namespace", kind.as_str()))
}

#[cfg(test)]
mod tests {
    use hull_specs_oci::Namespace;

    use super::*;

    fn plan(list: &[(NamespaceKind, &str)]) -> Result<Plan> {
        let namespaces =
            list.iter().map(|(kind, path)| Namespace { kind: *kind, path: (*path).into() });
        Plan::new(&Linux { namespaces: namespaces.collect(), ..Linux::default() })
    }

    #[test]
    fn only_an_order_that_the_kernel_forces_needs_a_stage() {
        use NamespaceKind::{Mount, Network, Pid, Time, User};
        let net = "/proc/self/ns/net";
        for (list, staged) in [
            (&[(Pid, ""), (Mount, ""), (Network, "")][..], false),
            (&[(Pid, ""), (Mount, ""), (Network, net)], false),
            (&[(User, ""), (Pid, ""), (Mount, "")], false),
            (&[(User, ""), (Network, net)], true),
            (&[(User, "/proc/self/ns/user"), (Mount, "")], true),
            (&[(User, "/proc/self/ns/user")], false),
            (&[(Time, "")], true),
        ] {
            assert_eq!(plan(list).unwrap().is_staged(), staged, "{list:?}");
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let error = plan(&[(NamespaceKind::Pid, "/proc/self/ns/net")]).unwrap_err();
        assert!(error.to_string().contains("another kind"));
        let error = plan(&[(NamespaceKind::Pid, "/etc/passwd")]).unwrap_err();
        assert!(format!("{error:#}").contains("not a namespace"));
        let error = plan(&[(NamespaceKind::Pid, "/nowhere")]).unwrap_err();
        assert!(format!("{error:#}").contains("no such file or directory"));
    }
}
