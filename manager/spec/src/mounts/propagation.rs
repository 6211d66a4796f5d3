//! What the source's own mount must be for a bind that is to share mounts with the host.

use hull_specs_api::v1;

use super::plan::Resolved;
use crate::error::{Result, must, refuse};

/// Whether [`crate::Input::mountinfo`] is looked at.
#[must_use]
pub fn needs_mountinfo(mounts: &[v1::Mount]) -> bool {
    mounts
        .iter()
        .any(|mount| mount.propagation.contains("shared") || mount.propagation.contains("slave"))
}

/// What the root's propagation has to be for all of the mounts; empty: the runtime's default.
/// `mountinfo` is the text of `/proc/self/mountinfo`.
pub(super) fn of_root(mounts: &[Resolved], mountinfo: &str) -> Result<&'static str> {
    let mut root = "";
    for Resolved { mount, source } in mounts {
        match mount.propagation.as_str() {
            "shared" | "rshared" => {
                let (point, tags) = mount_of(source, mountinfo)?;
                must!(
                    tags.contains("shared:"),
                    "path {source} is mounted on {point} but it is not a shared mount"
                );
                root = "shared";
            }
            "slave" | "rslave" => {
                let (point, tags) = mount_of(source, mountinfo)?;
                must!(
                    tags.contains("shared:") || tags.contains("master:"),
                    "path {source} is mounted on {point} but it is not a shared or slave mount"
                );
                if root.is_empty() {
                    root = "rslave";
                }
            }
            _ => {}
        }
    }
    Ok(root)
}

/// The mount that a path is on: its mount point and its optional fields.
fn mount_of(path: &str, mountinfo: &str) -> Result<(String, String)> {
    let mut best: Option<(String, String)> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4).map(unescape) else { continue };
        let beneath = path == point
            || point == "/"
            || path.strip_prefix(point.as_str()).is_some_and(|rest| rest.starts_with('/'));
        // A later one at the same place is on top.
        if beneath && best.as_ref().is_none_or(|(other, _)| point.len() >= other.len()) {
            let tags: Vec<_> = fields.skip(1).take_while(|field| *field != "-").collect();
            best = Some((point, tags.join(" ")));
        }
    }
    match best {
        Some(found) => Ok(found),
        None => refuse!("Can't find mount point of {path}"),
    }
}

/// `\040` is a space (proc(5)).
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw
22 21 0:5 / /private rw - tmpfs tmpfs rw
23 21 0:5 / /slave\\040one rw master:3 - tmpfs tmpfs rw
24 21 0:5 / /top rw shared:4 - tmpfs tmpfs rw
25 24 0:5 / /top rw - tmpfs tmpfs rw
";

    #[test]
    fn the_source_must_take_part() {
        for (propagation, source, root) in [
            ("", "/private", Ok("")),
            ("rprivate", "/private/x", Ok("")),
            ("rshared", "/a", Ok("shared")),
            ("slave", "/slave one/x", Ok("rslave")),
            (
                "shared",
                "/slave one",
                Err("path /slave one is mounted on /slave one but it is not a shared mount"),
            ),
            (
                "rslave",
                "/private/x",
                Err("path /private/x is mounted on /private but it is not a shared or slave mount"),
            ),
            ("shared", "/privateer", Ok("shared")),
            ("shared", "/top", Err("path /top is mounted on /top but it is not a shared mount")),
        ] {
            let mount = v1::Mount { propagation: propagation.into(), ..Default::default() };
            let mounts = [Resolved { mount, source: source.into() }];
            let found = of_root(&mounts, MOUNTINFO).map_err(|error| error.to_string());
            assert_eq!(found, root.map_err(str::to_owned), "{propagation} {source}");
        }
    }
}
