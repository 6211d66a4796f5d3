//! `--network`, and the options that need more network than there is yet.

/// The modes there are: none, host, container:NAME.
pub(crate) fn mode(text: &str) -> Result<String, String> {
    match text {
        "" | "none" | "host" => Ok(text.to_owned()),
        "default" => Ok(String::new()),
        joined if joined.strip_prefix("container:").is_some_and(|name| !name.is_empty()) => {
            Ok(joined.to_owned())
        }
        "container:" => Err("invalid container format container:<name|id>".to_owned()),
        other => Err(format!("network {other} not found: hull has none, host and container:NAME")),
    }
}

/// The refusal of an option that belongs to networks.
pub(crate) fn refuse(option: &str) -> String {
    format!(
        "{option} needs a bridge network, which hull does not have yet: use --network host or none"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for good in ["none", "host", "container:x"] {
            assert_eq!(mode(good).as_deref(), Ok(good));
        }
        assert_eq!(mode("default").as_deref(), Ok(""));
        for bad in ["bridge", "foo", "container:", "name=x"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
