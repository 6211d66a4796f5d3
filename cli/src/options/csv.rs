//! One line of comma-separated values, quoted as Go's encoding/csv reads it.

/// The fields of a line.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars().peekable();
    let mut quoted = false;
    let mut begins = true;
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().ok_or("no field")?;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted => {
                quoted = false;
                if !matches!(letters.peek(), None | Some(',')) {
                    return Err("parse error on line 1: extraneous or missing \" in quoted-field"
                        .to_owned());
                }
            }
            '"' if begins => quoted = true,
            '"' => return Err("parse error on line 1: bare \" in non-quoted-field".to_owned()),
            ',' if !quoted => {
                fields.push(String::new());
                begins = true;
                continue;
            }
            other => field.push(other),
        }
        begins = false;
    }
    if quoted {
        return Err("parse error on line 1: extraneous or missing \" in quoted-field".to_owned());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_commas() {
        assert_eq!(fields("a,b=c,").unwrap(), ["a", "b=c", ""]);
        assert_eq!(fields(r#"a,"b=c,d ""x""",e"#).unwrap(), ["a", "b=c,d \"x\"", "e"]);
        for bad in ["a\"b", "\"a", "\"a\"b"] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
