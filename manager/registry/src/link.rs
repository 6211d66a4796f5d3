//! `Link: <…>; rel="next"` (RFC 8288): where a list goes on. Pure.

use http::{HeaderMap, header::LINK};

/// The most bytes of a header that are looked at.
const MAX_BYTES: usize = 16 << 10;

/// The target of the first link that is the next page.
pub(crate) fn next(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok().filter(|text| text.len() <= MAX_BYTES))
        .find_map(next_of)
}

fn next_of(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let (parameters, following) = after.split_at(end);
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split(' ').any(|word| word == "next")
            })
        });
        if is_next {
            return Some(target);
        }
        rest = following;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (line, expected) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("<x>;rel=next", Some("x")),
            (r#"<a>; rel="prev", <b>; title="t"; rel="last next""#, Some("b")),
            (r#"<a>; rel="nextish""#, None),
            (r#"a; rel="next""#, None),
            ("<a", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(LINK, line.parse().unwrap());
            assert_eq!(next(&headers), expected, "{line}");
        }
    }
}
