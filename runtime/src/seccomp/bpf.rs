//! Classic BPF, written from its end to its beginning.
//!
//! A jump of classic BPF goes forward and a conditional one at most 255 instructions far.
//! Written backwards, every target exists before the jump to it, so that a distance is
//! known when it is needed and a target too far away is brought near by one instruction.

use anyhow::{Result, bail};
use hull_runtime_sys::seccomp::sock_filter;

/// The kernel's `BPF_MAXINSNS`.
const MOST_INSTRUCTIONS: usize = 4096;
/// The farthest conditional jump, less room for two instructions that bring targets near.
const NEAR: usize = 255 - 2;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// The offset of a half of an argument.
pub(super) fn argument(index: u32, high: bool) -> u32 {
    let second = high == cfg!(target_endian = "little");
    16 + index * 8 + if second { 4 } else { 0 }
}

/// An instruction that is already there, by its distance from the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A condition on the accumulator.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal(u32),
    Greater(u32),
    GreaterEqual(u32),
}

/// A program that grows towards its beginning.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// In reverse.
    instructions: Vec<sock_filter>,
    /// The latest instruction that returns each action.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self { instructions: Vec::with_capacity(1024), returns: Vec::with_capacity(8) }
    }

    /// Returns an action.
    pub(super) fn ret(&mut self, action: u32) -> Label {
        let known = self.returns.iter().position(|(known, _)| *known == action);
        if let Some((_, label)) = known.map(|i| self.returns[i])
            && self.distance(label) <= NEAR / 2
        {
            return label;
        }
        let label = self.push(RETURN, action);
        match known {
            Some(i) => self.returns[i].1 = label,
            None => self.returns.push((action, label)),
        }
        label
    }

    /// Loads a word of `struct seccomp_data`, then goes on with the instruction written last.
    pub(super) fn load(&mut self, offset: u32) -> Label {
        self.push(LOAD, offset)
    }

    /// Masks the accumulator, then goes on with the instruction written last.
    pub(super) fn mask(&mut self, mask: u32) -> Label {
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask)
    }

    /// Goes on with `label`, wherever it is.
    pub(super) fn continue_with(&mut self, label: Label) {
        if self.distance(label) != 0 {
            self.repeat(label);
        }
    }

    /// Goes to one of two places.
    pub(super) fn branch(&mut self, test: Test, mut yes: Label, mut no: Label) -> Label {
        if self.distance(no) > NEAR {
            no = self.bring_near(no);
        }
        if self.distance(yes) > NEAR {
            yes = self.bring_near(yes);
        }
        let (code, k) = match test {
            Test::Equal(k) => (libc::BPF_JEQ, k),
            Test::Greater(k) => (libc::BPF_JGT, k),
            Test::GreaterEqual(k) => (libc::BPF_JGE, k),
        };
        let (jt, jf) = (self.distance(yes), self.distance(no));
        let label = self.push(libc::BPF_JMP | code | libc::BPF_K, k);
        if let Some(jump) = self.instructions.last_mut() {
            (jump.jt, jump.jf) = (narrow(jt), narrow(jf));
        }
        label
    }

    /// The program in its order.
    pub(super) fn finish(mut self) -> Result<Vec<sock_filter>> {
        if self.instructions.len() > MOST_INSTRUCTIONS {
            bail!(
                "seccomp profile needs {} instructions, and the kernel takes {MOST_INSTRUCTIONS}",
                self.instructions.len()
            );
        }
        self.instructions.reverse();
        Ok(self.instructions)
    }

    /// How many instructions lie between the next one to be written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.instructions.len() - label.0
    }

    /// A place that does what `label` does, but near.
    fn bring_near(&mut self, label: Label) -> Label {
        let target = self.instructions[label.0 - 1];
        if u32::from(target.code) == RETURN { self.ret(target.k) } else { self.repeat(label) }
    }

    /// Does what `label` does: by the same instruction if that returns, else by a jump,
    /// which reaches any distance.
    fn repeat(&mut self, label: Label) -> Label {
        let target = self.instructions[label.0 - 1];
        if u32::from(target.code) == RETURN {
            return self.push(RETURN, target.k);
        }
        let distance = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
        self.push(JUMP, distance)
    }

    fn push(&mut self, code: u32, k: u32) -> Label {
        #[expect(clippy::cast_possible_truncation, reason = "opcodes are 16 bits wide")]
        self.instructions.push(sock_filter { code: code as u16, jt: 0, jf: 0, k });
        Label(self.instructions.len())
    }
}

fn narrow(distance: usize) -> u8 {
    u8::try_from(distance).expect("targets beyond 255 instructions were brought near")
}
