//! What the compiler must know of each architecture that a profile can name.

use anyhow::{Result, bail};
use hull_specs_oci::SeccompArch;

use super::names::{Multiplexer, Name, Table};

/// The bit that tells a system call of the x32 ABI from one of `x86_64`; seccomp sees both
/// under the same audit architecture.
pub(super) const X32_BIT: u32 = 1 << 30;

/// An architecture's facts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arch {
    pub(super) name: SeccompArch,
    /// `AUDIT_ARCH_*`, as the kernel puts it into `seccomp_data.arch`.
    pub(super) audit: u32,
    /// Whether arguments are compared as 64-bit values. x32 has 64-bit registers, but
    /// libseccomp treats it as a 32-bit architecture, and so do profiles written for it.
    pub(super) wide: bool,
    pub(super) table: Table,
    /// The numbers of `socketcall` and `ipc` where those carry the socket and System V IPC
    /// calls beside (or instead of) numbers of their own.
    pub(super) multiplexers: Option<(u32, u32)>,
}

/// The architecture this program was built for.
pub(super) const NATIVE: Option<SeccompArch> = if cfg!(target_arch = "x86_64") {
    Some(SeccompArch::X86_64)
} else if cfg!(target_arch = "x86") {
    Some(SeccompArch::X86)
} else if cfg!(target_arch = "aarch64") {
    Some(SeccompArch::Aarch64)
} else if cfg!(target_arch = "arm") {
    Some(SeccompArch::Arm)
} else if cfg!(target_arch = "riscv64") {
    Some(SeccompArch::Riscv64)
} else if cfg!(target_arch = "loongarch64") {
    Some(SeccompArch::Loongarch64)
} else if cfg!(target_arch = "s390x") {
    Some(SeccompArch::S390x)
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    Some(SeccompArch::Ppc64le)
} else if cfg!(target_arch = "powerpc64") {
    Some(SeccompArch::Ppc64)
} else if cfg!(target_arch = "powerpc") {
    Some(SeccompArch::Ppc)
} else {
    None
};

impl Arch {
    /// The facts of `name`.
    ///
    /// # Errors
    /// For an architecture without a table of system calls, and for one whose byte order
    /// differs from this machine's: a filter reads arguments by halves of machine words,
    /// so one program can't serve both orders.
    pub(super) fn of(name: SeccompArch) -> Result<Self> {
        let Some((arch, little_endian)) = facts(name) else {
            bail!("seccomp architecture {} has no table of system calls here", name.as_str());
        };
        if little_endian != cfg!(target_endian = "little") {
            bail!(
                "seccomp architecture {} has another byte order than this machine",
                name.as_str()
            );
        }
        Ok(arch)
    }

    /// The architectures that [`Arch::of`] accepts on this machine.
    pub(super) fn supported() -> impl Iterator<Item = SeccompArch> {
        SeccompArch::ALL.iter().copied().filter(|&name| Self::of(name).is_ok())
    }

    /// The number under which the call `name` is multiplexed here, and the first argument
    /// that stands for it.
    pub(super) fn multiplexed(&self, name: Name) -> Option<(u32, u32)> {
        let (socketcall, ipc) = self.multiplexers?;
        name.multiplexed().map(|(multiplexer, call)| match multiplexer {
            Multiplexer::Socketcall => (socketcall, call),
            Multiplexer::Ipc => (ipc, call),
        })
    }
}

/// The facts of an architecture, and whether it is little-endian.
fn facts(name: SeccompArch) -> Option<(Arch, bool)> {
    const LITTLE: bool = true;
    const BIG: bool = false;
    const WIDE: bool = true;
    const NARROW: bool = false;
    let direct = None;
    let usual = Some((102, 117));
    let (audit, wide, little_endian, table, multiplexers) = match name {
        SeccompArch::X86 => (0x4000_0003, NARROW, LITTLE, Table::X86, usual),
        SeccompArch::X86_64 => (0xc000_003e, WIDE, LITTLE, Table::X86_64, direct),
        SeccompArch::X32 => (0xc000_003e, NARROW, LITTLE, Table::X32, direct),
        SeccompArch::Arm => (0x4000_0028, NARROW, LITTLE, Table::Arm, direct),
        SeccompArch::Aarch64 => (0xc000_00b7, WIDE, LITTLE, Table::Aarch64, direct),
        SeccompArch::Riscv64 => (0xc000_00f3, WIDE, LITTLE, Table::Riscv64, direct),
        SeccompArch::Loongarch64 => (0xc000_0102, WIDE, LITTLE, Table::Loongarch64, direct),
        SeccompArch::Ppc => (0x0000_0014, NARROW, BIG, Table::Ppc, usual),
        SeccompArch::Ppc64 => (0x8000_0015, WIDE, BIG, Table::Ppc64, usual),
        SeccompArch::Ppc64le => (0xc000_0015, WIDE, LITTLE, Table::Ppc64, usual),
        SeccompArch::S390x => (0x8000_0016, WIDE, BIG, Table::S390x, usual),
        SeccompArch::Mips => (0x0000_0008, NARROW, BIG, Table::Mips, Some((4102, 4117))),
        SeccompArch::Mipsel => (0x4000_0008, NARROW, LITTLE, Table::Mips, Some((4102, 4117))),
        SeccompArch::Mips64 => (0x8000_0008, WIDE, BIG, Table::Mips64, direct),
        SeccompArch::Mipsel64 => (0xc000_0008, WIDE, LITTLE, Table::Mips64, direct),
        SeccompArch::Mips64n32
        | SeccompArch::Mipsel64n32
        | SeccompArch::S390
        | SeccompArch::Parisc
        | SeccompArch::Parisc64
        | SeccompArch::M68k
        | SeccompArch::Sh
        | SeccompArch::Sheb => return None,
    };
    Some((Arch { name, audit, wide, table, multiplexers }, little_endian))
}
