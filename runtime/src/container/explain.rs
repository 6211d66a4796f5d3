//! `explain`: what `create` and `start` would do with a bundle, from the plans that they
//! would act on. Nothing is made, and the log stays empty: warnings are part of the answer.
//!
//! A configuration that `create` refuses before it makes anything is refused here, with
//! the same words: the code is the same. What only the kernel can judge shows in `create`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hull_specs_oci::{self as oci, NamespaceKind};
use serde::Serialize;

use super::plan;
use crate::{cgroup, process, request::Global, resctrl, seccomp, spec};

/// Stands for the container's id, which a bundle does not hold.
const ID: &str = "ID";

/// The answer: printed as text by `Display`, as JSON by `Serialize`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    bundle: String,
    namespaces: Vec<Namespace>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uid_mappings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gid_mappings: Vec<String>,
    rootfs: Rootfs,
    devices: Vec<String>,
    process: process::Description,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<String>,
    cgroup: cgroup::Description,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<Seccomp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hooks: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: &'static str,
    /// `new`, `joined` or `host`: the runtime's own.
    source: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
}

#[derive(Debug, Serialize)]
struct Rootfs {
    path: String,
    /// One operation each, in order.
    steps: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    binds: Vec<Bind>,
}

/// A bind mount whose source is another name for something, or nothing.
#[derive(Debug, Serialize)]
struct Bind {
    destination: String,
    source: String,
    /// Without symbolic links; `None` if it is not there.
    resolved: Option<String>,
}

#[derive(Debug, Serialize)]
struct Seccomp {
    #[serde(flatten)]
    summary: seccomp::Summary,
    /// The length of the filter.
    instructions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
}

#[derive(Debug, Serialize)]
struct Hook {
    kind: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_s: Option<i64>,
}

/// Explains a bundle.
pub(crate) fn explain(global: &Global, bundle: &Path) -> Result<Explanation> {
    let (_, spec) = spec::read(&bundle.join("config.json"))?;
    let id = ID.parse().context("ID is an id")?;
    let plans = plan::plan(global, bundle, &id, &spec, false)?;
    let mut process = process::plan_first(spec.process.as_ref(), spec.linux.as_ref())?;
    process.check_host()?;
    if !plans.namespaces.has(NamespaceKind::User) {
        process.drop_ungrantable_capabilities()?;
    }
    let default = oci::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    let rules = cgroup::device_rules(linux.resources.as_ref(), &linux.devices);
    let wanted = cgroup::Wanted {
        resources: linux.resources.as_ref(),
        devices: (!plan::in_user_namespace()).then_some(rules.as_slice()),
        owner_uid: plan::owner_of_cgroup(&spec, linux),
    };
    let cgroup = cgroup::describe(&plans.location, &wanted)?;

    let mut warnings = plans.warnings;
    warnings.extend(plans.rootfs.warnings.iter().cloned());
    warnings.append(&mut process.warnings);
    let program = plans.seccomp.as_ref();
    warnings.extend(program.iter().flat_map(|program| program.warnings.iter().cloned()));
    let rootfs = rootfs(&plans.rootfs, &mut warnings);
    if linux.cgroups_path.is_empty() {
        warnings.push(format!("no cgroupsPath: {ID} below stands for the container's id"));
    }
    let listener = linux.seccomp.as_ref().map(|profile| profile.listener_path.clone());
    Ok(Explanation {
        bundle: bundle.display().to_string(),
        namespaces: namespaces(linux),
        uid_mappings: mappings(&linux.uid_mappings),
        gid_mappings: mappings(&linux.gid_mappings),
        devices: plans.rootfs.device_files(),
        rootfs,
        process: process.describe(),
        settings: settings(&spec, linux)
            .into_iter()
            .chain(plans.rdt.iter().flat_map(resctrl::Plan::describe))
            .collect(),
        cgroup,
        seccomp: linux.seccomp.as_ref().zip(program).map(|(profile, program)| Seccomp {
            summary: seccomp::summarize(profile),
            instructions: program.instructions.len(),
            listener: listener.filter(|_| program.notify),
        }),
        hooks: hooks(&spec.hooks.unwrap_or_default()),
        warnings,
    })
}

fn namespaces(linux: &oci::Linux) -> Vec<Namespace> {
    NamespaceKind::ALL
        .iter()
        .map(|kind| {
            let configured = linux.namespaces.iter().find(|namespace| namespace.kind == *kind);
            let path = configured.map_or("", |namespace| namespace.path.as_str());
            let source = match configured {
                None => "host",
                Some(_) if path.is_empty() => "new",
                Some(_) => "joined",
            };
            Namespace { kind: kind.as_str(), source, path: path.to_owned() }
        })
        .collect()
}

fn mappings(mappings: &[oci::IdMapping]) -> Vec<String> {
    let last = |start: u32, size: u32| u64::from(start) + u64::from(size.saturating_sub(1));
    mappings
        .iter()
        .map(|m| {
            format!(
                "{}-{} in the container are {}-{} on the host",
                m.container_id,
                last(m.container_id, m.size),
                m.host_id,
                last(m.host_id, m.size)
            )
        })
        .collect()
}

fn rootfs(plan: &crate::rootfs::Plan, warnings: &mut Vec<String>) -> Rootfs {
    // What is not there now may be there when `create` runs, so it is only told.
    let mut resolve = |what: &str, path: &Path| -> Option<PathBuf> {
        match fs::canonicalize(path) {
            Ok(resolved) => Some(resolved),
            Err(error) => {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => "does not exist".to_owned(),
                    _ => format!("cannot be resolved: {error}"),
                };
                warnings.push(format!("{what} {} {why}: create would fail", path.display()));
                None
            }
        }
    };
    resolve("the root", &plan.root);
    let binds = plan
        .binds()
        .map(|(source, destination)| Bind {
            destination: destination.display().to_string(),
            source: source.display().to_string(),
            resolved: resolve("the bind source", source).map(|path| path.display().to_string()),
        })
        .collect();
    Rootfs { path: plan.root.display().to_string(), steps: plan.describe(), binds }
}

/// What is set in the container beside mounts and process.
fn settings(spec: &oci::Spec, linux: &oci::Linux) -> Vec<String> {
    let mut settings = Vec::new();
    for (name, value) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if !value.is_empty() {
            settings.push(format!("{name} {value}"));
        }
    }
    settings.extend(linux.sysctl.iter().map(|(name, value)| format!("sysctl {name} = {value}")));
    settings.extend(linux.time_offsets.iter().map(|(clock, offset)| {
        format!("clock {clock} off by {} s {} ns", offset.secs, offset.nanosecs)
    }));
    settings.extend(linux.net_devices.iter().map(|(name, device)| {
        let inside = if device.name.is_empty() { name } else { &device.name };
        format!("network device {name} moves in as {inside}")
    }));
    settings
}

fn hooks(hooks: &oci::Hooks) -> Vec<Hook> {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    kinds
        .into_iter()
        .flat_map(|(kind, list)| {
            list.iter().map(move |hook| Hook {
                kind,
                path: hook.path.clone(),
                args: hook.args.clone(),
                timeout_s: hook.timeout,
            })
        })
        .collect()
}

/// Where and when the hooks of a kind run (config.md, POSIX-platform Hooks).
fn place(kind: &str) -> &'static str {
    match kind {
        "createContainer" => "in the container's namespaces, before its root is entered",
        "startContainer" => "in the container, before its program",
        "poststart" => "on the host, once the program runs",
        "poststop" => "on the host, once the container is deleted",
        _ => "on the host, once the namespaces are made",
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bundle {}", process::one_line(&self.bundle))?;
        let mut sections: Vec<(&str, Vec<String>)> = Vec::new();
        sections.push(("namespaces", self.namespaces.iter().map(Namespace::line).collect()));
        let ids = [("uids", &self.uid_mappings), ("gids", &self.gid_mappings)];
        let ids =
            ids.iter().flat_map(|(name, list)| list.iter().map(move |m| format!("{name} {m}")));
        sections.push(("id mappings", ids.collect()));
        let mut mounts = vec![format!("root {}", self.rootfs.path)];
        mounts.extend(self.rootfs.steps.iter().cloned());
        sections.push(("file system", mounts));
        sections.push(("bind sources", self.rootfs.binds.iter().map(Bind::line).collect()));
        sections.push(("device files", self.devices.clone()));
        sections.push(("settings", self.settings.clone()));
        sections.push(("process", self.process.lines()));
        sections.push(("cgroup", self.cgroup.lines()));
        let seccomp = match &self.seccomp {
            None => vec!["no filter: every system call reaches the kernel".to_owned()],
            Some(seccomp) => seccomp.lines(),
        };
        sections.push(("seccomp", seccomp));
        sections.push(("hooks", self.hooks.iter().map(Hook::line).collect()));
        sections.push(("warnings", self.warnings.clone()));
        for (title, lines) in sections {
            if lines.is_empty() {
                continue;
            }
            writeln!(f, "\n{title}")?;
            for line in lines {
                writeln!(f, "  {}", process::one_line(&line))?;
            }
        }
        Ok(())
    }
}

impl Namespace {
    fn line(&self) -> String {
        match self.source {
            "new" => format!("{}: a new one", self.kind),
            "joined" => format!("{}: joins {}", self.kind, self.path),
            _ => format!("{}: the host's", self.kind),
        }
    }
}

impl Bind {
    fn line(&self) -> String {
        let Self { destination, source, resolved } = self;
        match resolved {
            None => format!("{destination} is {source}, which cannot be found"),
            Some(resolved) if resolved == source => format!("{destination} is {source}"),
            Some(resolved) => format!("{destination} is {source}, which is {resolved}"),
        }
    }
}

impl Seccomp {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} ({} instructions)", self.summary, self.instructions)];
        lines.extend(self.listener.iter().map(|path| format!("notifications go to {path}")));
        lines
    }
}

impl Hook {
    fn line(&self) -> String {
        let mut line = format!("{} ({}): {}", self.kind, place(self.kind), self.path);
        if !self.args.is_empty() {
            line.push_str(&format!(" {:?}", self.args));
        }
        if let Some(timeout) = self.timeout_s {
            line.push_str(&format!(", at most {timeout} s"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global { root: "/nowhere".into(), systemd_cgroup: false, rootless: None }
    }

    fn bundle(change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
        let mut config = serde_json::json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {
                "cwd": "/", "args": ["sh"], "user": {"uid": 7, "gid": 8},
                "capabilities": {"bounding": ["CAP_KILL"]},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/etc/x", "type": "none", "source": "link", "options": ["bind", "ro"]},
            ],
            "hooks": {"poststop": [{"path": "/bin/true", "timeout": 3}]},
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"},
                               {"type": "network", "path": "/proc/self/ns/net"}],
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
                "cgroupsPath": "/explained",
                "maskedPaths": ["/proc/kcore"],
            },
        });
        change(&mut config);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rootfs")).unwrap();
        std::os::unix::fs::symlink("/etc/hosts", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        dir
    }

    #[test]
    fn text_and_json_say_the_same() {
        let dir = bundle(|_| ());
        let explanation = explain(&global(), dir.path()).unwrap();
        let text = explanation.to_string();
        for line in [
            "  pid: a new one",
            "  network: joins /proc/self/ns/net",
            "  ipc: the host's",
            "  user: 7:8, groups [8]",
            "  capabilities, bounding: CAP_KILL",
            "  mask /proc/kcore",
            "  poststop (on the host, once the container is deleted): /bin/true, at most 3 s",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in:\n{text}");
        }
        assert!(text.contains("/link, which is /etc/hosts"), "{text}");
        assert!(text.contains("/explained"), "{text}");
        assert!(text.contains("default SCMP_ACT_ALLOW"), "{text}");
        let json = serde_json::to_value(&explanation).unwrap();
        assert_eq!(json["namespaces"].as_array().unwrap().len(), 8);
        assert_eq!(json["rootfs"]["binds"][0]["resolved"], "/etc/hosts");
        assert_eq!(json["process"]["uid"], 7);
        assert_eq!(json["hooks"][0]["kind"], "poststop");
        assert!(json["seccomp"]["instructions"].as_u64().unwrap() > 0);
        assert!(json.get("warnings").is_none(), "{json}");
    }

    #[test]
    fn what_is_missing_on_the_host_is_told() {
        let dir = bundle(|config| {
            config["mounts"][1]["source"] = "/nowhere\n".into();
            config["root"]["path"] = "missing".into();
            config["linux"]["cgroupsPath"] = "".into();
        });
        let explanation = explain(&global(), dir.path()).unwrap();
        let text = explanation.to_string();
        assert!(text.contains("/missing does not exist: create would fail"), "{text}");
        assert!(text.contains("the bind source /nowhere\\n does not exist"), "{text}");
        assert!(text.contains("ID below stands for the container's id"), "{text}");
    }

    #[test]
    fn what_create_refuses_is_refused() {
        let changes: [fn(&mut serde_json::Value); 3] = [
            |config| config["process"]["cwd"] = "relative".into(),
            |config| config["linux"]["namespaces"][2]["path"] = "/nowhere".into(),
            |config| {
                config["linux"]["resources"] =
                    serde_json::json!({"devices": [{"allow": true, "access": "x"}]});
            },
        ];
        for change in changes {
            let dir = bundle(change);
            assert!(explain(&global(), dir.path()).is_err());
        }
    }
}
