//! Executables that make one system call and nothing else.
//!
//! A seccomp profile is tried best by a program whose start-up makes no calls of its
//! own: these are ELF images of some hundred bytes, put together here, that make the
//! call, optionally write the 8 bytes of its result to standard output, and exit with
//! the errno (0 when there was none).

/// How the call enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// The `syscall` instruction.
    Native,
    /// `int 0x80`: the 32-bit table, whatever the program is.
    Compat,
}

/// An argument of the call.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A number.
    Number(u64),
    /// The address of these bytes, which are made part of the program.
    Bytes(Vec<u8>),
}

impl From<u64> for Argument {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Argument {
    /// A C string.
    fn from(text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        Self::Bytes(bytes)
    }
}

/// One system call, as a program.
#[derive(Clone, Debug)]
pub struct SyscallProgram {
    number: u64,
    arguments: Vec<Argument>,
    entry: Entry,
    reports: bool,
}

/// Where the image is mapped: below 4 GiB, so that 32-bit calls can point into it.
pub(crate) const BASE: u64 = 0x40_0000;
pub(crate) const HEADERS_BYTES: u64 = 64 + 56;

impl SyscallProgram {
    /// A call of the 64-bit table.
    pub fn new(number: u64) -> Self {
        Self { number, arguments: Vec::new(), entry: Entry::Native, reports: false }
    }

    /// A call of the 32-bit table, through the 32-bit entry.
    pub fn compat(number: u64) -> Self {
        Self { entry: Entry::Compat, ..Self::new(number) }
    }

    /// Adds an argument; those that are not given are 0.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Writes the result to standard output, in 8 bytes, least first.
    #[must_use]
    pub fn reporting(mut self) -> Self {
        self.reports = true;
        self
    }

    /// The executable's bytes.
    pub fn executable(&self) -> Vec<u8> {
        // The data comes after the code, whose length does not depend on the addresses.
        let code_bytes = self.code(0).len() as u64;
        let mut image = self.code(BASE + HEADERS_BYTES + code_bytes);
        for argument in &self.arguments {
            if let Argument::Bytes(bytes) = argument {
                image.extend(bytes);
            }
        }
        executable(&image)
    }

    fn code(&self, data_address: u64) -> Vec<u8> {
        // mov r64, imm64 for the number and each argument register in turn.
        const NATIVE: [[u8; 2]; 6] =
            [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
        const COMPAT: [[u8; 2]; 6] =
            [[0x48, 0xbb], [0x48, 0xb9], [0x48, 0xba], [0x48, 0xbe], [0x48, 0xbf], [0x48, 0xbd]];
        let (registers, enter) = match self.entry {
            Entry::Native => (NATIVE, [0x0f, 0x05]),
            Entry::Compat => (COMPAT, [0xcd, 0x80]),
        };
        let mut code = vec![0x48, 0xb8];
        code.extend(self.number.to_le_bytes());
        let mut address = data_address;
        for (index, register) in registers.iter().enumerate() {
            let value = match self.arguments.get(index) {
                None => 0,
                Some(Argument::Number(number)) => *number,
                Some(Argument::Bytes(bytes)) => {
                    let here = address;
                    address += bytes.len() as u64;
                    here
                }
            };
            code.extend(register);
            code.extend(value.to_le_bytes());
        }
        code.extend(enter);
        if self.entry == Entry::Compat {
            code.extend([0x48, 0x98]); // cdqe: errors of this entry are 32 bits wide
        }
        code.push(0x50); // push rax
        if self.reports {
            code.extend([0xb8, 1, 0, 0, 0]); // mov eax, write
            code.extend([0xbf, 1, 0, 0, 0]); // mov edi, standard output
            code.extend([0x48, 0x89, 0xe6]); // mov rsi, rsp
            code.extend([0xba, 8, 0, 0, 0]); // mov edx, 8
            code.extend([0x0f, 0x05]);
        }
        code.push(0x5f); // pop rdi
        code.extend([0x48, 0xf7, 0xdf]); // neg rdi
        code.extend([0x48, 0x81, 0xff, 0xff, 0x0f, 0, 0]); // cmp rdi, 4095
        code.extend([0x76, 0x03]); // an errno, or zero
        code.extend([0x48, 0x31, 0xff]); // xor rdi, rdi
        code.extend([0xb8, 231, 0, 0, 0]); // mov eax, exit_group
        code.extend([0x0f, 0x05]);
        code
    }
}

/// The executable whose memory from `BASE + HEADERS_BYTES` on is this, and begins there.
pub(crate) fn executable(image: &[u8]) -> Vec<u8> {
    let mut out = header();
    out.extend(program_header(HEADERS_BYTES + image.len() as u64));
    out.extend(image);
    out
}

fn header() -> Vec<u8> {
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(2_u16.to_le_bytes()); // an executable at fixed addresses
    out.extend(62_u16.to_le_bytes()); // x86-64
    out.extend(1_u32.to_le_bytes());
    out.extend((BASE + HEADERS_BYTES).to_le_bytes()); // entry
    out.extend(64_u64.to_le_bytes()); // program headers follow this one
    out.extend(0_u64.to_le_bytes()); // no sections
    out.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out
}

fn program_header(size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(1_u32.to_le_bytes()); // load
    out.extend(7_u32.to_le_bytes()); // read, write, execute: some calls answer in place
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(word.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_program;
    use std::process::Command;

    fn run(program: &SyscallProgram) -> std::process::Output {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        write_program(&path, program.executable());
        Command::new(path).output().unwrap()
    }

    #[test]
    fn a_call_that_works_exits_with_zero_and_reports_its_result() {
        let output = run(&SyscallProgram::new(39).reporting());
        assert_eq!(output.status.code(), Some(0));
        let pid = u64::from_le_bytes(output.stdout.try_into().unwrap());
        assert!(pid > 1);
    }

    #[test]
    fn a_call_that_fails_exits_with_its_errno() {
        // chdir of a path that is not there
        let output = run(&SyscallProgram::new(80).argument("/no/such/directory"));
        assert_eq!(output.status.code(), Some(2));
    }

    #[test]
    fn text_arguments_are_pointed_to() {
        let output = run(&SyscallProgram::new(1).argument(1).argument("hello").argument(5));
        assert_eq!(output.stdout, b"hello");
    }
}
