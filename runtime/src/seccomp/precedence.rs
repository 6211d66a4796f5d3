//! Which of several rules for one system call applies.
//!
//! The specification does not say; profiles are written against libseccomp, whose answer is
//! a tree that it builds as rules arrive. This module reproduces its outcome:
//!
//! - The first rule without conditions wins over all others, earlier and later.
//! - Among conditional rules the first that matches wins, in this order: by the half of an
//!   argument first compared, higher arguments before lower; equality before "less" before
//!   "greater"; then by value, largest first, but for "less" smallest first; then as listed.
//!   Rules that begin with the same comparison are ordered by what follows.
//! - A rule is dropped when an earlier one has the same conditions or their beginning. The
//!   other way round, with another action, libseccomp refuses the profile, and so do we.

use std::cmp::Reverse;

use hull_specs_oci::SeccompOperator;

use super::profile::{Condition, Rule};

/// What a system call leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Return(u32),
    /// Conditional rules, to be tried in order; without a match, the default action.
    FirstOf(Vec<Rule>),
}

/// Two rules give different actions for the same arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

/// Decides between the rules for one system call, given in the profile's order.
pub(super) fn decide(rules: &[&Rule], wide: bool) -> Result<Verdict, Conflict> {
    let unconditional =
        rules.iter().find(|rule| rule.conditions.iter().all(|c| c.mask & width(wide) == 0));
    if let Some(rule) = unconditional {
        return Ok(Verdict::Return(rule.action));
    }
    if let [rule] = rules {
        return Ok(Verdict::FirstOf(vec![effective(rule, wide)]));
    }
    let chains = rules.iter().map(|rule| Chain::of(effective(rule, wide), wide)).collect();
    let mut ordered = Vec::with_capacity(rules.len());
    arrange(chains, 0, &mut ordered)?;
    Ok(Verdict::FirstOf(ordered))
}

/// The rule as an architecture sees it: narrow ones compare the low halves only, and a
/// comparison under an empty mask is none.
fn effective(rule: &Rule, wide: bool) -> Rule {
    let width = width(wide);
    let conditions = rule
        .conditions
        .iter()
        .map(|c| Condition { mask: c.mask & width, value: c.value & width, ..*c })
        .filter(|c| c.mask != 0)
        .collect();
    Rule { action: rule.action, conditions }
}

/// The bits of an argument that an architecture compares.
fn width(wide: bool) -> u64 {
    if wide { u64::MAX } else { u64::from(u32::MAX) }
}

/// A comparison of one half, as libseccomp keeps it: operators that are each other's
/// opposite share one comparison and differ in which of its outcomes they take.
#[derive(Clone, Copy, Debug)]
struct Step {
    index: u32,
    high: bool,
    compare: Compare,
    mask: u32,
    value: u32,
    /// Which outcome the operator takes; only the last half of a condition has one.
    taken: Option<bool>,
    op: SeccompOperator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    MaskedEqual,
    Greater,
    GreaterEqual,
}

impl Step {
    fn same(&self, other: &Self) -> bool {
        (self.index, self.high, self.compare, self.mask, self.value, self.taken)
            == (other.index, other.high, other.compare, other.mask, other.value, other.taken)
    }

    fn rank(&self) -> impl Ord + use<> {
        let class = match self.op {
            SeccompOperator::EqualTo | SeccompOperator::NotEqual | SeccompOperator::MaskedEqual => {
                0
            }
            SeccompOperator::LessThan | SeccompOperator::LessEqual => 1,
            SeccompOperator::GreaterThan | SeccompOperator::GreaterEqual => 2,
        };
        let value = if class == 1 { self.value } else { u32::MAX - self.value };
        (Reverse((self.index, self.high)), class, value)
    }
}

/// A rule as a path of comparisons.
struct Chain {
    steps: Vec<Step>,
    rule: Rule,
}

impl Chain {
    fn of(rule: Rule, wide: bool) -> Self {
        let mut steps = Vec::with_capacity(rule.conditions.len() * 2);
        for condition in &rule.conditions {
            let (first, last, taken) = match condition.op {
                SeccompOperator::EqualTo => (Compare::Equal, Compare::Equal, true),
                SeccompOperator::NotEqual => (Compare::Equal, Compare::Equal, false),
                SeccompOperator::MaskedEqual => (Compare::MaskedEqual, Compare::MaskedEqual, true),
                SeccompOperator::GreaterThan => (Compare::Greater, Compare::Greater, true),
                SeccompOperator::LessEqual => (Compare::Greater, Compare::Greater, false),
                SeccompOperator::GreaterEqual => (Compare::Greater, Compare::GreaterEqual, true),
                SeccompOperator::LessThan => (Compare::Greater, Compare::GreaterEqual, false),
            };
            let step = |high: bool, compare| Step {
                index: condition.index,
                high,
                compare,
                mask: half(condition.mask, high),
                value: half(condition.value, high),
                taken: (!high).then_some(taken),
                op: condition.op,
            };
            if wide {
                steps.push(step(true, first));
            }
            steps.push(step(false, last));
        }
        Self { steps, rule }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a half is what is asked for")]
pub(super) fn half(value: u64, high: bool) -> u32 {
    if high { (value >> 32) as u32 } else { value as u32 }
}

/// Appends the rules of `chains`, which agree on their first `depth` steps, in the order
/// in which they are to be tried.
fn arrange(chains: Vec<Chain>, depth: usize, ordered: &mut Vec<Rule>) -> Result<(), Conflict> {
    let mut groups: Vec<(Step, Vec<Chain>)> = Vec::new();
    for chain in chains {
        let step = chain.steps[depth];
        match groups.iter_mut().find(|(first, _)| first.same(&step)) {
            Some((_, group)) => group.push(chain),
            None => groups.push((step, vec![chain])),
        }
    }
    groups.sort_by_key(|(step, _)| step.rank());
    for (_, group) in groups {
        match group.iter().position(|chain| chain.steps.len() == depth + 1) {
            None => arrange(group, depth + 1, ordered)?,
            Some(end) => {
                let action = group[end].rule.action;
                let conflicts = |(place, chain): (usize, &Chain)| {
                    chain.rule.action != action && (place < end || chain.steps.len() == depth + 1)
                };
                if group.iter().enumerate().any(conflicts) {
                    return Err(Conflict);
                }
                ordered.extend(group.into_iter().nth(end).map(|chain| chain.rule));
            }
        }
    }
    Ok(())
}
