//! One executable that makes many system calls, each in a process of its own, and tells
//! how each ended.
//!
//! What a seccomp filter answers is seen only by calling. A call may end its process,
//! block it for ever or change it, so each one has a child without descriptors, whose
//! alarm ends it after some seconds; all children run before the first is waited for.
//! Like [`SyscallProgram`](crate::SyscallProgram), the program makes no call of its own
//! that a usual profile denies.

use crate::syscall_program::{BASE, HEADERS_BYTES, executable};

/// By which entry, and with which table, the kernel is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The `syscall` instruction. Numbers with bit 30 are those of the x32 ABI.
    Native,
    /// `int 0x80`: the 32-bit table.
    Compat,
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The table.
    pub table: Table,
    /// The number in it.
    pub number: u64,
    /// The arguments; the 32-bit entry takes the lower halves.
    pub arguments: [u64; 6],
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned; 0 or an errno. A call that ends its process is among these.
    Returned(i32),
    /// A signal ended the process, SIGALRM for a call that did not come back.
    Signalled(i32),
    /// Neither: a tracer's stop, or a child that could not be made.
    Odd(u32),
}

/// A row of the program's table: number, arguments, table, pid, status; 8 bytes each.
const ROW_BYTES: usize = 80;
const NEVER_RAN: u32 = u32::MAX;
/// A call has not come back when so many seconds are over.
const PATIENCE_SECONDS: u32 = 3;

/// The executable for a list of calls. It writes what [`outcomes`] reads.
pub fn program(calls: &[Call]) -> Vec<u8> {
    // The table comes after the code, whose length does not depend on the address.
    let address = BASE + HEADERS_BYTES + code(calls.len(), 0).len() as u64;
    let mut image = code(calls.len(), address);
    for call in calls {
        let table = u64::from(call.table == Table::Compat);
        image.extend(call.number.to_le_bytes());
        image.extend(call.arguments.iter().flat_map(|word| word.to_le_bytes()));
        image.extend(table.to_le_bytes());
        image.extend(0_u64.to_le_bytes());
        image.extend(u64::from(NEVER_RAN).to_le_bytes());
    }
    executable(&image)
}

/// What the program wrote, in the order of its calls; `None` if that is not all of it.
pub fn outcomes(written: &[u8], calls: &[Call]) -> Option<Vec<Outcome>> {
    if written.len() != calls.len() * ROW_BYTES {
        return None;
    }
    let statuses = written.chunks_exact(ROW_BYTES).map(|row| {
        let status: [u8; 4] = row[ROW_BYTES - 8..ROW_BYTES - 4].try_into().ok()?;
        Some(outcome(u32::from_le_bytes(status)))
    });
    statuses.collect()
}

/// Reads a status of wait(2).
fn outcome(status: u32) -> Outcome {
    let (code, signal) = ((status >> 8 & 0xff).cast_signed(), (status & 0x7f).cast_signed());
    match signal {
        _ if status > 0xffff => Outcome::Odd(status),
        0 => Outcome::Returned(code),
        0x7f => Outcome::Odd(status),
        _ => Outcome::Signalled(signal),
    }
}

/// r12 is the row in hand, r13 counts down: the two that no entry changes.
fn code(rows: usize, table: u64) -> Vec<u8> {
    let row_bytes = u8::try_from(ROW_BYTES).expect("a row is small").to_le_bytes();
    let rewind = [&[0x49, 0xbc][..], &table.to_le_bytes(), &[0x49, 0xbd], &rows.to_le_bytes()];
    // add r12, row; dec r13; jnz back to the loop's beginning
    let repeat = |code: &mut Vec<u8>, start: usize| {
        code.extend([0x49, 0x83, 0xc4]);
        code.extend(row_bytes);
        code.extend([0x49, 0xff, 0xcd, 0x0f, 0x85]);
        let back = i32::try_from(code.len() + 4 - start).expect("the program is short");
        code.extend((-back).to_le_bytes());
    };
    let mut code = rewind.concat();

    let start = code.len();
    code.extend([0xb8, 57, 0, 0, 0, 0x0f, 0x05]); // fork
    code.extend([0x85, 0xc0]); // test eax, eax
    let child = child();
    code.extend([0x0f, 0x85]); // jnz: the parent goes on behind the child's part
    code.extend(u32::try_from(child.len()).expect("the child is short").to_le_bytes());
    code.extend(child);
    code.extend([0x49, 0x89, 0x44, 0x24, 64]); // mov [r12 + 64], rax: the pid
    repeat(&mut code, start);

    code.extend(rewind.concat());
    let start = code.len();
    code.extend([0xb8, 61, 0, 0, 0]); // mov eax, wait4
    code.extend([0x49, 0x8b, 0x7c, 0x24, 64]); // mov rdi, [r12 + 64]
    code.extend([0x49, 0x8d, 0x74, 0x24, 72]); // lea rsi, [r12 + 72]
    code.extend([0x31, 0xd2, 0x45, 0x31, 0xd2]); // no options, no usage
    code.extend([0x0f, 0x05]);
    repeat(&mut code, start);

    let bytes = (rows * ROW_BYTES) as u64;
    code.extend([0xb8, 1, 0, 0, 0]); // mov eax, write
    code.extend([0xbf, 1, 0, 0, 0]); // to standard output
    code.extend([&[0x48, 0xbe][..], &table.to_le_bytes()].concat());
    code.extend([&[0x48, 0xba][..], &bytes.to_le_bytes()].concat());
    code.extend([0x0f, 0x05]);
    code.extend([0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]); // exit_group(0)
    code
}

/// Makes the call of the row at r12 and exits with its errno. It does not use the stack,
/// which a call like clone may share out or take away.
fn child() -> Vec<u8> {
    // rdi rsi rdx r10 r8 r9, and ebx ecx edx esi edi ebp, from the row
    const NATIVE: [[u8; 4]; 6] = [
        [0x49, 0x8b, 0x7c, 0x24],
        [0x49, 0x8b, 0x74, 0x24],
        [0x49, 0x8b, 0x54, 0x24],
        [0x4d, 0x8b, 0x54, 0x24],
        [0x4d, 0x8b, 0x44, 0x24],
        [0x4d, 0x8b, 0x4c, 0x24],
    ];
    const COMPAT: [[u8; 4]; 6] = [
        [0x41, 0x8b, 0x5c, 0x24],
        [0x41, 0x8b, 0x4c, 0x24],
        [0x41, 0x8b, 0x54, 0x24],
        [0x41, 0x8b, 0x74, 0x24],
        [0x41, 0x8b, 0x7c, 0x24],
        [0x41, 0x8b, 0x6c, 0x24],
    ];
    let load = |code: &mut Vec<u8>, registers: &[[u8; 4]; 6]| {
        for (offset, register) in (8..).step_by(8).zip(registers) {
            code.extend(register);
            code.push(offset);
        }
        code.extend([0x49, 0x8b, 0x04, 0x24]); // mov rax, [r12]
    };
    let mut code = Vec::new();
    // The standard streams are the caller's files: nothing may be done to them.
    for descriptor in 0..3 {
        code.extend([0xbf, descriptor, 0, 0, 0, 0xb8, 3, 0, 0, 0, 0x0f, 0x05]); // close
    }
    code.push(0xbf); // mov edi, seconds
    code.extend(PATIENCE_SECONDS.to_le_bytes());
    code.extend([0xb8, 37, 0, 0, 0, 0x0f, 0x05]); // alarm
    let (mut native, mut compat) = (Vec::new(), Vec::new());
    load(&mut native, &NATIVE);
    native.extend([0x0f, 0x05]); // syscall
    load(&mut compat, &COMPAT);
    compat.extend([0xcd, 0x80, 0x48, 0x98]); // int 0x80; its errors are 32 bits wide: cdqe
    let jump = |over: &[u8]| i8::try_from(over.len()).expect("a call is short").cast_unsigned();
    native.extend([0xeb, jump(&compat)]); // jmp over the other one
    code.extend([0x41, 0x80, 0x7c, 0x24, 56, 0]); // cmp byte [r12 + 56], 0
    code.extend([0x75, jump(&native)]); // jne
    code.extend(native);
    code.extend(compat);
    code.extend([0x48, 0x89, 0xc7]); // mov rdi, rax
    code.extend([0x48, 0xf7, 0xdf]); // neg rdi
    code.extend([0x48, 0x81, 0xff, 0xff, 0x0f, 0, 0]); // cmp rdi, 4095
    code.extend([0x76, 0x03, 0x48, 0x31, 0xff]); // an errno, or zero
    code.extend([0xb8, 231, 0, 0, 0, 0x0f, 0x05]); // exit_group
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_program;
    use std::process::Command;

    fn run(calls: &[Call]) -> Vec<Outcome> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        write_program(&path, program(calls));
        outcomes(&Command::new(path).output().unwrap().stdout, calls).unwrap()
    }

    fn native(number: u64, first: u64) -> Call {
        Call { table: Table::Native, number, arguments: [first, 0, 0, 0, 0, 0] }
    }

    #[test]
    fn each_call_ends_in_its_own_way() {
        let calls = [
            native(39, 0),      // getpid
            native(3, 1),       // close, of a stream that is closed already
            native(60, 7),      // exit
            native(57, 0),      // fork: the child's child ends too
            native(34, 0),      // pause
            native(1 << 20, 0), // nothing
            native(110, 0),     // getppid
        ];
        let returned = Outcome::Returned;
        let expected = [
            returned(0),
            returned(9),
            returned(7),
            returned(0),
            Outcome::Signalled(14),
            returned(38),
            returned(0),
        ];
        assert_eq!(run(&calls), expected);
    }

    #[test]
    fn all_arguments_arrive() {
        // mmap of a page, whose last argument has to be a multiple of the page's size.
        let mmap = |offset| Call {
            table: Table::Native,
            number: 9,
            arguments: [0, 4096, 1, 0x22, u64::MAX, offset],
        };
        let outcomes = run(&[mmap(0), mmap(1)]);
        assert_eq!(outcomes, [Outcome::Returned(0), Outcome::Returned(22)]);
    }

    #[test]
    fn what_is_cut_short_is_noticed() {
        assert_eq!(outcomes(&[0; ROW_BYTES], &[native(1, 0), native(2, 0)]), None);
    }

    #[test]
    fn statuses_are_read() {
        assert_eq!(outcome(38 << 8), Outcome::Returned(38));
        assert_eq!(outcome(31), Outcome::Signalled(31));
        assert_eq!(outcome(0x80 | 31), Outcome::Signalled(31), "with a core");
        assert_eq!(outcome(NEVER_RAN), Outcome::Odd(NEVER_RAN));
        assert_eq!(outcome(5 << 8 | 0x7f), Outcome::Odd(5 << 8 | 0x7f));
    }
}
