//! The order of names in docker's lists.

use std::cmp::Ordering;

/// By letters, but numbers by their value: `net2` is before `net10`. Of equal numbers the one with
/// fewer zeroes before it is the first.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (Some((first, a_rest)), Some((second, b_rest))) = (a.split_first(), b.split_first())
        else {
            return a.len().cmp(&b.len());
        };
        let order = match (first.is_ascii_digit(), second.is_ascii_digit()) {
            (true, true) => {
                let (one, a_rest) = number(a);
                let (two, b_rest) = number(b);
                (a, b) = (a_rest, b_rest);
                one.cmp(&two)
            }
            (false, false) => {
                (a, b) = (a_rest, b_rest);
                first.cmp(second)
            }
            (is_digit, _) => return if is_digit { Ordering::Less } else { Ordering::Greater },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// A number's digits and then the zeroes before it, as they are compared; and what follows.
fn number(text: &[u8]) -> ((usize, &[u8], usize), &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeroes = digits.iter().take_while(|b| **b == b'0').count();
    let value = digits.get(zeroes..).unwrap_or_default();
    ((value.len(), value, zeroes), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_their_value() {
        let sorted = [
            "",
            "0",
            "00",
            "1",
            "01",
            "2",
            "10",
            "a",
            "a0b",
            "a1",
            "a1b",
            "a01",
            "a2",
            "a10",
            "a99999999999999999999",
            "a100000000000000000000",
            "aa",
            "b",
            "net2",
            "net10",
            "net10a",
        ];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(natural(a, b), at.cmp(&other), "{a} {b}");
            }
        }
    }
}
