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
//! - A rule means nothing when another has the same action under fewer of its conditions.
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
    let rules: Vec<Rule> = rules.iter().map(|rule| effective(rule, wide)).collect();
    let needed = rules.iter().enumerate().filter(|(place, rule)| !redundant(*place, rule, &rules));
    let chains = needed.map(|(_, rule)| Chain::of(rule.clone(), wide)).collect();
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

/// Whether another rule has the same action under fewer conditions.
fn redundant(place: usize, rule: &Rule, rules: &[Rule]) -> bool {
    rules.iter().enumerate().any(|(other_place, other)| {
        other.action == rule.action
            && other.conditions.iter().all(|condition| rule.conditions.contains(condition))
            && (other.conditions.len() < rule.conditions.len() || other_place < place)
    })
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
    fn same_comparison(&self, other: &Self) -> bool {
        (self.index, self.high, self.compare, self.mask, self.value)
            == (other.index, other.high, other.compare, other.mask, other.value)
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
        match groups.iter_mut().find(|(first, _)| first.same_comparison(&step)) {
            Some((_, group)) => group.push(chain),
            None => groups.push((step, vec![chain])),
        }
    }
    groups.sort_by_key(|(step, _)| step.rank());
    for (_, group) in groups {
        // Opposites stand at one place and can't both match.
        let (yes, no): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|chain| chain.steps[depth].taken != Some(false));
        for same in [yes, no] {
            arrange_same(same, depth + 1, ordered)?;
        }
    }
    Ok(())
}

/// Appends the rules of `chains`, which agree on their first `depth` steps, of which there
/// is at least one.
fn arrange_same(chains: Vec<Chain>, depth: usize, ordered: &mut Vec<Rule>) -> Result<(), Conflict> {
    let Some(end) = chains.iter().position(|chain| chain.steps.len() == depth) else {
        return arrange(chains, depth, ordered);
    };
    let action = chains[end].rule.action;
    let conflicts = |(place, chain): (usize, &Chain)| {
        chain.rule.action != action && (place < end || chain.steps.len() == depth)
    };
    if chains.iter().enumerate().any(conflicts) {
        return Err(Conflict);
    }
    ordered.extend(chains.into_iter().nth(end).map(|chain| chain.rule));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use SeccompOperator::{
        EqualTo, GreaterEqual, GreaterThan, LessEqual, LessThan, MaskedEqual, NotEqual,
    };

    fn rule(action: u32, conditions: &[(u32, SeccompOperator, u64)]) -> Rule {
        let condition = |&(index, op, value)| Condition { index, op, mask: u64::MAX, value };
        Rule { action, conditions: conditions.iter().map(condition).collect() }
    }

    /// The actions in the order in which the rules are tried.
    fn order(rules: &[Rule]) -> Vec<u32> {
        match decide(&rules.iter().collect::<Vec<_>>(), true).unwrap() {
            Verdict::Return(action) => vec![action],
            Verdict::FirstOf(rules) => rules.iter().map(|rule| rule.action).collect(),
        }
    }

    #[test]
    fn the_first_rule_without_conditions_wins() {
        let rules = [rule(1, &[(0, EqualTo, 5)]), rule(2, &[]), rule(3, &[])];
        assert_eq!(order(&rules), [2]);
    }

    #[test]
    fn a_mask_of_zero_is_no_condition() {
        let masked = Condition { index: 0, op: MaskedEqual, mask: 1 << 40, value: 0 };
        let rule = Rule { action: 1, conditions: vec![masked] };
        assert!(matches!(decide(&[&rule], true), Ok(Verdict::FirstOf(_))));
        assert_eq!(decide(&[&rule], false), Ok(Verdict::Return(1)), "low halves only");
    }

    #[test]
    fn higher_arguments_come_first() {
        let rules = [rule(1, &[(0, EqualTo, 5)]), rule(2, &[(3, EqualTo, 5)])];
        assert_eq!(order(&rules), [2, 1]);
    }

    #[test]
    fn equality_comes_before_less_before_greater() {
        let rules = [
            rule(1, &[(0, GreaterThan, 5)]),
            rule(2, &[(0, LessEqual, 9)]),
            rule(3, &[(0, NotEqual, 7)]),
        ];
        assert_eq!(order(&rules), [3, 2, 1]);
    }

    #[test]
    fn values_are_tried_from_the_narrowest() {
        let greater = [rule(1, &[(0, GreaterThan, 5)]), rule(2, &[(0, GreaterEqual, 9)])];
        assert_eq!(order(&greater), [2, 1]);
        let less = [rule(1, &[(0, LessThan, 9)]), rule(2, &[(0, LessThan, 5)])];
        assert_eq!(order(&less), [2, 1]);
        let high = [rule(1, &[(0, GreaterThan, 9)]), rule(2, &[(0, GreaterThan, 1 << 32)])];
        assert_eq!(order(&high), [2, 1]);
    }

    #[test]
    fn equals_stay_as_listed_and_common_beginnings_together() {
        let rules = [
            rule(1, &[(0, EqualTo, 5), (1, EqualTo, 1)]),
            rule(2, &[(0, EqualTo, 6)]),
            rule(3, &[(0, EqualTo, 5), (1, EqualTo, 2)]),
        ];
        assert_eq!(order(&rules), [2, 3, 1]);
    }

    #[test]
    fn a_rule_that_an_earlier_one_begins_is_dropped() {
        let rules = [rule(1, &[(0, EqualTo, 5)]), rule(2, &[(0, EqualTo, 5), (1, EqualTo, 1)])];
        assert_eq!(order(&rules), [1]);
    }

    #[test]
    fn contradictions_are_refused() {
        let longer_first =
            [rule(2, &[(0, EqualTo, 5), (1, EqualTo, 1)]), rule(1, &[(0, EqualTo, 5)])];
        assert_eq!(decide(&longer_first.each_ref(), true), Err(Conflict));
        let same = [rule(1, &[(0, LessThan, 5)]), rule(2, &[(0, LessThan, 5)])];
        assert_eq!(decide(&same.each_ref(), true), Err(Conflict));
    }

    #[test]
    fn opposites_do_not_contradict() {
        let rules = [rule(1, &[(0, EqualTo, 5)]), rule(2, &[(0, NotEqual, 5)])];
        assert_eq!(order(&rules), [1, 2]);
        let rules = [rule(1, &[(0, LessThan, 5)]), rule(2, &[(0, GreaterEqual, 5)])];
        assert_eq!(order(&rules), [2, 1]);
    }

    #[test]
    fn a_rule_covered_by_one_with_fewer_conditions_contradicts_nothing() {
        let rules = [
            rule(1, &[(0, EqualTo, 5), (1, EqualTo, 1)]),
            rule(1, &[(1, EqualTo, 1)]),
            rule(2, &[(0, EqualTo, 5)]),
        ];
        assert_eq!(order(&rules), [1, 2]);
    }
}
