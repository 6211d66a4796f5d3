//! Random profiles, asked random questions.
//!
//! The program is compared with a direct reading of the profile. Where rules with several
//! actions match one call, that reading does not choose (the precedence has tests of its
//! own); whatever the program answers must then be one of those actions.

use std::collections::BTreeMap;

use hull_specs_oci::SeccompSyscall;
use hull_specs_oci::{Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOperator};

use super::machine::{Data, check, run};
use super::{AARCH64, ENOSYS, X32, X86, X86_64, compile_for, ret};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A value near the edges of what the profiles compare with.
    fn value(&mut self) -> u64 {
        const EDGES: [u64; 10] = [
            0,
            5,
            40,
            0x7e02_0000,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 5,
            1 << 63,
            0xffff_ffff_0000_0000,
            u64::MAX,
        ];
        self.pick(&EDGES).wrapping_add(self.next() % 3).wrapping_sub(1)
    }
}

struct Known {
    name: &'static str,
    /// On `x86_64`, x86, x32 and aarch64.
    numbers: [u32; 4],
    /// On x86, through another call.
    multiplexed: Option<(u32, u64)>,
}

const fn known(name: &'static str, x86_64: u32, x86: u32, x32: u32, aarch64: u32) -> Known {
    Known { name, numbers: [x86_64, x86, X32 + x32, aarch64], multiplexed: None }
}

const CALLS: [Known; 9] = [
    known("read", 0, 3, 0, 63),
    known("write", 1, 4, 1, 64),
    known("ioctl", 16, 54, 514, 29),
    known("execve", 59, 11, 520, 221),
    known("clone", 56, 120, 56, 220),
    known("mseal", 462, 462, 462, 462),
    Known { multiplexed: Some((102, 1)), ..known("socket", 41, 359, 41, 198) },
    Known { multiplexed: Some((102, 3)), ..known("connect", 42, 362, 42, 203) },
    Known { multiplexed: Some((117, 23)), ..known("shmget", 29, 395, 29, 194) },
];

const ARCHES: [(SeccompArch, u32, bool); 4] = [
    (SeccompArch::X86_64, X86_64, true),
    (SeccompArch::X86, X86, false),
    (SeccompArch::X32, X86_64, false),
    (SeccompArch::Aarch64, AARCH64, true),
];

const OPERATORS: &[SeccompOperator] = SeccompOperator::ALL;

fn random_profile(random: &mut Random, one_action: bool) -> Seccomp {
    use SeccompAction::{Allow, Errno, Kill, KillProcess, Log, Trace, Trap};
    let actions = [Allow, Errno, Kill, KillProcess, Log, Trace, Trap];
    let only = random.pick(&actions);
    let mut profile = Seccomp {
        default_action: random.pick(&[Errno, Errno, Kill, Allow, Log, Trap]),
        default_errno_ret: None,
        architectures: Vec::new(),
        flags: None,
        listener_path: String::new(),
        listener_metadata: String::new(),
        syscalls: Vec::new(),
    };
    for (arch, _, _) in ARCHES {
        if random.below(2) == 0 {
            profile.architectures.push(arch);
        }
    }
    for _ in 0..random.below(10) {
        let names = (0..=random.below(3)).map(|_| random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8]));
        let names = names.map(|i| CALLS[i].name.to_owned()).collect();
        let conditions = random.pick(&[0, 0, 1, 1, 2, 3]);
        let args = (0..conditions).map(|_| SeccompArg {
            index: u32::try_from(random.pick(&[0, 0, 1, 2, 5])).unwrap(),
            value: random.value(),
            value_two: random.value(),
            op: random.pick(OPERATORS),
        });
        let args = args.collect();
        let action = if one_action { only } else { random.pick(&actions) };
        let errno = (action == Errno && random.below(2) == 0 && !one_action).then_some(7);
        profile.syscalls.push(SeccompSyscall { names, action, errno_ret: errno, args });
    }
    profile
}

fn returned(action: SeccompAction, errno: Option<u32>) -> u32 {
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => 0,
        SeccompAction::KillProcess => 0x8000_0000,
        SeccompAction::Trap => 0x0003_0000,
        SeccompAction::Errno => 0x0005_0000 + errno.unwrap_or(1),
        SeccompAction::Trace => 0x7ff0_0000 + errno.unwrap_or(1),
        SeccompAction::Notify => 0x7fc0_0000,
        SeccompAction::Log => 0x7ffc_0000,
        SeccompAction::Allow => 0x7fff_0000,
    }
}

fn holds(arg: &SeccompArg, args: &[u64; 6], bits: u64) -> bool {
    let (value, operand) = (args[arg.index as usize] & bits, arg.value & bits);
    match arg.op {
        SeccompOperator::NotEqual => value != operand,
        SeccompOperator::LessThan => value < operand,
        SeccompOperator::LessEqual => value <= operand,
        SeccompOperator::EqualTo => value == operand,
        SeccompOperator::GreaterEqual => value >= operand,
        SeccompOperator::GreaterThan => value > operand,
        SeccompOperator::MaskedEqual => value & operand == arg.value_two & operand,
    }
}

/// The answers that a profile allows to a question.
fn answers(profile: &Seccomp, data: &Data) -> Vec<u32> {
    let x32 = data.arch == X86_64 && data.number >= X32;
    let listed =
        |arch: &SeccompArch| *arch == SeccompArch::X86_64 || profile.architectures.contains(arch);
    let Some(column) = ARCHES.iter().position(|(name, audit, _)| {
        *audit == data.arch && (*name == SeccompArch::X32) == x32 && listed(name)
    }) else {
        return vec![ret::KILL_THREAD];
    };
    let (arch, _, wide) = ARCHES[column];
    let bits = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let multiplexed = |known: &Known| known.multiplexed.filter(|_| arch == SeccompArch::X86);
    let named = |entry: &SeccompSyscall| -> Vec<&Known> {
        let call = |name: &String| CALLS.iter().find(|known| known.name == *name).unwrap();
        entry.names.iter().map(call).collect()
    };

    let default = returned(profile.default_action, profile.default_errno_ret);
    if !matches!(
        profile.default_action,
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace
    ) {
        let newest = profile.syscalls.iter().flat_map(&named);
        let newest = newest.filter(|known| multiplexed(known).is_none());
        let newest = newest.map(|known| known.numbers[column]).max().unwrap_or(0);
        if newest != 0 && data.number > newest {
            return vec![ENOSYS];
        }
    }

    let mut found = Vec::new();
    for entry in &profile.syscalls {
        let action = returned(entry.action, entry.errno_ret);
        if action == default {
            continue;
        }
        let mut seen = std::collections::BTreeSet::new();
        let alternatives: Vec<Vec<&SeccompArg>> =
            if entry.args.iter().all(|arg| seen.insert(arg.index)) {
                vec![entry.args.iter().collect()]
            } else {
                entry.args.iter().map(|arg| vec![arg]).collect()
            };
        for known in named(entry) {
            let through = multiplexed(known)
                .filter(|(number, kind)| *number == data.number && *kind == data.args[0] & bits);
            let direct = known.numbers[column] == data.number;
            for conditions in &alternatives {
                let empty = |arg: &&&SeccompArg| {
                    arg.op == SeccompOperator::MaskedEqual && arg.value & bits == 0
                };
                if direct && conditions.iter().all(|arg| empty(&arg)) {
                    // The first such rule wins, whatever conditional ones came before.
                    return vec![action];
                }
                let holds = |arg: &&&SeccompArg| holds(arg, &data.args, bits);
                if (direct && conditions.iter().all(|arg| holds(&arg)))
                    || (through.is_some()
                        && conditions.iter().filter(|arg| arg.index != 0).all(|arg| holds(&arg)))
                {
                    found.push(action);
                }
            }
        }
    }
    if found.is_empty() { vec![default] } else { found }
}

#[test]
fn programs_answer_as_their_profiles_read() {
    let mut random = Random(2);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..3000 {
        let profile = random_profile(&mut random, round % 3 != 0);
        let program = match compile_for(&profile, SeccompArch::X86_64, |_| true) {
            Ok(program) => program.instructions,
            Err(error) => {
                // Contradictions, which profiles with one action can't have.
                assert_eq!(round % 3, 0, "{error:#}");
                *counts.entry("refused").or_default() += 1;
                continue;
            }
        };
        check(&program);
        for _ in 0..60 {
            let column = random.below(ARCHES.len());
            let mut number = CALLS[random.below(CALLS.len())].numbers[column];
            match random.below(8) {
                0 => number = number.wrapping_add(1),
                1 => number = random.pick(&[102, 117, 470, X32 + 600, 3 * X32, u32::MAX - 1]),
                _ => {}
            }
            let mut data = Data { number, arch: ARCHES[column].1, args: [0; 6] };
            data.args.fill_with(|| random.value());
            if random.below(3) == 0 {
                data.args[0] = random.pick(&[1, 3, 23]);
            }
            let answer = run(&program, &data).0;
            let right = answers(&profile, &data);
            assert!(
                right.contains(&answer),
                "{answer:#x} is none of {right:#x?}\n{data:#x?}\n{}",
                serde_json::to_string(&profile).unwrap()
            );
            *counts.entry(if right.len() > 1 { "several" } else { "one" }).or_default() += 1;
        }
    }
    assert!(counts["one"] > 100_000 && counts["several"] > 2_000, "{counts:?}");
    assert!(counts["refused"] < 300, "{counts:?}");
}

#[test]
fn seccompiler_agrees_where_it_can_express_the_profile() {
    use seccompiler::{
        BpfProgram, SeccompAction as Action, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
        SeccompFilter, SeccompRule, TargetArch,
    };
    let mut random = Random(3);
    for _ in 0..300 {
        let mut profile = random_profile(&mut random, true);
        profile.architectures.clear();
        profile.default_action = SeccompAction::Allow;
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for entry in &mut profile.syscalls {
            entry.action = SeccompAction::Errno;
            let mut seen = std::collections::BTreeSet::new();
            entry.args.retain(|arg| seen.insert(arg.index));
            let conditions: Vec<_> = entry
                .args
                .iter()
                .map(|arg| {
                    let (op, value) = match arg.op {
                        SeccompOperator::NotEqual => (SeccompCmpOp::Ne, arg.value),
                        SeccompOperator::LessThan => (SeccompCmpOp::Lt, arg.value),
                        SeccompOperator::LessEqual => (SeccompCmpOp::Le, arg.value),
                        SeccompOperator::EqualTo => (SeccompCmpOp::Eq, arg.value),
                        SeccompOperator::GreaterEqual => (SeccompCmpOp::Ge, arg.value),
                        SeccompOperator::GreaterThan => (SeccompCmpOp::Gt, arg.value),
                        SeccompOperator::MaskedEqual => {
                            (SeccompCmpOp::MaskedEq(arg.value), arg.value_two)
                        }
                    };
                    let index = u8::try_from(arg.index).unwrap();
                    SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value).unwrap()
                })
                .collect();
            for name in &entry.names {
                let known = CALLS.iter().find(|known| known.name == *name).unwrap();
                let rules = rules.entry(i64::from(known.numbers[0])).or_default();
                // An empty list stands for a rule without conditions, whatever came before.
                if !conditions.is_empty() {
                    rules.push(SeccompRule::new(conditions.clone()).unwrap());
                }
            }
        }
        let unconditional: Vec<_> = profile
            .syscalls
            .iter()
            .filter(|entry| entry.args.is_empty())
            .flat_map(|entry| entry.names.clone())
            .collect();
        for known in &CALLS {
            if unconditional.iter().any(|name| name == known.name) {
                rules.insert(i64::from(known.numbers[0]), Vec::new());
            }
        }
        let filter = SeccompFilter::new(rules, Action::Allow, Action::Errno(1), TargetArch::x86_64);
        let theirs: BpfProgram = filter.unwrap().try_into().unwrap();
        let theirs: Vec<_> = theirs
            .iter()
            .map(|i| hull_runtime_sys::seccomp::sock_filter {
                code: i.code,
                jt: i.jt,
                jf: i.jf,
                k: i.k,
            })
            .collect();
        let ours = compile_for(&profile, SeccompArch::X86_64, |_| true).unwrap().instructions;
        for _ in 0..200 {
            let number = CALLS[random.below(CALLS.len())].numbers[0];
            let mut data = Data { number, arch: X86_64, args: [0; 6] };
            data.args.fill_with(|| random.value());
            assert_eq!(run(&ours, &data).0, run(&theirs, &data).0, "{data:?} {profile:?}");
        }
    }
}
