//! Patterns of names, as Go's `path.Match` has them: `*` and `?` stop at slashes.

/// Whether the whole text is of the pattern. A pattern that is none is of nothing.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and what it has taken up to: going back there only is enough.
    let mut star: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            None if t == text.len() => return true,
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(_) => {
                if let Some(next) = text.get(t).and_then(|c| one(&pattern, p, *c)) {
                    (p, t) = (next, t + 1);
                    continue;
                }
            }
            None => {}
        }
        match star {
            Some((after, taken)) if text.get(taken).is_some_and(|c| *c != '/') => {
                star = Some((after, taken + 1));
                (p, t) = (after, taken + 1);
            }
            _ => return false,
        }
    }
}

/// Where the pattern goes on if one character is of its next element.
fn one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => (c != '/').then_some(at + 1),
        '\\' => (*pattern.get(at + 1)? == c).then_some(at + 2),
        '[' => {
            let mut at = at + 1;
            let negated = pattern.get(at) == Some(&'^');
            at += usize::from(negated);
            let first = at;
            let mut within = false;
            while at == first || pattern.get(at) != Some(&']') {
                let low = *pattern.get(at)?;
                let high = match (pattern.get(at + 1), pattern.get(at + 2)) {
                    (Some('-'), Some(high)) if *high != ']' => {
                        at += 2;
                        *high
                    }
                    _ => low,
                };
                within |= (low..=high).contains(&c);
                at += 1;
            }
            (within != negated).then_some(at + 1)
        }
        other => (*other == c).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, matched) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*:*", "busybox:latest", true),
            ("*/*", "a/b", true),
            ("*", "a/b", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "ace", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("[", "[", false),
            ("*a*b*c", "xaxbxc", true),
            ("*a*b*c", "xaxbx", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), matched, "{pattern} {text}");
        }
        // Not exponential.
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99)));
    }
}
