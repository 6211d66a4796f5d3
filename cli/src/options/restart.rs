//! `--restart`.

use hull_specs_api::v1::{RestartPolicy, restart_policy::Name};

/// Reads one.
pub(crate) fn parse(text: &str) -> Result<RestartPolicy, String> {
    let (name, retries) = match text.split_once(':') {
        Some((name, retries)) => (name, Some(retries)),
        None => (text, None),
    };
    let max_retries = match retries.map(str::parse::<i64>) {
        None => 0,
        Some(Ok(count)) if count >= 0 => u32::try_from(count).unwrap_or(u32::MAX),
        Some(Ok(_)) => {
            return Err("invalid restart policy: maximum retry count cannot be negative".to_owned());
        }
        Some(Err(_)) => {
            return Err(
                "invalid restart policy format: maximum retry count must be an integer".to_owned()
            );
        }
    };
    let policy = match name {
        "" if retries.is_some() => {
            return Err("invalid restart policy format: no policy provided before colon".to_owned());
        }
        "" | "no" => Name::No,
        "always" => Name::Always,
        "unless-stopped" => Name::UnlessStopped,
        "on-failure" => Name::OnFailure,
        _ => return Err(format!("invalid restart policy '{name}'")),
    };
    if max_retries > 0 && policy != Name::OnFailure {
        return Err(format!(
            "invalid restart policy: maximum retry count cannot be used with restart policy '{name}'"
        ));
    }
    Ok(RestartPolicy { name: policy.into(), max_retries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        for (text, name, max_retries) in [
            ("no", Name::No, 0),
            ("", Name::No, 0),
            ("always", Name::Always, 0),
            ("unless-stopped", Name::UnlessStopped, 0),
            ("on-failure", Name::OnFailure, 0),
            ("on-failure:3", Name::OnFailure, 3),
        ] {
            assert_eq!(parse(text), Ok(RestartPolicy { name: name.into(), max_retries }));
        }
        assert_eq!(parse("foo").unwrap_err(), "invalid restart policy 'foo'");
        for bad in [":1", "on-failure:x", "on-failure:-1", "always:2", "on-failure:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
