//! The eBPF program that stands for an `Access` on cgroup v2: generated here, loaded by
//! `sys::bpf`.
//!
//! The kernel calls it with a `struct bpf_cgroup_dev_ctx` (access in the upper, kind in the
//! lower half of the first word, then major and minor) and refuses the access when it returns
//! 0. The program is a chain: each exception compares and returns, or falls through to the
//! next; at the end the default is returned.

use hull_runtime_sys::bpf::Instruction;

use super::{Access, Devices, Kind, Modes};

const LOAD_WORD: u8 = 0x61;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const MOVE_32_REGISTER: u8 = 0xbc;
const MOVE_32: u8 = 0xb4;
/// Compares the lower 32 bits (since 5.1): numbers above 2^31 don't sign-extend.
const JUMP_NOT_EQUAL_32: u8 = 0x56;
const JUMP_EQUAL_32: u8 = 0x16;
const JUMP_NOT_EQUAL_32_REGISTER: u8 = 0x5e;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
/// The context; free for other use once all of it is loaded.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const MODES: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

fn load(register: u8, offset: i16) -> Instruction {
    Instruction::new(LOAD_WORD, register, CONTEXT, offset, 0)
}

fn immediate(code: u8, register: u8, value: i32) -> Instruction {
    Instruction::new(code, register, 0, 0, value)
}

fn finish(allow: bool) -> [Instruction; 2] {
    [immediate(MOVE_32, RESULT, i32::from(allow)), Instruction::new(EXIT, 0, 0, 0, 0)]
}

/// The kernel's numbers for read, write and mknod.
fn kernel_modes(modes: Modes) -> i32 {
    [(Modes::MKNOD, 1), (Modes::READ, 2), (Modes::WRITE, 4)]
        .iter()
        .filter(|(bit, _)| modes.0 & bit != 0)
        .map(|(_, value)| value)
        .sum()
}

/// Generates the program.
pub(super) fn assemble(access: &Access) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, 0),
        immediate(AND_32, KIND, 0xffff),
        load(MODES, 0),
        immediate(SHIFT_RIGHT_32, MODES, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let allow = access.allows_by_default();
    for (devices, modes) in access.exceptions() {
        exception(&mut program, devices, *modes, allow);
    }
    program.extend(finish(allow));
    program
}

fn exception(program: &mut Vec<Instruction>, devices: &Devices, modes: Modes, default: bool) {
    let mut block = Vec::with_capacity(8);
    let kind = match devices.kind {
        Kind::Block => BPF_DEVCG_DEV_BLOCK,
        Kind::Char => BPF_DEVCG_DEV_CHAR,
    };
    block.push(immediate(JUMP_NOT_EQUAL_32, KIND, kind));
    if modes != Modes::ALL {
        block.push(Instruction::new(MOVE_32_REGISTER, CONTEXT, MODES, 0, 0));
        block.push(immediate(AND_32, CONTEXT, kernel_modes(modes)));
        if default {
            // A refusal of any of the modes refuses the whole access.
            block.push(immediate(JUMP_EQUAL_32, CONTEXT, 0));
        } else {
            // Permission must cover every mode of the access.
            block.push(Instruction::new(JUMP_NOT_EQUAL_32_REGISTER, CONTEXT, MODES, 0, 0));
        }
    }
    for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
        if let Some(number) = number {
            block.push(immediate(JUMP_NOT_EQUAL_32, register, number.cast_signed()));
        }
    }
    block.extend(finish(!default));
    // Every conditional jump of the block leads to the first instruction after it.
    let length = block.len();
    for (at, instruction) in block.iter_mut().enumerate() {
        if matches!(
            instruction.code(),
            JUMP_EQUAL_32 | JUMP_NOT_EQUAL_32 | JUMP_NOT_EQUAL_32_REGISTER
        ) {
            let distance = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
            *instruction = instruction.with_offset(distance);
        }
    }
    program.append(&mut block);
}

#[cfg(test)]
mod tests {
    use hull_specs_oci as oci;

    use super::*;
    use crate::cgroup::devices::evaluate;

    /// An access as the kernel asks about it; the same bits as the context's.
    #[derive(Clone, Copy, Debug)]
    struct Question {
        kind: i32,
        modes: i32,
        major: u32,
        minor: u32,
    }

    /// The subset of the kernel's machine that the program uses; anything else is a failure.
    fn run(program: &[Instruction], question: Question) -> bool {
        let context = [
            (question.modes << 16 | question.kind).cast_unsigned(),
            question.major,
            question.minor,
        ];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        for _ in 0..=program.len() {
            let i = program[at];
            let (to, from) = (usize::from(i.destination()), usize::from(i.source()));
            let value = i.immediate().cast_unsigned();
            let low = |register: u64| register as u32;
            at += 1;
            let jump = match i.code() {
                LOAD_WORD => {
                    assert_eq!(i.source(), CONTEXT);
                    let index = usize::try_from(i.offset()).expect("in the context") / 4;
                    registers[to] = context[index].into();
                    false
                }
                AND_32 => {
                    registers[to] = (low(registers[to]) & value).into();
                    false
                }
                SHIFT_RIGHT_32 => {
                    registers[to] = (low(registers[to]) >> value).into();
                    false
                }
                MOVE_32_REGISTER => {
                    registers[to] = low(registers[from]).into();
                    false
                }
                MOVE_32 => {
                    registers[to] = value.into();
                    false
                }
                JUMP_EQUAL_32 => low(registers[to]) == value,
                JUMP_NOT_EQUAL_32 => low(registers[to]) != value,
                JUMP_NOT_EQUAL_32_REGISTER => low(registers[to]) != low(registers[from]),
                EXIT => return registers[0] != 0,
                code => panic!("the program has the unknown instruction {code:#x}"),
            };
            if jump {
                at += usize::try_from(i.offset()).expect("only forward jumps end");
            }
        }
        panic!("the program does not end");
    }

    /// What the v1 controller answers: under deny, one exception must allow every mode; under
    /// allow, no exception may match any mode.
    fn expected(access: &Access, question: Question) -> bool {
        let matching = access.exceptions().iter().filter(|(devices, _)| {
            let kind = if devices.kind == Kind::Block { 1 } else { 2 };
            kind == question.kind
                && devices.major.is_none_or(|n| n == question.major)
                && devices.minor.is_none_or(|n| n == question.minor)
        });
        let mut modes = matching.map(|(_, modes)| kernel_modes(*modes));
        if access.allows_by_default() {
            !modes.any(|m| m & question.modes != 0)
        } else {
            modes.any(|m| m & question.modes == question.modes)
        }
    }

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> oci::DeviceRule {
        oci::DeviceRule {
            allow,
            kind: kind.to_owned(),
            major: Some(major),
            minor: Some(minor),
            access: access.to_owned(),
        }
    }

    /// A small deterministic generator: the cases are many, varied and the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((self.0 >> 33) % limit).expect("small")
        }
    }

    #[test]
    fn the_program_answers_as_the_rules_do() {
        let numbers = [0, 1, 3, 136, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
        let modes = ["r", "w", "m", "rw", "rm", "wm", "rwm"];
        let mut random = Numbers(1);
        let (mut questions, mut allowed) = (0u32, 0u32);
        for _ in 0..400 {
            let mut rules = Vec::new();
            for _ in 0..random.below(12) {
                let mut number = || {
                    let at = random.below(numbers.len() as u64 + 1);
                    numbers.get(at).copied().unwrap_or(-1)
                };
                let (major, minor) = (number(), number());
                let kind = ["b", "c", "c", "b", "a"][random.below(5)];
                let allow = random.below(3) > 0;
                rules.push(rule(allow, kind, major, minor, modes[random.below(7)]));
            }
            // Lists with a hole in a wildcard are refused, which another test checks.
            let Ok(access) = evaluate(&rules) else { continue };
            let program = assemble(&access);
            for kind in [1, 2] {
                for asked in 1..8 {
                    for major in numbers {
                        for minor in numbers {
                            let number = |n: i64| u32::try_from(n).expect("fits");
                            let question = Question {
                                kind,
                                modes: asked,
                                major: number(major),
                                minor: number(minor),
                            };
                            let answer = run(&program, question);
                            assert_eq!(
                                answer,
                                expected(&access, question),
                                "{rules:?} {question:?}"
                            );
                            questions += 1;
                            allowed += u32::from(answer);
                        }
                    }
                }
            }
        }
        assert!(
            questions > 100_000 && allowed > 1000 && allowed < questions,
            "{allowed}/{questions}"
        );
    }

    #[test]
    fn dockers_shape_allows_null_and_refuses_a_disk() {
        let rules = crate::cgroup::devices::rules(
            Some(&oci::Resources {
                devices: vec![rule(false, "a", -1, -1, "rwm")],
                ..Default::default()
            }),
            &[],
        );
        let program = assemble(&evaluate(&rules).expect("valid"));
        let ask = |kind, modes, major, minor| run(&program, Question { kind, modes, major, minor });
        assert!(ask(2, 6, 1, 3), "read and write /dev/null");
        assert!(!ask(1, 2, 8, 0), "read a disk");
        assert!(ask(1, 1, 8, 0), "make a disk's node");
        assert!(!ask(1, 3, 8, 0), "make and read at once");
        assert!(ask(2, 6, 136, 77), "a pseudo-terminal");
    }

    #[test]
    fn an_empty_list_refuses_everything() {
        let program = assemble(&Access::default());
        assert!(!run(&program, Question { kind: 2, modes: 2, major: 1, minor: 3 }));
    }
}
