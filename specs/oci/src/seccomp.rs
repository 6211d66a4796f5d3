//! The `linux.seccomp` object of `config.json` (config-linux.md, Seccomp).
#![expect(
    missing_docs,
    reason = "fields and variants are the specification's own, documented there"
)]

use serde::{Deserialize, Serialize};

use crate::nullable;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    pub default_action: SeccompAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<SeccompArch>,
    /// Absent and empty are different requests: absent leaves the choice to the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<SeccompSyscall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SeccompAction {
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

impl SeccompAction {
    /// The name that the specification writes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "SCMP_ACT_KILL",
            Self::KillProcess => "SCMP_ACT_KILL_PROCESS",
            Self::KillThread => "SCMP_ACT_KILL_THREAD",
            Self::Trap => "SCMP_ACT_TRAP",
            Self::Errno => "SCMP_ACT_ERRNO",
            Self::Trace => "SCMP_ACT_TRACE",
            Self::Allow => "SCMP_ACT_ALLOW",
            Self::Log => "SCMP_ACT_LOG",
            Self::Notify => "SCMP_ACT_NOTIFY",
        }
    }

    /// Every value, in the order of the specification.
    pub const ALL: &[Self] = &[
        Self::Kill,
        Self::KillProcess,
        Self::KillThread,
        Self::Trap,
        Self::Errno,
        Self::Trace,
        Self::Allow,
        Self::Log,
        Self::Notify,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SeccompArch {
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64n32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64n32,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64le,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390x,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_M68K")]
    M68k,
    #[serde(rename = "SCMP_ARCH_SH")]
    Sh,
    #[serde(rename = "SCMP_ARCH_SHEB")]
    Sheb,
}

impl SeccompArch {
    /// The name that the specification writes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86 => "SCMP_ARCH_X86",
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Arm => "SCMP_ARCH_ARM",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Mips => "SCMP_ARCH_MIPS",
            Self::Mips64 => "SCMP_ARCH_MIPS64",
            Self::Mips64n32 => "SCMP_ARCH_MIPS64N32",
            Self::Mipsel => "SCMP_ARCH_MIPSEL",
            Self::Mipsel64 => "SCMP_ARCH_MIPSEL64",
            Self::Mipsel64n32 => "SCMP_ARCH_MIPSEL64N32",
            Self::Ppc => "SCMP_ARCH_PPC",
            Self::Ppc64 => "SCMP_ARCH_PPC64",
            Self::Ppc64le => "SCMP_ARCH_PPC64LE",
            Self::S390 => "SCMP_ARCH_S390",
            Self::S390x => "SCMP_ARCH_S390X",
            Self::Parisc => "SCMP_ARCH_PARISC",
            Self::Parisc64 => "SCMP_ARCH_PARISC64",
            Self::Riscv64 => "SCMP_ARCH_RISCV64",
            Self::Loongarch64 => "SCMP_ARCH_LOONGARCH64",
            Self::M68k => "SCMP_ARCH_M68K",
            Self::Sh => "SCMP_ARCH_SH",
            Self::Sheb => "SCMP_ARCH_SHEB",
        }
    }

    /// Every value, in the order of the specification.
    pub const ALL: &[Self] = &[
        Self::X86,
        Self::X86_64,
        Self::X32,
        Self::Arm,
        Self::Aarch64,
        Self::Mips,
        Self::Mips64,
        Self::Mips64n32,
        Self::Mipsel,
        Self::Mipsel64,
        Self::Mipsel64n32,
        Self::Ppc,
        Self::Ppc64,
        Self::Ppc64le,
        Self::S390,
        Self::S390x,
        Self::Parisc,
        Self::Parisc64,
        Self::Riscv64,
        Self::Loongarch64,
        Self::M68k,
        Self::Sh,
        Self::Sheb,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SeccompOperator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    LessThan,
    #[serde(rename = "SCMP_CMP_LE")]
    LessEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    EqualTo,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    GreaterThan,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl SeccompOperator {
    /// The name that the specification writes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotEqual => "SCMP_CMP_NE",
            Self::LessThan => "SCMP_CMP_LT",
            Self::LessEqual => "SCMP_CMP_LE",
            Self::EqualTo => "SCMP_CMP_EQ",
            Self::GreaterEqual => "SCMP_CMP_GE",
            Self::GreaterThan => "SCMP_CMP_GT",
            Self::MaskedEqual => "SCMP_CMP_MASKED_EQ",
        }
    }

    /// Every value, in the order of the specification.
    pub const ALL: &[Self] = &[
        Self::NotEqual,
        Self::LessThan,
        Self::LessEqual,
        Self::EqualTo,
        Self::GreaterEqual,
        Self::GreaterThan,
        Self::MaskedEqual,
    ];
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompSyscall {
    #[serde(default, deserialize_with = "nullable")]
    pub names: Vec<String>,
    pub action: SeccompAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<SeccompArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompArg {
    pub index: u32,
    #[serde(default, deserialize_with = "nullable")]
    pub value: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub value_two: u64,
    pub op: SeccompOperator,
}
