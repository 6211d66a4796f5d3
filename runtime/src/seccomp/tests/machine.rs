//! The kernel's side: what it checks before it takes a filter, and how it runs one.

use hull_runtime_sys::seccomp::sock_filter;

/// What a filter sees of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Data {
    pub(crate) number: u32,
    pub(crate) arch: u32,
    pub(crate) args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = [0_u8; 64];
        bytes[0..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.arch.to_ne_bytes());
        for (i, arg) in self.args.iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let at = offset as usize;
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// Refuses what the kernel refuses of the instructions used here; others are unknown.
pub(crate) fn check(program: &[sock_filter]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    for (at, i) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match i.code {
            0x20 => assert!(i.k < 64 && i.k % 4 == 0, "load of {} at {at}", i.k),
            0x54 | 0x06 => {}
            0x05 => assert!((i.k as usize) < left, "jump of {} at {at}", i.k),
            0x15 | 0x25 | 0x35 => {
                assert!(usize::from(i.jt.max(i.jf)) < left, "branch {i:?} at {at}");
            }
            code => panic!("instruction {code:#x} at {at}"),
        }
    }
    assert_eq!(program.last().unwrap().code, 0x06, "the last instruction must return");
}

/// Runs a filter: what it returns, and after how many instructions.
pub(crate) fn run(program: &[sock_filter], data: &Data) -> (u32, usize) {
    let mut at = 0;
    let mut accumulator = 0;
    for steps in 1.. {
        let i = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            0x20 => accumulator = data.word(i.k),
            0x54 => accumulator &= i.k,
            0x05 => at += i.k as usize,
            0x15 => branch(accumulator == i.k),
            0x25 => branch(accumulator > i.k),
            0x35 => branch(accumulator >= i.k),
            0x06 => return (i.k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
    unreachable!("a program that check() accepts only goes forward")
}
