//! From rules to a program: a dispatch on the architecture, then for each a binary search
//! over ranges of numbers with one outcome.

use std::borrow::Cow;

use anyhow::{Result, bail};
use hull_runtime_sys::seccomp::{ret, sock_filter};
use hull_specs_oci::{SeccompArch, SeccompOperator};

use super::{
    arch::{Arch, X32_BIT},
    bpf::{self, Assembler, Label, Test},
    names::Name,
    precedence::{Verdict, decide, half},
    profile::{Call, Condition, Profile, Rule},
};

const ENOSYS: u32 = ret::ERRNO | libc::ENOSYS.unsigned_abs();
/// What libseccomp does with calls of an architecture that the profile doesn't list.
const FOREIGN: u32 = ret::KILL_THREAD;

/// Architectures that the kernel tells apart by the number only (`x86_64` and x32), or one.
struct Section {
    audit: u32,
    members: Vec<Member>,
    hide_newer: bool,
    default_action: u32,
}

struct Member {
    arch: Arch,
    /// The highest number that the profile knows; 0 if none.
    newest: u32,
}

/// An outcome from a number on, up to the next range's start.
struct Range {
    start: u32,
    /// Index into the section's verdicts.
    verdict: usize,
}

/// Writes the program of a profile for the listed architectures; the first is the one whose
/// calls are found soonest.
pub(super) fn compile(
    profile: &Profile<'_>,
    architectures: &[SeccompArch],
    hide_newer: bool,
) -> Result<Vec<sock_filter>> {
    let mut sections: Vec<Section> = Vec::with_capacity(architectures.len());
    for &name in architectures {
        let arch = Arch::of(name)?;
        let member = Member { arch, newest: newest(&profile.calls, &arch) };
        match sections.iter_mut().find(|section| section.audit == arch.audit) {
            Some(section) if section.members.iter().any(|m| m.arch.name == name) => {}
            Some(section) => section.members.push(member),
            None => sections.push(Section {
                audit: arch.audit,
                members: vec![member],
                hide_newer,
                default_action: profile.default_action,
            }),
        }
    }
    let mut assembler = Assembler::new();
    let mut entries = Vec::with_capacity(sections.len());
    for section in sections.iter().rev() {
        entries.push((section.audit, section.write(profile, &mut assembler)?));
    }
    let mut start = assembler.ret(FOREIGN);
    for (audit, entry) in entries {
        start = assembler.branch(Test::Equal(audit), entry, start);
    }
    assembler.continue_with(start);
    assembler.load(bpf::ARCH);
    assembler.finish()
}

/// The highest number of an architecture among a profile's calls, as runc finds it: names
/// count whatever their action, but not names that the architecture multiplexes, because
/// libseccomp has only pseudo numbers for those.
fn newest(calls: &[Call], arch: &Arch) -> u32 {
    calls
        .iter()
        .filter_map(|call| call.name.number(arch.table).map(|number| (number, call)))
        .filter(|(_, call)| arch.multiplexed(call.name).is_none())
        .map(|(number, _)| number)
        .max()
        .unwrap_or(0)
}

impl Section {
    fn write(&self, profile: &Profile<'_>, assembler: &mut Assembler) -> Result<Label> {
        let mut verdicts = Vec::new();
        let mut decided = Vec::with_capacity(profile.calls.len() + 8);
        for member in &self.members {
            member.decide(profile, &mut verdicts, &mut decided)?;
        }
        decided.sort_unstable();
        let ranges = self.ranges(&decided, &mut verdicts);
        let mut labels = vec![None; verdicts.len()];
        let mut tree = Tree { section: self, assembler, verdicts: &verdicts, labels: &mut labels };
        let root = tree.search(&ranges);
        assembler.continue_with(root);
        Ok(assembler.load(bpf::NUMBER))
    }

    /// The whole of the numbers, cut where the outcome changes.
    fn ranges(&self, decided: &[(u32, usize)], verdicts: &mut Vec<Verdict>) -> Vec<Range> {
        let default = intern(verdicts, Verdict::Return(self.default_action));
        // Where the outcome may change without a rule.
        let mut cuts = vec![0];
        if self.shared() {
            cuts.extend([X32_BIT, 2 * X32_BIT, 3 * X32_BIT, u32::MAX]);
        }
        cuts.extend(self.members.iter().filter_map(|member| member.newest.checked_add(1)));
        cuts.extend(self.members.iter().filter(|m| m.setup_is_a_sign()).map(|_| 1));
        cuts.sort_unstable();

        let mut ranges: Vec<Range> = Vec::with_capacity(decided.len() + cuts.len() + 1);
        let mut cut = |start: u32, ruled: usize| {
            let verdict = match self.without_rules(start) {
                Outcome::Always(action) => intern(verdicts, Verdict::Return(action)),
                Outcome::Ruled => ruled,
            };
            // What followed the number before is known better now.
            ranges.pop_if(|last| last.start == start);
            if ranges.last().is_none_or(|last| last.verdict != verdict) {
                ranges.push(Range { start, verdict });
            }
        };
        let mut from = 0;
        for &(number, verdict) in decided {
            for &start in cuts.iter().filter(|start| (from..number).contains(start)) {
                cut(start, default);
            }
            cut(number, verdict);
            let Some(next) = number.checked_add(1) else { return ranges };
            cut(next, default);
            from = next;
        }
        for &start in cuts.iter().filter(|start| **start >= from) {
            cut(start, default);
        }
        ranges
    }

    /// What a number leads to before any rule is looked at.
    fn without_rules(&self, number: u32) -> Outcome {
        // First the guard that runc puts before the filter proper ...
        if self.hide_newer {
            let mode = self.members.iter().find(|member| {
                !self.shared() || (number & X32_BIT != 0) == (member.arch.name == SeccompArch::X32)
            });
            if let Some(member) = mode.filter(|member| member.newest != 0)
                && (number > member.newest || (number == 0 && member.setup_is_a_sign()))
            {
                return Outcome::Always(ENOSYS);
            }
        }
        // ... then the filter's own: one ABI does not cover the other, but a tracer's way
        // to skip a call, number -1, belongs to x86_64.
        if self.shared() {
            let abi = if number >= X32_BIT { SeccompArch::X32 } else { SeccompArch::X86_64 };
            let covered = self.members.iter().any(|member| member.arch.name == abi);
            let skipped = number == u32::MAX && self.members[0].arch.name == SeccompArch::X86_64;
            if !covered && !skipped {
                return Outcome::Always(FOREIGN);
            }
        }
        Outcome::Ruled
    }

    /// Whether this is the section that `x86_64` and x32 share.
    fn shared(&self) -> bool {
        matches!(self.members[0].arch.name, SeccompArch::X86_64 | SeccompArch::X32)
    }
}

enum Outcome {
    Always(u32),
    Ruled,
}

impl Member {
    /// s390 shows a call too new for its kernel as number 0 (setup), which nothing else
    /// has used for decades.
    fn setup_is_a_sign(&self) -> bool {
        matches!(self.arch.name, SeccompArch::S390 | SeccompArch::S390x)
    }

    /// Appends (number, verdict) for each call that has rules.
    fn decide(
        &self,
        profile: &Profile<'_>,
        verdicts: &mut Vec<Verdict>,
        decided: &mut Vec<(u32, usize)>,
    ) -> Result<()> {
        let mut rules: Vec<Cow<'_, Rule>> = Vec::with_capacity(profile.calls.len());
        // (number, index into `rules`): once sorted, the rules of a call are together and
        // in the profile's order.
        let mut order: Vec<(u32, usize)> = Vec::with_capacity(profile.calls.len());
        for call in &profile.calls {
            let (first, last) = call.rules;
            if first == last {
                continue;
            }
            if let Some((number, kind)) = self.arch.multiplexed(call.name) {
                for rule in &profile.rules[first..last] {
                    order.push((number, rules.len()));
                    rules.push(Cow::Owned(through_multiplexer(rule, kind)));
                }
            }
            if let Some(number) = call.name.number(self.arch.table) {
                for rule in &profile.rules[first..last] {
                    order.push((number, rules.len()));
                    rules.push(Cow::Borrowed(rule));
                }
            }
        }
        order.sort_unstable();
        let mut candidates: Vec<&Rule> = Vec::new();
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let number = group[0].0;
            candidates.clear();
            candidates.extend(group.iter().map(|&(_, rule)| &*rules[rule]));
            let Ok(verdict) = decide(&candidates, self.arch.wide) else {
                bail!(
                    "seccomp rules for {} on {} give different actions for the same arguments",
                    Name::of(self.arch.table, number).unwrap_or("a system call"),
                    self.arch.name.as_str()
                );
            };
            decided.push((number, intern(verdicts, verdict)));
        }
        Ok(())
    }
}

/// A rule for a call made through `socketcall` or `ipc`: which call it is takes the place
/// of the first argument.
fn through_multiplexer(rule: &Rule, kind: u32) -> Rule {
    let kind = Condition {
        index: 0,
        op: SeccompOperator::EqualTo,
        mask: u64::MAX,
        value: u64::from(kind),
    };
    let others = rule.conditions.iter().copied().filter(|condition| condition.index != 0);
    Rule { action: rule.action, conditions: std::iter::once(kind).chain(others).collect() }
}

/// The index of a verdict. Profiles have a few different ones, so that this is a short
/// search.
fn intern(verdicts: &mut Vec<Verdict>, verdict: Verdict) -> usize {
    verdicts.iter().position(|known| *known == verdict).unwrap_or_else(|| {
        verdicts.push(verdict);
        verdicts.len() - 1
    })
}

struct Tree<'a> {
    section: &'a Section,
    assembler: &'a mut Assembler,
    verdicts: &'a [Verdict],
    labels: &'a mut [Option<Label>],
}

impl Tree<'_> {
    /// A balanced search with the number in the accumulator.
    fn search(&mut self, ranges: &[Range]) -> Label {
        match ranges {
            [only] => self.verdict(only.verdict),
            // A single number among others.
            [before, one, after]
                if before.verdict == after.verdict && after.start - one.start == 1 =>
            {
                let yes = self.verdict(one.verdict);
                let no = self.verdict(before.verdict);
                self.assembler.branch(Test::Equal(one.start), yes, no)
            }
            _ => {
                let (below, above) = ranges.split_at(ranges.len() / 2);
                let pivot = above[0].start;
                let yes = self.search(above);
                let no = self.search(below);
                self.assembler.branch(Test::GreaterEqual(pivot), yes, no)
            }
        }
    }

    fn verdict(&mut self, index: usize) -> Label {
        let rules = match &self.verdicts[index] {
            Verdict::Return(action) => return self.assembler.ret(*action),
            Verdict::FirstOf(rules) => rules,
        };
        if let Some(label) = self.labels[index] {
            return label;
        }
        let mut next = self.assembler.ret(self.section.default_action);
        for rule in rules.iter().rev() {
            next = self.rule(rule, next);
        }
        self.labels[index] = Some(next);
        next
    }

    /// All conditions of a rule, then its action; or else `otherwise`.
    fn rule(&mut self, rule: &Rule, otherwise: Label) -> Label {
        let mut then = self.assembler.ret(rule.action);
        for condition in rule.conditions.iter().rev() {
            then = self.condition(condition, then, otherwise);
        }
        then
    }

    /// One comparison, with `yes` and `no` as its outcomes.
    fn condition(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        let (low, high) = (half(condition.value, false), half(condition.value, true));
        // What an architecture does not compare is no longer in the mask.
        let wide = half(condition.mask, true) != 0;
        let halves = Halves { index: condition.index, wide, low, high };
        match condition.op {
            SeccompOperator::EqualTo => self.equal(&halves, yes, no),
            SeccompOperator::NotEqual => self.equal(&halves, no, yes),
            SeccompOperator::GreaterThan => self.above(&halves, Test::Greater(low), yes, no),
            SeccompOperator::LessEqual => self.above(&halves, Test::Greater(low), no, yes),
            SeccompOperator::GreaterEqual => self.above(&halves, Test::GreaterEqual(low), yes, no),
            SeccompOperator::LessThan => self.above(&halves, Test::GreaterEqual(low), no, yes),
            SeccompOperator::MaskedEqual => self.masked(condition, yes, no),
        }
    }

    fn equal(&mut self, halves: &Halves, yes: Label, no: Label) -> Label {
        self.assembler.branch(Test::Equal(halves.low), yes, no);
        let label = self.load(halves.index, false);
        if !halves.wide {
            return label;
        }
        self.assembler.branch(Test::Equal(halves.high), label, no);
        self.load(halves.index, true)
    }

    /// Whether the argument is above the value; `test` decides between equal high halves.
    fn above(&mut self, halves: &Halves, test: Test, yes: Label, no: Label) -> Label {
        self.assembler.branch(test, yes, no);
        let label = self.load(halves.index, false);
        if !halves.wide {
            return label;
        }
        let label = self.assembler.branch(Test::Equal(halves.high), label, no);
        self.assembler.branch(Test::Greater(halves.high), yes, label);
        self.load(halves.index, true)
    }

    fn masked(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        let mut label = yes;
        for high in [false, true] {
            let mask = half(condition.mask, high);
            if mask == 0 {
                continue;
            }
            self.assembler.branch(Test::Equal(half(condition.value, high)), label, no);
            if mask != u32::MAX {
                self.assembler.mask(mask);
            }
            label = self.load(condition.index, high);
        }
        label
    }

    fn load(&mut self, index: u32, high: bool) -> Label {
        self.assembler.load(bpf::argument(index, high))
    }
}

struct Halves {
    index: u32,
    wide: bool,
    low: u32,
    high: u32,
}
