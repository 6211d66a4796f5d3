//! Who the process is: user, groups, file creation mask.
//!
//! Names are not looked up: the configuration has numbers, and a name in it is for other
//! platforms.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

/// Ids that fit a signed 32-bit number: larger ones turn negative, and `-1` means "leave
/// it", in one interface or another (CVE-2024-40635, CVE-2025-4437).
const HIGHEST_ID: u32 = i32::MAX as u32;

/// The kernel's NGROUPS_MAX.
const MOST_GROUPS: usize = 65536;

/// `/dev/null`.
const NULL_DEVICE: libc::dev_t = libc::makedev(1, 3);

/// The user and groups a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The supplementary groups. They always hold `gid`, so that a process cannot get rid
    /// of it and of what files deny to it by a set-group-id program (CVE-2022-2989).
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: Option<u32>,
}

impl User {
    pub(super) fn plan(configured: &oci::User, warnings: &mut Vec<String>) -> Result<Self> {
        let id = |what: &str, id: u32| match id {
            0..=HIGHEST_ID => Ok(id),
            _ => bail!("{what} {id} is not in the range 0 to {HIGHEST_ID}"),
        };
        let uid = id("uid", configured.uid)?;
        let gid = id("gid", configured.gid)?;
        if configured.additional_gids.len() >= MOST_GROUPS {
            bail!("more than {} additional groups", MOST_GROUPS - 1);
        }
        let mut groups = Vec::with_capacity(configured.additional_gids.len() + 1);
        if !configured.additional_gids.contains(&gid) {
            groups.push(gid);
        }
        for additional in &configured.additional_gids {
            groups.push(id("additional gid", *additional)?);
        }
        if let Some(umask @ 0o1000..) = configured.umask {
            bail!("umask {umask:#o} has bits that are not permissions");
        }
        if !configured.username.is_empty() {
            warnings.push(format!(
                "ignoring username {:?}: on Linux the user is given by uid and gid",
                configured.username
            ));
        }
        Ok(Self { uid, gid, groups, umask: configured.umask })
    }

    /// Changes to the groups, then the user.
    ///
    /// Without `change_groups` the supplementary groups stay, and none may be asked for: in
    /// a user namespace whose `setgroups` file says `deny` nobody may change them.
    pub(super) fn apply(&self, change_groups: bool) -> Result<()> {
        let gid = self.gid;
        sys::process::set_gid(gid).map_err(|error| {
            let unmapped = error.errno() == libc::EINVAL;
            let error = anyhow::Error::from(error);
            match unmapped {
                true => {
                    error.context(format!("cannot setgid to unmapped gid {gid} in user namespace"))
                }
                false => error,
            }
        })?;
        if change_groups {
            sys::process::set_groups(&self.groups)?;
        } else if self.groups.iter().any(|group| *group != gid) {
            bail!("cannot set any additional groups in a rootless container");
        }
        let uid = self.uid;
        sys::process::set_uid(uid).map_err(|error| {
            let unmapped = error.errno() == libc::EINVAL;
            let error = anyhow::Error::from(error);
            match unmapped {
                true => {
                    error.context(format!("cannot setuid to unmapped uid {uid} in user namespace"))
                }
                false => error,
            }
        })
    }

    /// Gives the standard streams to the user, so that it can open its own terminal or
    /// pipe again by `/dev/stdout`. Only the owner changes, and `/dev/null` stays as it is:
    /// it is the host's.
    pub(super) fn own_streams(&self) -> Result<()> {
        for stream in sys::fd::standard_streams() {
            own_stream(stream, self.uid)?;
        }
        Ok(())
    }
}

fn own_stream(stream: BorrowedFd<'_>, uid: u32) -> Result<()> {
    let stat = sys::path::stat(stream).context("a standard stream is not open")?;
    let null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == NULL_DEVICE;
    if stat.st_uid == uid || null {
        return Ok(());
    }
    match sys::path::chown(stream, uid, u32::MAX) {
        // The owner has no number in this user namespace, or the file system is read-only:
        // the streams work all the same. The user itself may have none (EINVAL), which the
        // change to it will say better.
        Err(error) if matches!(error.errno(), libc::EPERM | libc::EROFS | libc::EINVAL) => Ok(()),
        result => result.context("failed to change the owner of a standard stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(user: &oci::User) -> Result<User> {
        User::plan(user, &mut Vec::new())
    }

    #[test]
    fn the_primary_group_is_always_among_the_groups() {
        for (additional, groups) in
            [(vec![], vec![5]), (vec![7, 8], vec![5, 7, 8]), (vec![7, 5], vec![7, 5])]
        {
            let user = oci::User { gid: 5, additional_gids: additional, ..Default::default() };
            assert_eq!(plan(&user).unwrap().groups, groups);
        }
    }

    #[test]
    fn ids_have_a_range() {
        let highest = 0x7fff_ffff;
        let user = oci::User {
            uid: highest,
            gid: highest,
            additional_gids: vec![highest],
            ..Default::default()
        };
        assert_eq!(plan(&user).unwrap().uid, highest);
        for id in [0x8000_0000, u32::MAX] {
            let users = [
                oci::User { uid: id, ..Default::default() },
                oci::User { gid: id, ..Default::default() },
                oci::User { additional_gids: vec![1, id], ..Default::default() },
            ];
            for (user, what) in users.iter().zip(["uid", "gid", "additional gid"]) {
                let error = plan(user).unwrap_err().to_string();
                assert_eq!(error, format!("{what} {id} is not in the range 0 to 2147483647"));
            }
        }
        let many = oci::User { additional_gids: vec![1; 65536], ..Default::default() };
        assert_eq!(plan(&many).unwrap_err().to_string(), "more than 65535 additional groups");
    }

    #[test]
    fn a_mask_is_nine_bits() {
        let user = |umask| oci::User { umask: Some(umask), ..Default::default() };
        assert_eq!(plan(&user(0o777)).unwrap().umask, Some(0o777));
        assert_eq!(
            plan(&user(0o1022)).unwrap_err().to_string(),
            "umask 0o1022 has bits that are not permissions"
        );
    }

    #[test]
    fn a_name_is_ignored_with_a_reason() {
        let mut warnings = Vec::new();
        let user = oci::User { username: "eve\n".to_owned(), ..Default::default() };
        User::plan(&user, &mut warnings).unwrap();
        assert_eq!(
            warnings,
            [r#"ignoring username "eve\n": on Linux the user is given by uid and gid"#]
        );
    }
}
