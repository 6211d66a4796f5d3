//! Scheduler, I/O priority, processor affinity, memory policy, personality.

use anyhow::{Context, Result, bail, ensure};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

use super::id_set::IdSet;

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const IO_CLASSES: [(&str, i32); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

const DEFAULT: i32 = 0;
const LOCAL: i32 = 4;
const PREFERRED: i32 = 1;

/// The modes of a memory policy, by name.
pub(crate) const MEMORY_MODES: [(&str, i32); 7] = [
    ("MPOL_BIND", 2),
    ("MPOL_DEFAULT", DEFAULT),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", LOCAL),
    ("MPOL_PREFERRED", PREFERRED),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// The flags of a memory policy's mode, by name.
pub(crate) const MEMORY_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

fn value<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// What sched_setattr(2) will be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheduler {
    pub(crate) attributes: sys::process::SchedulingAttributes,
    /// The container's cgroup limits its processors, which excludes some policies.
    pub(crate) limited_to_cpus: bool,
}

impl Scheduler {
    pub(super) fn plan(configured: &oci::Scheduler, limited_to_cpus: bool) -> Result<Self> {
        let name = configured.policy.as_str();
        if name.is_empty() {
            bail!("scheduler policy is required");
        }
        let Some(policy) = value(&POLICIES, name) else {
            bail!("invalid scheduler policy: {name}");
        };
        let nice = configured.nice;
        if matches!(name, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&nice) {
            bail!("invalid scheduler.nice: {nice} when scheduler.policy is {name}");
        }
        let real_time = matches!(name, "SCHED_FIFO" | "SCHED_RR");
        if configured.priority != 0 && !real_time {
            bail!("scheduler.priority can only be specified for SchedFIFO or SchedRR policy");
        }
        let Ok(priority) = u32::try_from(configured.priority) else {
            bail!("invalid scheduler.priority: {}", configured.priority);
        };
        let times = [configured.runtime, configured.deadline, configured.period];
        if name != "SCHED_DEADLINE" && times != [0; 3] {
            bail!(
                "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
            );
        }
        let mut flags = 0;
        for flag in &configured.flags {
            let Some(bit) = value(&SCHEDULER_FLAGS, flag) else {
                bail!("invalid scheduler flag: {flag}");
            };
            flags |= bit;
        }
        let attributes = sys::process::SchedulingAttributes {
            policy,
            flags,
            nice,
            priority,
            runtime: configured.runtime,
            deadline: configured.deadline,
            period: configured.period,
            ..Default::default()
        };
        Ok(Self { attributes, limited_to_cpus })
    }

    pub(super) fn apply(&self) -> Result<()> {
        let result = sys::process::set_scheduling(self.attributes);
        match result {
            Err(error) if error.errno() == libc::EPERM && self.limited_to_cpus => {
                Err(error).context("process scheduler can't be used together with AllowedCPUs")
            }
            result => result.context("error setting scheduler"),
        }
    }

    pub(super) fn describe(&self) -> String {
        let attributes = &self.attributes;
        let policy = POLICIES[attributes.policy as usize].0;
        let mut text = policy.to_owned();
        match policy {
            "SCHED_FIFO" | "SCHED_RR" => text += &format!(" priority {}", attributes.priority),
            "SCHED_DEADLINE" => {
                text += &format!(
                    " runtime {} deadline {} period {} (ns)",
                    attributes.runtime, attributes.deadline, attributes.period
                );
            }
            _ => text += &format!(" nice {}", attributes.nice),
        }
        for (name, _) in SCHEDULER_FLAGS.iter().filter(|(_, bit)| attributes.flags & bit != 0) {
            text.push(' ');
            text += name;
        }
        text
    }
}

/// What ioprio_set(2) will be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoPriority {
    pub(crate) class: i32,
    pub(crate) level: i32,
}

impl IoPriority {
    pub(super) fn plan(configured: &oci::IoPriority) -> Result<Self> {
        let level = configured.priority;
        if !(0..=7).contains(&level) {
            bail!("invalid ioPriority.Priority: {level}");
        }
        let Some(class) = value(&IO_CLASSES, &configured.class) else {
            bail!("invalid ioPriority.Class: {:?}", configured.class);
        };
        Ok(Self { class, level })
    }

    pub(super) fn apply(self) -> Result<()> {
        sys::process::set_io_priority(self.class, self.level).context("failed to set io priority")
    }

    pub(super) fn class_name(self) -> &'static str {
        IO_CLASSES.iter().find(|(_, class)| *class == self.class).map_or("", |(name, _)| name)
    }
}

/// The processors that a process joining a container runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    /// Before it enters the container's cgroup.
    pub(crate) initial: Option<IdSet>,
    /// After that.
    pub(crate) r#final: Option<IdSet>,
}

/// As many processors as any kernel can be built for. The kernel reads what it needs.
const EVERY_PROCESSOR: [u64; 128] = [u64::MAX; 128];

impl Affinity {
    pub(super) fn plan(configured: &oci::CpuAffinity) -> Result<Self> {
        Ok(Self {
            initial: IdSet::parse(&configured.initial).context("bad CPUAffinity.Initial")?,
            r#final: IdSet::parse(&configured.r#final).context("bad CPUAffinity.Final")?,
        })
    }

    pub(super) fn describe(&self) -> Option<String> {
        match (&self.initial, &self.r#final) {
            (None, None) => None,
            (Some(initial), None) => Some(format!("initial {initial}")),
            (None, Some(last)) => Some(format!("final {last}")),
            (Some(initial), Some(last)) => Some(format!("initial {initial}, final {last}")),
        }
    }

    /// Sets the initial affinity, if one is wanted.
    pub(crate) fn apply_initial(&self) -> Result<()> {
        match &self.initial {
            Some(set) => sys::process::set_affinity(0, set.words())
                .context("error setting initial CPU affinity"),
            None => Ok(()),
        }
    }

    /// Sets the final affinity. With neither given the affinity is that of the cgroup, not
    /// what our caller happens to be bound to; with only the initial one given it stays.
    pub(crate) fn apply_final(&self) -> Result<()> {
        match (&self.initial, &self.r#final) {
            (_, Some(set)) => sys::process::set_affinity(0, set.words())
                .context("error setting final CPU affinity"),
            (None, None) => {
                reset_affinity();
                Ok(())
            }
            (Some(_), None) => Ok(()),
        }
    }
}

/// Lets this process run on every processor that its cgroup allows, now and later. A
/// kernel or filter that refuses leaves it as it is: nothing was configured.
pub(crate) fn reset_affinity() {
    let _ = sys::process::set_affinity(0, &EVERY_PROCESSOR);
}

/// Starts a child that was just made on another processor than this one. The kernel queues
/// it behind us and moves it only after a while; until then the two would not overlap. The
/// child undoes it by [`reset_affinity`]. A host with one processor, or a refusal, leaves
/// things as they are.
pub(crate) fn place_elsewhere(pid: i32) {
    let (Ok(mut words), Ok(own)) = (sys::process::affinity(), sys::process::current_processor())
    else {
        return;
    };
    if let Some(word) = words.get_mut(own as usize / 64) {
        *word &= !(1 << (own % 64));
    }
    if words.iter().any(|word| *word != 0) {
        let _ = sys::process::set_affinity(pid, &words);
    }
}

/// What set_mempolicy(2) will be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    pub(crate) mode: i32,
    pub(crate) flags: i32,
    pub(crate) nodes: Option<IdSet>,
}

impl MemoryPolicy {
    pub(super) fn plan(configured: &oci::MemoryPolicy) -> Result<Self> {
        let Some(mode) = value(&MEMORY_MODES, &configured.mode) else {
            bail!("invalid memory policy mode {:?}", configured.mode);
        };
        let nodes = IdSet::parse(&configured.nodes)
            .with_context(|| format!("invalid memory policy nodes {:?}", configured.nodes))?;
        let mut flags = 0;
        for flag in &configured.flags {
            let Some(bit) = value(&MEMORY_FLAGS, flag) else {
                bail!("invalid memory policy flag {flag:?}");
            };
            flags |= bit;
        }
        match (mode, &nodes) {
            (DEFAULT | LOCAL, Some(nodes)) => {
                bail!("memory policy mode requires 0 nodes but got {nodes}")
            }
            (DEFAULT | LOCAL | PREFERRED, _) | (_, Some(_)) => {}
            (_, None) => bail!("memory policy mode requires at least one node but got 0"),
        }
        Ok(Self { mode, flags, nodes })
    }

    pub(super) fn apply(&self) -> Result<()> {
        let words = self.nodes.as_ref().map_or(&[][..], IdSet::words);
        sys::process::set_memory_policy(self.mode | self.flags, words)
            .context("error setting the memory policy")
    }

    pub(super) fn describe(&self) -> String {
        let mode = MEMORY_MODES.iter().find(|(_, mode)| *mode == self.mode);
        let mut text = mode.map_or("", |(name, _)| name).to_owned();
        for (name, _) in MEMORY_FLAGS.iter().filter(|(_, bit)| self.flags & bit != 0) {
            text.push(' ');
            text += name;
        }
        if let Some(nodes) = &self.nodes {
            text += &format!(" nodes {nodes}");
        }
        text
    }
}

/// The execution domain of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Personality {
    Linux,
    Linux32,
}

impl Personality {
    pub(super) fn plan(configured: &oci::Personality) -> Result<Self> {
        // The specification has no flags yet.
        ensure!(
            configured.flags.is_empty(),
            "unsupported personality flags {:?}: the specification has none",
            configured.flags
        );
        match configured.domain.as_str() {
            "LINUX" => Ok(Self::Linux),
            "LINUX32" => Ok(Self::Linux32),
            domain => bail!("invalid personality domain {domain}"),
        }
    }

    pub(super) fn apply(self) -> Result<()> {
        let persona = match self {
            Self::Linux => 0,
            Self::Linux32 => 8,
        };
        sys::process::set_personality(persona).context("error setting the personality")
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Linux => "LINUX",
            Self::Linux32 => "LINUX32",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(json: &str) -> Result<Scheduler> {
        Scheduler::plan(&serde_json::from_str(json).unwrap(), false)
    }

    #[test]
    fn policies_and_flags_have_the_kernels_numbers() {
        for (number, name) in (0..).zip(["OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE"])
        {
            let planned = scheduler(&format!(r#"{{"policy":"SCHED_{name}"}}"#)).unwrap();
            assert_eq!(planned.attributes.policy, number);
        }
        let planned = scheduler(
            r#"{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3,"flags":
                ["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_RECLAIM","SCHED_FLAG_DL_OVERRUN",
                 "SCHED_FLAG_KEEP_POLICY","SCHED_FLAG_KEEP_PARAMS","SCHED_FLAG_UTIL_CLAMP_MIN",
                 "SCHED_FLAG_UTIL_CLAMP_MAX"]}"#,
        )
        .unwrap();
        assert_eq!(planned.attributes.flags, 0x7f);
        let times = planned.attributes;
        assert_eq!((times.runtime, times.deadline, times.period), (1, 2, 3));
    }

    #[test]
    fn combinations_without_meaning_are_refused() {
        for (json, why) in [
            (r#"{"policy":""}"#, "scheduler policy is required"),
            (r#"{"policy":"FIFO"}"#, "invalid scheduler policy: FIFO"),
            (
                r#"{"policy":"SCHED_OTHER","nice":20}"#,
                "invalid scheduler.nice: 20 when scheduler.policy is SCHED_OTHER",
            ),
            (
                r#"{"policy":"SCHED_BATCH","nice":-21}"#,
                "invalid scheduler.nice: -21 when scheduler.policy is SCHED_BATCH",
            ),
            (
                r#"{"policy":"SCHED_IDLE","priority":1}"#,
                "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
            ),
            (r#"{"policy":"SCHED_RR","priority":-1}"#, "invalid scheduler.priority: -1"),
            (
                r#"{"policy":"SCHED_RR","period":1}"#,
                "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
            ),
            (r#"{"policy":"SCHED_RR","flags":["X"]}"#, "invalid scheduler flag: X"),
        ] {
            assert_eq!(scheduler(json).unwrap_err().to_string(), why, "{json}");
        }
        assert!(scheduler(r#"{"policy":"SCHED_FIFO","nice":99}"#).is_ok());
    }

    #[test]
    fn io_priorities() {
        let plan = |class: &str, priority| {
            IoPriority::plan(&oci::IoPriority { class: class.to_owned(), priority })
        };
        for (number, class) in [(1, "RT"), (2, "BE"), (3, "IDLE")] {
            let class = format!("IOPRIO_CLASS_{class}");
            assert_eq!(plan(&class, 7).unwrap(), IoPriority { class: number, level: 7 });
        }
        for (class, level, why) in [
            ("IOPRIO_CLASS_RT", 8, "invalid ioPriority.Priority: 8"),
            ("IOPRIO_CLASS_RT", -1, "invalid ioPriority.Priority: -1"),
            ("RT", 1, "invalid ioPriority.Class: \"RT\""),
            ("", 1, "invalid ioPriority.Class: \"\""),
        ] {
            assert_eq!(plan(class, level).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn memory_policies() {
        let plan = |mode: &str, nodes: &str, flags: &[&str]| {
            MemoryPolicy::plan(&oci::MemoryPolicy {
                mode: mode.to_owned(),
                nodes: nodes.to_owned(),
                flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            })
        };
        for (mode, number, nodes) in [
            ("MPOL_DEFAULT", libc::MPOL_DEFAULT, ""),
            ("MPOL_PREFERRED", libc::MPOL_PREFERRED, ""),
            ("MPOL_PREFERRED", libc::MPOL_PREFERRED, "1"),
            ("MPOL_BIND", libc::MPOL_BIND, "0-1"),
            ("MPOL_INTERLEAVE", libc::MPOL_INTERLEAVE, "0"),
            ("MPOL_LOCAL", libc::MPOL_LOCAL, ""),
            ("MPOL_PREFERRED_MANY", 5, "0"),
            ("MPOL_WEIGHTED_INTERLEAVE", 6, "0"),
        ] {
            assert_eq!(plan(mode, nodes, &[]).unwrap().mode, number, "{mode}");
        }
        let flags = ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"];
        assert_eq!(plan("MPOL_BIND", "0", &flags).unwrap().flags, 1 << 15 | 1 << 13);
        for (mode, nodes, flags, why) in [
            ("bind", "0", &[][..], "invalid memory policy mode \"bind\""),
            ("MPOL_LOCAL", "0-1", &[], "memory policy mode requires 0 nodes but got 0-1"),
            ("MPOL_BIND", "", &[], "memory policy mode requires at least one node but got 0"),
            ("MPOL_BIND", "0", &["F"], "invalid memory policy flag \"F\""),
            ("MPOL_BIND", "x", &[], "invalid memory policy nodes \"x\""),
        ] {
            assert_eq!(plan(mode, nodes, flags).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn personalities_have_no_flags() {
        let plan = |domain: &str, flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            Personality::plan(&oci::Personality { domain: domain.to_owned(), flags })
        };
        assert_eq!(plan("LINUX", &[]).unwrap(), Personality::Linux);
        assert_eq!(plan("LINUX32", &[]).unwrap(), Personality::Linux32);
        assert_eq!(plan("BSD", &[]).unwrap_err().to_string(), "invalid personality domain BSD");
        assert_eq!(
            plan("LINUX", &["X"]).unwrap_err().to_string(),
            "unsupported personality flags [\"X\"]: the specification has none"
        );
    }
}
