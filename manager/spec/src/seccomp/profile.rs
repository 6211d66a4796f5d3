//! Docker's profile format: the specification's, with `archMap`, `includes`, `excludes`, and `name`
//! for a single call.

use hull_specs_oci::{self as oci, SeccompAction, SeccompArch, SeccompArg};
use serde::{Deserialize, Deserializer};

use super::Facts;
use crate::error::{Error, Result, must};

/// The most bytes of a profile; docker's own has 20 thousand.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    #[serde(default, deserialize_with = "action")]
    default_action: Option<SeccompAction>,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    architectures: Vec<SeccompArch>,
    #[serde(default, deserialize_with = "nullable")]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable")]
    listener_path: String,
    #[serde(default, deserialize_with = "nullable")]
    listener_metadata: String,
    #[serde(default, deserialize_with = "nullable")]
    syscalls: Vec<Syscalls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: SeccompArch,
    #[serde(default, deserialize_with = "nullable")]
    sub_architectures: Vec<SeccompArch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscalls {
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    action: SeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<SeccompArg>,
    #[serde(default, deserialize_with = "nullable")]
    includes: Condition,
    #[serde(default, deserialize_with = "nullable")]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default, deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arches: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    min_kernel: String,
}

/// Go writes null for what is empty.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An empty action is none.
fn action<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SeccompAction>, D::Error> {
    use serde::de::{IntoDeserializer as _, value::StringDeserializer};
    match Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => {
            let text: StringDeserializer<D::Error> = text.into_deserializer();
            SeccompAction::deserialize(text).map(Some)
        }
    }
}

impl Profile {
    pub(super) fn parse(json: &str) -> Result<Self> {
        must!(json.len() <= MAX_BYTES, "Decoding seccomp profile failed: it is too long");
        serde_json::from_str(json)
            .map_err(|error| Error::new(format!("Decoding seccomp profile failed: {error}")))
    }

    pub(super) fn lower(self, facts: &Facts<'_>) -> Result<Option<oci::Seccomp>> {
        let Some(default_action) = self.default_action else {
            must!(self.syscalls.is_empty(), "the seccomp profile has no default action");
            return Ok(None);
        };
        must!(
            self.architectures.is_empty() || self.arch_map.is_empty(),
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
        );
        let native = native(facts.architecture);
        let mut architectures = self.architectures;
        let of_host = self.arch_map.into_iter().find(|map| Some(map.architecture) == native);
        if let Some(Architecture { architecture, sub_architectures }) = of_host {
            architectures.push(architecture);
            architectures.extend(sub_architectures);
        }
        let mut syscalls = Vec::with_capacity(self.syscalls.len());
        for rule in self.syscalls {
            must!(
                rule.name.is_empty() || rule.names.is_empty(),
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
            );
            let (includes, excludes) = (rule.includes.compile()?, rule.excludes.compile()?);
            if excludes.any(facts) || !includes.all(facts) {
                continue;
            }
            let names = if rule.name.is_empty() { rule.names } else { vec![rule.name] };
            let Syscalls { action, errno_ret, args, .. } = rule;
            syscalls.push(oci::SeccompSyscall { names, action, errno_ret, args });
        }
        Ok(Some(oci::Seccomp {
            default_action,
            default_errno_ret: self.default_errno_ret,
            architectures,
            flags: self.flags,
            listener_path: self.listener_path,
            listener_metadata: self.listener_metadata,
            syscalls,
        }))
    }
}

/// A condition with its kernel as numbers.
struct Compiled {
    caps: Vec<String>,
    arches: Vec<String>,
    kernel: Option<(u32, u32)>,
}

impl Condition {
    fn compile(self) -> Result<Compiled> {
        let version = &self.min_kernel;
        let parse = || {
            let (kernel, major) = version.split_once('.')?;
            Some((kernel.parse::<u32>().ok()?, major.parse::<u32>().ok()?))
                .filter(|version| *version != (0, 0))
        };
        let kernel = if version.is_empty() { None } else { parse() };
        must!(
            version.is_empty() || kernel.is_some(),
            "invalid kernel version: {version:?}, expected \"<kernel>.<major>\""
        );
        Ok(Compiled { caps: self.caps, arches: self.arches, kernel })
    }
}

impl Compiled {
    fn arch(&self, facts: &Facts<'_>) -> bool {
        let own = spoken(facts.architecture);
        self.arches.iter().any(|arch| arch == own)
    }

    /// All of it holds: an architecture of the list, each capability, the kernel.
    fn all(&self, facts: &Facts<'_>) -> bool {
        (self.arches.is_empty() || self.arch(facts))
            && self.caps.iter().all(|cap| facts.capabilities.contains(cap))
            && self.kernel.is_none_or(|version| facts.kernel >= version)
    }

    /// Any of it holds.
    fn any(&self, facts: &Facts<'_>) -> bool {
        self.arch(facts)
            || self.caps.iter().any(|cap| facts.capabilities.contains(cap))
            || self.kernel.is_some_and(|version| facts.kernel >= version)
    }
}

/// The name in conditions of what Go calls `goarch`.
fn spoken(goarch: &str) -> &str {
    match goarch {
        "386" => "x86",
        "mips64p32" => "mips64n32",
        "mips64le" => "mipsel64",
        "mips64p32le" => "mips3l64n32",
        "mipsle" => "mipsel",
        "loong64" => "loongarch64",
        other => other,
    }
}

fn native(goarch: &str) -> Option<SeccompArch> {
    Some(match goarch {
        "386" => SeccompArch::X86,
        "amd64" => SeccompArch::X86_64,
        "arm" => SeccompArch::Arm,
        "arm64" => SeccompArch::Aarch64,
        "loong64" => SeccompArch::Loongarch64,
        "mips64" => SeccompArch::Mips64,
        "mips64le" => SeccompArch::Mipsel64,
        "mipsle" => SeccompArch::Mipsel,
        "ppc64" => SeccompArch::Ppc64,
        "ppc64le" => SeccompArch::Ppc64le,
        "riscv64" => SeccompArch::Riscv64,
        "s390" => SeccompArch::S390,
        "s390x" => SeccompArch::S390x,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, caps: &[&str], kernel: (u32, u32)) -> Result<Option<oci::Seccomp>> {
        let capabilities: Vec<_> = caps.iter().map(|&cap| cap.to_owned()).collect();
        let facts = Facts { architecture: "amd64", kernel, capabilities: &capabilities };
        Profile::parse(json)?.lower(&facts)
    }

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": null,
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
            {"name": "write", "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["breakpoint"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}}]}"#;

    fn names(caps: &[&str], kernel: (u32, u32)) -> Vec<String> {
        of(PROFILE, caps, kernel)
            .unwrap()
            .unwrap()
            .syscalls
            .into_iter()
            .flat_map(|s| s.names)
            .collect()
    }

    #[test]
    fn conditions_are_dockers() {
        assert_eq!(names(&[], (6, 1)), ["read", "write", "ptrace", "clone3", "arch_prctl"]);
        assert_eq!(names(&["CAP_SYS_ADMIN"], (4, 7)), ["read", "write", "mount", "arch_prctl"]);
        let profile = of(PROFILE, &[], (6, 1)).unwrap().unwrap();
        assert_eq!(profile.architectures, [SeccompArch::X86_64, SeccompArch::X86]);
        assert_eq!(profile.default_errno_ret, Some(1));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(of("{}", &[], (6, 1)).unwrap(), None);
        for (json, error) in [
            ("", "Decoding seccomp profile failed"),
            (r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#, "Decoding seccomp profile failed"),
            (
                r#"{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "the seccomp profile has no default action",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "both 'name' and 'names'",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
                "both 'architectures' and 'archMap'",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5"}}]}"#,
                "invalid kernel version: \"5\"",
            ),
        ] {
            let found = of(json, &[], (6, 1)).unwrap_err().to_string();
            assert!(found.starts_with(error), "{json}: {found}");
        }
    }
}
