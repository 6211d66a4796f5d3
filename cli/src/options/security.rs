//! `--security-opt`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The most bytes of a seccomp profile.
const MAX_PROFILE_BYTES: usize = 4 << 20;

/// What the options say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Security {
    /// For the manager, as they were given; a seccomp profile is its JSON.
    pub(crate) options: Vec<String>,
    /// systempaths=unconfined: nothing is masked, nothing read-only.
    pub(crate) all_paths: bool,
}

/// Reads the options; `read` gets a profile's path.
pub(crate) fn lower(given: &[String], read: impl Fn(&Path) -> Result<Vec<u8>>) -> Result<Security> {
    let mut security = Security::default();
    for option in given {
        // A colon in place of the first `=` is docker's old form.
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some(pair) => pair,
            None if option == "no-new-privileges" => ("no-new-privileges", "true"),
            None => bail!("Invalid --security-opt: {option:?}"),
        };
        match (key, value) {
            ("systempaths", "unconfined") => security.all_paths = true,
            ("systempaths", _) => bail!("Invalid --security-opt: {option:?}"),
            ("seccomp", "unconfined" | "builtin") => security.options.push(option.clone()),
            ("seccomp", path) => {
                let profile = read(Path::new(path))
                    .with_context(|| format!("opening seccomp profile ({path}) failed"))?;
                security.options.push(format!("seccomp={}", compact(&profile, path)?));
            }
            ("no-new-privileges", value) => {
                super::parse_bool(value)
                    .map_err(|_| anyhow::anyhow!("Invalid --security-opt: {option:?}"))?;
                security.options.push(option.clone());
            }
            ("apparmor" | "label" | "mask" | "unmask", _) => security.options.push(option.clone()),
            _ => bail!("Invalid --security-opt: {option:?}"),
        }
    }
    Ok(security)
}

fn compact(profile: &[u8], path: &str) -> Result<String> {
    if profile.len() > MAX_PROFILE_BYTES {
        bail!("seccomp profile ({path}) is larger than 4 MiB");
    }
    let document: serde_json::Value = serde_json::from_slice(profile)
        .with_context(|| format!("compacting json for seccomp profile ({path}) failed"))?;
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<Vec<u8>> {
        match path.to_str() {
            Some("/p") => Ok(b"{ \"a\": 1 }".to_vec()),
            Some("/bad") => Ok(b"{".to_vec()),
            _ => bail!("open {}: no such file or directory", path.display()),
        }
    }

    #[test]
    fn options() {
        let lower = |options: &[&str]| {
            lower(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>(), read)
        };
        for (given, option) in [
            ("no-new-privileges", "no-new-privileges"),
            ("no-new-privileges:true", "no-new-privileges:true"),
            ("no-new-privileges=false", "no-new-privileges=false"),
            ("seccomp=unconfined", "seccomp=unconfined"),
            ("seccomp:unconfined", "seccomp:unconfined"),
            ("seccomp=/p", "seccomp={\"a\":1}"),
            ("apparmor:unconfined", "apparmor:unconfined"),
            ("label=type:x", "label=type:x"),
            ("mask=/a:/b", "mask=/a:/b"),
        ] {
            assert_eq!(lower(&[given]).unwrap().options, [option], "{given}");
        }
        assert!(lower(&["systempaths=unconfined"]).unwrap().all_paths);
        for (bad, words) in [
            ("foo", "Invalid --security-opt: \"foo\""),
            ("foo=bar", "Invalid --security-opt: \"foo=bar\""),
            (
                "seccomp=/no",
                "opening seccomp profile (/no) failed: open /no: no such file or directory",
            ),
        ] {
            assert_eq!(format!("{:#}", lower(&[bad]).unwrap_err()), words);
        }
        assert!(lower(&["seccomp=/bad"]).is_err());
    }
}
