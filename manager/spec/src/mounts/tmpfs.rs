//! Options of a tmpfs: docker's defaults, overridden by what is given.

use hull_specs_api::v1;

use crate::error::{Error, Result, must, refuse};

/// Pairs that override each other, by what they are about.
const FLAGS: [(&str, &str); 20] = [
    ("ro", "write"),
    ("rw", "write"),
    ("suid", "suid"),
    ("nosuid", "suid"),
    ("dev", "dev"),
    ("nodev", "dev"),
    ("exec", "exec"),
    ("noexec", "exec"),
    ("sync", "sync"),
    ("async", "sync"),
    ("dirsync", "dirsync"),
    ("atime", "atime"),
    ("noatime", "atime"),
    ("diratime", "diratime"),
    ("nodiratime", "diratime"),
    ("relatime", "relatime"),
    ("norelatime", "relatime"),
    ("strictatime", "strictatime"),
    ("nostrictatime", "strictatime"),
    ("rprivate", "propagation"),
];

const DATA: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// The options for the runtime: of two about one thing, the later.
pub(super) fn options(mount: &v1::Mount) -> Result<Vec<String>> {
    let mut all: Vec<String> = ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned).into();
    if mount.read_only {
        all.push("ro".to_owned());
    }
    if let Some(mode) = mount.tmpfs_mode {
        must!(mode <= 0o7777, "invalid tmpfs option \"mode={mode:o}\"");
        all.push(format!("mode={mode:o}"));
    }
    if mount.tmpfs_size_bytes != 0 {
        all.push(format!("size={}", mount.tmpfs_size_bytes));
    }
    all.extend(mount.tmpfs_options.iter().flat_map(|list| list.split(',')).map(str::to_owned));
    let mut kept: Vec<(&str, &String)> = Vec::new();
    for option in all.iter().filter(|option| *option != "defaults" && !option.is_empty()) {
        let about = about(option)?;
        kept.retain(|(other, _)| *other != about);
        kept.push((about, option));
    }
    Ok(kept.into_iter().map(|(_, option)| option.clone()).collect())
}

fn about(option: &str) -> Result<&str> {
    if let Some((_, about)) = FLAGS.iter().find(|(name, _)| *name == option) {
        return Ok(about);
    }
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    if !DATA.contains(&name) {
        refuse!("invalid tmpfs option {name:?}");
    }
    let number = |text: &str| text.parse::<u64>().is_ok();
    let good = match name {
        "mode" => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
        "uid" | "gid" => number(value),
        "mpol" => !value.is_empty() && !value.contains(char::is_control),
        "size" => {
            let digits = value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%']).unwrap_or(value);
            number(digits)
        }
        _ => number(value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(value)),
    };
    match good {
        true => Ok(name),
        false => Err(Error::new(format!("invalid tmpfs option {option:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_override() {
        let of = |read_only, size, mode, options: &[&str]| {
            options_of(&v1::Mount {
                read_only,
                tmpfs_size_bytes: size,
                tmpfs_mode: mode,
                tmpfs_options: options.iter().map(|&o| o.to_owned()).collect(),
                ..Default::default()
            })
        };
        fn options_of(mount: &v1::Mount) -> Result<String> {
            options(mount).map(|list| list.join(","))
        }
        let default = "noexec,nosuid,nodev,rprivate";
        assert_eq!(of(false, 0, None, &[]).unwrap(), default);
        assert_eq!(
            of(true, 65536, Some(0o1777), &[]).unwrap(),
            format!("{default},ro,mode=1777,size=65536")
        );
        assert_eq!(
            of(false, 0, None, &["rw,size=1m", "size=64k,exec"]).unwrap(),
            "nosuid,nodev,rprivate,rw,size=64k,exec"
        );
        for bad in ["x", "size=x", "mode=9", "uid=a", "bind", "shared", "size", "mode=77777"] {
            assert!(of(false, 0, None, &[bad]).is_err(), "{bad}");
        }
    }
}
