//! `--volumes-from CONTAINER[:ro|rw]`.

use hull_specs_api::v1;

use crate::{
    error::{Result, must, refuse},
    mounts::is_anonymous,
};

/// The container, and whether its mounts become read-only.
///
/// # Errors
/// If there is no container in it, or the mode is none.
pub fn parse(text: &str) -> Result<(&str, bool)> {
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    must!(!container.is_empty(), "volumes-from specification cannot be an empty string");
    match mode {
        // z, as docker takes it, asks for a label that is not there without SELinux.
        "" | "rw" | "z" => Ok((container, false)),
        "ro" => Ok((container, true)),
        _ => refuse!("invalid mode: {mode}"),
    }
}

/// Adds the mounts of other containers, each with whether they become read-only: over anonymous
/// volumes of this one, and beneath what it asks for by itself. Of two containers the later wins.
/// Volumes are theirs by name, so the caller gives anonymous ones with the names they have.
pub fn inherit(mounts: &mut Vec<v1::Mount>, others: &[(bool, Vec<v1::Mount>)]) {
    let mut inherited: Vec<v1::Mount> = Vec::new();
    for (read_only, theirs) in others {
        for mount in theirs {
            inherited.retain(|other| other.target != mount.target);
            let read_only = mount.read_only || *read_only;
            // Nothing is copied up: the container that has it did so.
            let no_copy = v1::mount::Type::try_from(mount.r#type) == Ok(v1::mount::Type::Volume);
            // Nobody asked for it by itself: it has no mode, and is no volume of a configuration.
            let short_form = format!(":{}:", mount.target);
            inherited.push(v1::Mount { read_only, no_copy, short_form, ..mount.clone() });
        }
    }
    mounts.retain(|mount| {
        !is_anonymous(mount) || !inherited.iter().any(|other| other.target == mount.target)
    });
    inherited.retain(|other| !mounts.iter().any(|mount| mount.target == other.target));
    mounts.append(&mut inherited);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(source: &str, target: &str) -> v1::Mount {
        v1::Mount {
            r#type: v1::mount::Type::Volume.into(),
            source: source.into(),
            target: target.into(),
            ..Default::default()
        }
    }

    #[test]
    fn modes() {
        assert_eq!(parse("a"), Ok(("a", false)));
        assert_eq!(parse("a:ro"), Ok(("a", true)));
        for bad in ["", ":ro", "a:x", "a:ro:rw", "a:rshared", "a:nocopy"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn own_mounts_hide_inherited_ones_and_those_hide_anonymous_ones() {
        let mut mounts = vec![volume("own", "/a"), volume("", "/b")];
        let first = vec![volume("x", "/a"), volume("y", "/b"), volume("z", "/c")];
        let second = vec![volume("later", "/c")];
        inherit(&mut mounts, &[(false, first), (true, second)]);
        let found: Vec<_> =
            mounts.iter().map(|m| (m.source.as_str(), m.target.as_str(), m.read_only)).collect();
        assert_eq!(found, [("own", "/a", false), ("y", "/b", false), ("later", "/c", true)]);
    }
}
