//! The names of system calls and their numbers on each architecture.
//!
//! The facts come from the `syscalls` crate, corrected where libseccomp's tables (against
//! which profiles are written) differ. The compiler of Rust runs [`build`]: what ends up in
//! the binary is one hash table over all names and one column of 16-bit numbers an
//! architecture, without pointers, so that nothing needs relocating at start and only the
//! pages of the columns in use are ever read.

use syscalls::{
    aarch64, arm, loongarch64, mips, mips64, powerpc, powerpc64, riscv64, s390x, x86, x86_64,
};

use super::arch::X32_BIT;

/// A column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Riscv64,
    Loongarch64,
    Ppc,
    Ppc64,
    S390x,
    Mips,
    Mips64,
}

/// A name that some architecture knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name(u16);

const TABLES: usize = Table::Mips64 as usize + 1;
const NAMES: usize = 512;
const TEXT_BYTES: usize = 5120;
/// A power of two; at under two thirds full, a probe takes less than two steps.
const SLOTS: usize = 1024;
const NONE: u16 = u16::MAX;
/// ARM's private calls start at 0x0f0000. In a column they start here, far above the others.
const ARM_PRIVATE: u16 = 0xf000;
const ARM_PRIVATE_BASE: u32 = 0x000f_0000;

/// Calls newer than the crate's tables; since Linux 5.1 a new call has the same number
/// everywhere (on MIPS, counted from the ABI's base).
const NEWER: [(&str, u16); 2] = [("listns", 470), ("rseq_slice_yield", 471)];

/// Calls that x32 numbers differently from `x86_64`, because their arguments hold pointers
/// or longs in memory.
const X32_OWN: [(&str, u16); 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// Calls of `x86_64` that x32 does not have.
const X32_LACKS: [&str; 14] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
    "uretprobe",
    "uprobe",
    "map_shadow_stack",
];

/// Calls that the crate lists but the architecture's kernel does not have.
const LOONGARCH64_LACKS: [&str; 4] = ["renameat", "getrlimit", "setrlimit", "memfd_secret"];

const ARM_OWN: [(&str, u16); 6] = [
    ("breakpoint", ARM_PRIVATE + 1),
    ("cacheflush", ARM_PRIVATE + 2),
    ("usr26", ARM_PRIVATE + 3),
    ("usr32", ARM_PRIVATE + 4),
    ("set_tls", ARM_PRIVATE + 5),
    ("get_tls", ARM_PRIVATE + 6),
];

/// A system call that carries others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Multiplexer {
    Socketcall,
    Ipc,
}

/// The calls that 32-bit architectures once had only as the first argument of another one
/// (`linux/net.h` and `linux/ipc.h`).
const MULTIPLEXED: [(&str, u32, Multiplexer); 32] = {
    use Multiplexer::{Ipc, Socketcall};
    [
        ("socket", 1, Socketcall),
        ("bind", 2, Socketcall),
        ("connect", 3, Socketcall),
        ("listen", 4, Socketcall),
        ("accept", 5, Socketcall),
        ("getsockname", 6, Socketcall),
        ("getpeername", 7, Socketcall),
        ("socketpair", 8, Socketcall),
        ("send", 9, Socketcall),
        ("recv", 10, Socketcall),
        ("sendto", 11, Socketcall),
        ("recvfrom", 12, Socketcall),
        ("shutdown", 13, Socketcall),
        ("setsockopt", 14, Socketcall),
        ("getsockopt", 15, Socketcall),
        ("sendmsg", 16, Socketcall),
        ("recvmsg", 17, Socketcall),
        ("accept4", 18, Socketcall),
        ("recvmmsg", 19, Socketcall),
        ("sendmmsg", 20, Socketcall),
        ("semop", 1, Ipc),
        ("semget", 2, Ipc),
        ("semctl", 3, Ipc),
        ("semtimedop", 4, Ipc),
        ("msgsnd", 11, Ipc),
        ("msgrcv", 12, Ipc),
        ("msgget", 13, Ipc),
        ("msgctl", 14, Ipc),
        ("shmat", 21, Ipc),
        ("shmdt", 22, Ipc),
        ("shmget", 23, Ipc),
        ("shmctl", 24, Ipc),
    ]
};

struct Names {
    text: [u8; TEXT_BYTES],
    /// Where each name begins in `text`; the next one's beginning is its end.
    starts: [u16; NAMES + 1],
    slots: [u16; SLOTS],
    numbers: [[u16; NAMES]; TABLES],
    /// Index into [`MULTIPLEXED`], plus one.
    multiplexed: [u8; NAMES],
    count: usize,
}

static KNOWN: Names = build();

impl Name {
    /// Finds a name.
    pub(super) fn find(name: &str) -> Option<Self> {
        match KNOWN.find(name.as_bytes()) {
            Ok(index) => Some(Self(index)),
            Err(_) => None,
        }
    }

    /// The number on an architecture, as the kernel puts it into `seccomp_data.nr`.
    pub(super) fn number(self, table: Table) -> Option<u32> {
        match (KNOWN.numbers[table as usize][self.0 as usize], table) {
            (NONE, _) => None,
            (number, Table::X32) => Some(u32::from(number) | X32_BIT),
            (number @ ARM_PRIVATE.., Table::Arm) => {
                Some(u32::from(number - ARM_PRIVATE) + ARM_PRIVATE_BASE)
            }
            (number, _) => Some(u32::from(number)),
        }
    }

    /// The call that can carry this one, and its argument for it.
    pub(super) fn multiplexed(self) -> Option<(Multiplexer, u32)> {
        let place = usize::from(KNOWN.multiplexed[self.0 as usize]).checked_sub(1)?;
        let (_, call, multiplexer) = MULTIPLEXED[place];
        Some((multiplexer, call))
    }

    /// The name of a number; a search through the table, for messages.
    pub(super) fn of(table: Table, number: u32) -> Option<&'static str> {
        let name = (0..KNOWN.count)
            .filter_map(|index| u16::try_from(index).ok())
            .find(|&index| Self(index).number(table) == Some(number))?;
        std::str::from_utf8(KNOWN.name(name)).ok()
    }
}

impl Names {
    const fn name(&self, index: u16) -> &[u8] {
        let from = self.starts[index as usize] as usize;
        let to = self.starts[index as usize + 1] as usize;
        self.text.split_at(to).0.split_at(from).1
    }

    /// The index of a name, or else the free slot where it belongs.
    const fn find(&self, name: &[u8]) -> Result<u16, usize> {
        let mut slot = hash(name);
        loop {
            let index = self.slots[slot];
            if index == NONE {
                return Err(slot);
            }
            if equal(self.name(index), name) {
                return Ok(index);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    const fn set(&mut self, table: Table, name: &str, number: u16) {
        let name = name.as_bytes();
        let index = match self.find(name) {
            Ok(index) => index,
            Err(slot) => {
                let start = self.starts[self.count] as usize;
                let mut i = 0;
                while i < name.len() {
                    self.text[start + i] = name[i];
                    i += 1;
                }
                self.slots[slot] = self.count as u16;
                self.count += 1;
                self.starts[self.count] = (start + name.len()) as u16;
                self.slots[slot]
            }
        };
        self.numbers[table as usize][index as usize] = number;
    }

    const fn unset(&mut self, table: Table, name: &str) {
        if let Ok(index) = self.find(name.as_bytes()) {
            self.numbers[table as usize][index as usize] = NONE;
        }
    }
}

/// Fills a column with the crate's table.
macro_rules! fill {
    ($names:ident, $table:expr, $module:ident) => {
        let mut number = $module::Sysno::first().id();
        while number <= $module::Sysno::last().id() {
            if let Some(call) = $module::Sysno::new(number as usize) {
                let name = plain(call.name());
                if !placeholder(name) {
                    $names.set($table, name, number as u16);
                }
            }
            number += 1;
        }
    };
}

const fn build() -> Names {
    let mut names = Names {
        text: [0; TEXT_BYTES],
        starts: [0; NAMES + 1],
        slots: [NONE; SLOTS],
        numbers: [[NONE; NAMES]; TABLES],
        multiplexed: [0; NAMES],
        count: 0,
    };
    fill!(names, Table::X86, x86);
    fill!(names, Table::X86_64, x86_64);
    fill!(names, Table::X32, x86_64);
    fill!(names, Table::Arm, arm);
    fill!(names, Table::Aarch64, aarch64);
    fill!(names, Table::Riscv64, riscv64);
    fill!(names, Table::Loongarch64, loongarch64);
    fill!(names, Table::Ppc, powerpc);
    fill!(names, Table::Ppc64, powerpc64);
    fill!(names, Table::S390x, s390x);
    fill!(names, Table::Mips, mips);
    fill!(names, Table::Mips64, mips64);

    let mut i = 0;
    while i < NEWER.len() {
        let (name, number) = NEWER[i];
        let mut table = 0;
        while table < TABLES {
            names.set(EVERY[table], name, number + mips_base(EVERY[table]));
            table += 1;
        }
        i += 1;
    }
    i = 0;
    while i < X32_OWN.len() {
        names.set(Table::X32, X32_OWN[i].0, X32_OWN[i].1);
        i += 1;
    }
    i = 0;
    while i < X32_LACKS.len() {
        names.unset(Table::X32, X32_LACKS[i]);
        i += 1;
    }
    i = 0;
    while i < ARM_OWN.len() {
        names.set(Table::Arm, ARM_OWN[i].0, ARM_OWN[i].1);
        i += 1;
    }
    // The crate gives these two the generic table whole: with the calls for 32-bit
    // architectures with 64-bit time, and with the generic name of newfstatat.
    let mut number = 403;
    while number <= 423 {
        if let Some(call) = aarch64::Sysno::new(number) {
            names.unset(Table::Aarch64, call.name());
        }
        if let Some(call) = loongarch64::Sysno::new(number) {
            names.unset(Table::Loongarch64, call.name());
        }
        number += 1;
    }
    names.unset(Table::Aarch64, "fstatat");
    names.set(Table::Aarch64, "newfstatat", 79);
    names.unset(Table::Loongarch64, "fstatat");
    names.set(Table::Loongarch64, "newfstatat", 79);
    i = 0;
    while i < LOONGARCH64_LACKS.len() {
        names.unset(Table::Loongarch64, LOONGARCH64_LACKS[i]);
        i += 1;
    }
    names.set(Table::Mips64, "set_mempolicy_home_node", 5450);
    i = 0;
    while i < MULTIPLEXED.len() {
        if let Ok(index) = names.find(MULTIPLEXED[i].0.as_bytes()) {
            names.multiplexed[index as usize] = i as u8 + 1;
        }
        i += 1;
    }
    names
}

const EVERY: [Table; TABLES] = [
    Table::X86,
    Table::X86_64,
    Table::X32,
    Table::Arm,
    Table::Aarch64,
    Table::Riscv64,
    Table::Loongarch64,
    Table::Ppc,
    Table::Ppc64,
    Table::S390x,
    Table::Mips,
    Table::Mips64,
];

const fn mips_base(table: Table) -> u16 {
    match table {
        Table::Mips => 4000,
        Table::Mips64 => 5000,
        _ => 0,
    }
}

/// FNV-1a.
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize % SLOTS
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The crate writes names that are Rust's keywords as raw identifiers.
const fn plain(name: &'static str) -> &'static str {
    if starts_with(name, "r#") { name.split_at(2).1 } else { name }
}

/// MIPS's table names its holes.
const fn placeholder(name: &str) -> bool {
    starts_with(name, "unused") || starts_with(name, "reserved")
}

const fn starts_with(name: &str, prefix: &str) -> bool {
    name.len() >= prefix.len() && equal(name.as_bytes().split_at(prefix.len()).0, prefix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: Table, name: &str, number: impl Into<Option<u32>>) {
        let found = Name::find(name).and_then(|name| name.number(table));
        assert_eq!(found, number.into(), "{name} on {table:?}");
    }

    #[test]
    fn every_name_of_the_crates_native_tables_is_found() {
        for call in x86_64::Sysno::iter() {
            check(Table::X86_64, plain(call.name()), u32::try_from(call.id()).unwrap());
        }
        for call in x86::Sysno::iter() {
            check(Table::X86, plain(call.name()), u32::try_from(call.id()).unwrap());
        }
        for call in riscv64::Sysno::iter() {
            check(Table::Riscv64, plain(call.name()), u32::try_from(call.id()).unwrap());
        }
    }

    #[test]
    fn numbers_differ_where_architectures_do() {
        check(Table::X86, "socketcall", 102);
        check(Table::X86_64, "socketcall", None);
        check(Table::X86, "break", 17);
        check(Table::X32, "read", X32_BIT);
        check(Table::X32, "execve", X32_BIT + 520);
        check(Table::X32, "uselib", None);
        check(Table::X32, "map_shadow_stack", None);
        check(Table::X86_64, "map_shadow_stack", 453);
        check(Table::X86_64, "uselib", 134);
        check(Table::Arm, "cacheflush", 0x000f_0002);
        check(Table::Arm, "set_tls", 0x000f_0005);
        check(Table::Aarch64, "newfstatat", 79);
        check(Table::Aarch64, "fstatat", None);
        check(Table::Aarch64, "clock_gettime64", None);
        check(Table::Loongarch64, "renameat", None);
        check(Table::Mips, "reserved221", None);
        check(Table::Mips, "read", 4003);
        check(Table::Mips64, "listns", 5470);
        check(Table::S390x, "socketcall", 102);
        check(Table::X86_64, "nonsense", None);
        check(Table::X86_64, "", None);
    }

    #[test]
    fn calls_of_recent_kernels_are_known() {
        for (name, number) in [
            ("uretprobe", 335),
            ("fchmodat2", 452),
            ("map_shadow_stack", 453),
            ("statmount", 457),
            ("listmount", 458),
            ("lsm_get_self_attr", 459),
            ("mseal", 462),
            ("setxattrat", 463),
            ("open_tree_attr", 467),
            ("file_getattr", 468),
            ("file_setattr", 469),
            ("listns", 470),
        ] {
            check(Table::X86_64, name, number);
        }
    }

    #[test]
    fn the_capacities_leave_room_to_probe_and_are_not_wasteful() {
        assert!(KNOWN.count > NAMES - 30, "{}", KNOWN.count);
        let text = usize::from(KNOWN.starts[KNOWN.count]);
        assert!(text > TEXT_BYTES - 600, "{text}");
        let longest = (0..SLOTS).map(|start| {
            (0..SLOTS).take_while(|i| KNOWN.slots[(start + i) % SLOTS] != NONE).count()
        });
        assert!(longest.max() < Some(40));
    }

    #[test]
    fn every_multiplexed_call_is_known_as_such() {
        for (name, call, multiplexer) in MULTIPLEXED {
            let found = Name::find(name).and_then(Name::multiplexed);
            assert_eq!(found, Some((multiplexer, call)), "{name}");
        }
        assert_eq!(Name::find("read").and_then(Name::multiplexed), None);
    }

    #[test]
    fn a_number_leads_back_to_its_name() {
        assert_eq!(Name::of(Table::X86_64, 59), Some("execve"));
        assert_eq!(Name::of(Table::X32, X32_BIT + 520), Some("execve"));
        assert_eq!(Name::of(Table::X86_64, 9999), None);
    }
}
