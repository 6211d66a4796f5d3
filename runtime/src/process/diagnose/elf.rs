//! As much of the ELF format as tells why the kernel would not load a file.

/// How every ELF file begins.
pub(super) const MAGIC: &[u8] = b"\x7fELF";

const PT_INTERP: u32 = 3;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

/// The longest path a loader can have (`PATH_MAX`).
const INTERPRETER_BYTES: u64 = 4096;

#[cfg(target_arch = "x86_64")]
const OURS: u16 = 62;
#[cfg(target_arch = "aarch64")]
const OURS: u16 = 183;
#[cfg(target_arch = "riscv64")]
const OURS: u16 = 243;
#[cfg(target_arch = "powerpc64")]
const OURS: u16 = 21;
#[cfg(target_arch = "s390x")]
const OURS: u16 = 22;
#[cfg(target_arch = "loongarch64")]
const OURS: u16 = 258;

/// What a container image's platform would call the machine.
fn machine_name(machine: u16) -> Option<&'static str> {
    Some(match machine {
        2 => "sparc",
        3 => "i386",
        4 => "m68k",
        8 => "mips",
        15 => "parisc",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        42 => "superh",
        43 => "sparc64",
        50 => "ia64",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        247 => "bpf",
        258 => "loongarch",
        _ => return None,
    })
}

/// This machine's name.
pub(super) fn our_machine() -> &'static str {
    machine_name(OURS).unwrap_or(std::env::consts::ARCH)
}

/// The fields of an ELF header that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Program {
    is_64_bit: bool,
    is_big_endian: bool,
    kind: u16,
    machine: u16,
    headers_offset: u64,
    header_bytes: u16,
    header_count: u16,
}

/// Reads numbers of either byte order at fixed places; `None` past the end.
#[derive(Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl Fields<'_> {
    fn number(self, at: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.is_big_endian {
            true => bytes.iter().fold(0, append),
            false => bytes.iter().rev().fold(0, append),
        })
    }

    fn half(self, at: usize) -> Option<u16> {
        self.number(at, 2).and_then(|number| u16::try_from(number).ok())
    }
}

impl Program {
    /// `None` when the header is not one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let is_64_bit = match bytes.get(4)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let is_big_endian = match bytes.get(5)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let fields = Fields { bytes, is_big_endian };
        let (offset_at, word, sizes_at) = if is_64_bit { (32, 8, 54) } else { (28, 4, 42) };
        Some(Self {
            is_64_bit,
            is_big_endian,
            kind: fields.half(16)?,
            machine: fields.half(18)?,
            headers_offset: fields.number(offset_at, word)?,
            header_bytes: fields.half(sizes_at)?,
            header_count: fields.half(sizes_at + 2)?,
        })
    }

    pub(super) fn is_ours(&self) -> bool {
        self.machine == OURS && self.is_big_endian == cfg!(target_endian = "big")
    }

    pub(super) fn same_machine(&self, other: &Self) -> bool {
        (self.machine, self.is_64_bit, self.is_big_endian)
            == (other.machine, other.is_64_bit, other.is_big_endian)
    }

    pub(super) fn is_executable(&self) -> bool {
        matches!(self.kind, ET_EXEC | ET_DYN)
    }

    /// The machine it is built for.
    pub(super) fn machine(&self) -> String {
        let order = match (self.machine, self.is_big_endian) {
            (8 | 183 | 40, true) => " (big endian)",
            (21, false) => " (little endian)",
            _ => "",
        };
        match machine_name(self.machine) {
            Some("riscv") => format!("riscv{}", if self.is_64_bit { 64 } else { 32 }),
            Some("loongarch") => format!("loongarch{}", if self.is_64_bit { 64 } else { 32 }),
            Some(name) => format!("{name}{order}"),
            None => format!("machine number {}", self.machine),
        }
    }

    /// The path of its dynamic loader, if it has one. `read` gives at most so many bytes at
    /// an offset of the file.
    pub(super) fn interpreter(
        &self,
        read: impl Fn(u64, usize) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let size = usize::from(self.header_bytes);
        let (offset_at, size_at, word) = if self.is_64_bit { (8, 32, 8) } else { (4, 16, 4) };
        if size < size_at + word {
            return None;
        }
        let table = read(self.headers_offset, size * usize::from(self.header_count))?;
        for header in table.chunks_exact(size) {
            let fields = Fields { bytes: header, is_big_endian: self.is_big_endian };
            if fields.number(0, 4)? != u64::from(PT_INTERP) {
                continue;
            }
            let length = fields.number(size_at, word)?.min(INTERPRETER_BYTES);
            let path = read(fields.number(offset_at, word)?, usize::try_from(length).ok()?)?;
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            return (!path.is_empty()).then(|| path.to_vec());
        }
        None
    }
}
