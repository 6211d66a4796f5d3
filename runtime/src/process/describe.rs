//! The plan in words, for `explain`.

use serde::Serialize;

use super::{Plan, capabilities};

/// What the process will be, ready to print or to serialise.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    pub(crate) args: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) console_size: Option<String>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) umask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<CapabilitySets>,
    pub(crate) no_new_privileges: bool,
    pub(crate) limits: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oom_score_adj: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) apparmor_profile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) selinux_label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scheduler: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) io_priority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exec_affinity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) personality: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_policy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

/// The five sets, by name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CapabilitySets {
    pub(crate) bounding: Vec<String>,
    pub(crate) effective: Vec<String>,
    pub(crate) permitted: Vec<String>,
    pub(crate) inheritable: Vec<String>,
    pub(crate) ambient: Vec<String>,
}

fn limit(value: u64) -> String {
    if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() }
}

impl Plan {
    /// The plan in words. `HOME` from the container's `/etc/passwd` is not known yet.
    pub(crate) fn describe(&self) -> Description {
        let text = |text: &std::ffi::CString| text.to_string_lossy().into_owned();
        let mut environment: Vec<String> = self.environment.variables.iter().map(text).collect();
        if self.environment.needs_home {
            environment.push("HOME=(from /etc/passwd of the container, or /)".to_owned());
        }
        Description {
            args: self.args.iter().map(text).collect(),
            environment,
            cwd: text(&self.cwd),
            terminal: self.terminal,
            console_size: self.console_size.map(|s| format!("{} x {}", s.columns, s.rows)),
            uid: self.user.uid,
            gid: self.user.gid,
            groups: self.user.groups.clone(),
            umask: self.user.umask.map(|umask| format!("{umask:04o}")),
            capabilities: self.capabilities.map(|sets| CapabilitySets {
                bounding: capabilities::names(sets.bounding),
                effective: capabilities::names(sets.effective),
                permitted: capabilities::names(sets.permitted),
                inheritable: capabilities::names(sets.inheritable),
                ambient: capabilities::names(sets.ambient),
            }),
            no_new_privileges: self.no_new_privileges,
            limits: self
                .limits
                .iter()
                .map(|l| format!("{} soft {} hard {}", l.name(), limit(l.soft), limit(l.hard)))
                .collect(),
            oom_score_adj: self.oom_score_adj,
            apparmor_profile: self.apparmor_profile.clone(),
            selinux_label: self.selinux_label.clone(),
            scheduler: self.scheduler.map(|scheduler| scheduler.describe()),
            io_priority: self.io_priority.map(|p| format!("{} level {}", p.class_name(), p.level)),
            exec_affinity: self.affinity.describe(),
            personality: self.personality.map(|p| p.name().to_owned()),
            memory_policy: self.memory_policy.as_ref().map(|policy| policy.describe()),
            warnings: self.warnings.clone(),
        }
    }
}

/// One line, whatever a container's author put into it.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

impl Description {
    /// One line a fact.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: &str| lines.push(one_line(&format!("{name}: {value}")));
        match self.args.is_empty() {
            true => line("command", "none: start would fail"),
            false => line("command", &format!("{:?}", self.args)),
        }
        line("working directory", &self.cwd);
        line("user", &format!("{}:{}, groups {:?}", self.uid, self.gid, self.groups));
        line("umask", self.umask.as_deref().unwrap_or("0022 (default)"));
        for variable in &self.environment {
            line("environment", variable);
        }
        line("terminal", if self.terminal { "yes" } else { "no" });
        if let Some(size) = &self.console_size {
            line("terminal size", size);
        }
        match &self.capabilities {
            None => line("capabilities", "unchanged (none configured)"),
            Some(sets) => {
                for (name, set) in [
                    ("bounding", &sets.bounding),
                    ("effective", &sets.effective),
                    ("permitted", &sets.permitted),
                    ("inheritable", &sets.inheritable),
                    ("ambient", &sets.ambient),
                ] {
                    let shown = if set.is_empty() { "none".to_owned() } else { set.join(" ") };
                    line(&format!("capabilities, {name}"), &shown);
                }
            }
        }
        line("no new privileges", if self.no_new_privileges { "yes" } else { "no" });
        for limit in &self.limits {
            line("limit", limit);
        }
        if let Some(score) = self.oom_score_adj {
            line("out-of-memory score", &score.to_string());
        }
        for (name, value) in [
            ("AppArmor profile", &self.apparmor_profile),
            ("SELinux label", &self.selinux_label),
            ("scheduler", &self.scheduler),
            ("I/O priority", &self.io_priority),
            ("processors of an exec", &self.exec_affinity),
            ("personality", &self.personality),
            ("memory policy", &self.memory_policy),
        ] {
            if let Some(value) = value {
                line(name, value);
            }
        }
        for warning in &self.warnings {
            line("warning", warning);
        }
        lines
    }
}
