//! `--ulimit NAME=SOFT[:HARD]`.

use hull_specs_api::v1;

const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads one.
pub(crate) fn parse(text: &str) -> Result<v1::Ulimit, String> {
    let (name, values) =
        text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
    };
    let (soft, hard) = match values.split(':').collect::<Vec<_>>().as_slice() {
        [both] => (number(both)?, number(both)?),
        [soft, hard] => (number(soft)?, number(hard)?),
        _ => {
            return Err(format!(
                "too many limit values - {values}, can only have up to two - `soft[:hard]`"
            ));
        }
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        let soft = if soft == -1 { "unlimited".to_owned() } else { soft.to_string() };
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(v1::Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        for (text, soft, hard) in [
            ("nofile=10", 10, 10),
            ("core=0:-1", 0, -1),
            ("nproc=1:2", 1, 2),
            ("memlock=-1:-1", -1, -1),
        ] {
            let limit = parse(text).unwrap();
            assert_eq!((limit.soft, limit.hard), (soft, hard), "{text}");
        }
        for (text, words) in [
            ("x", "invalid ulimit argument: x"),
            ("x=1", "invalid ulimit type: x"),
            ("nofile=a", "strconv.ParseInt: parsing \"a\": invalid syntax"),
            ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
            (
                "nofile=-1:1",
                "ulimit soft limit must be less than or equal to hard limit: unlimited > 1",
            ),
            (
                "nofile=1:2:3",
                "too many limit values - 1:2:3, can only have up to two - `soft[:hard]`",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), words);
        }
    }
}
