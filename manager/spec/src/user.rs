//! Who the process is: names to numbers by the image's own files.
//!
//! One parser for run, exec and everything else (R6). The files are the image's, so hostile: they
//! come in as bytes that the caller read from a regular file, no more than [`MAX_FILE_BYTES`].

use std::collections::BTreeSet;

use hull_specs_oci as oci;

use crate::error::{Error, Result, must, refuse};

/// The most bytes of `/etc/passwd` or `/etc/group` that are read.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// A longer line is passed over; the kernel's and libcs' own limits are far below.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The kernel's limit of supplementary groups.
const MAX_GROUPS: usize = 65_536;

/// Ids that docker takes: some programs have them in a signed 32-bit number.
const MAX_ID: u32 = 0x7fff_ffff;

/// The user that a process is to have: `""`, `user`, `uid`, `user:group`, … A number is a number,
/// whatever entry has it for a name. The groups begin with the primary one (CVE-2022-36109); those of
/// `group_add` are added.
///
/// # Errors
/// If a name is in no entry, a number is out of range, or an entry's id is.
pub fn resolve(user: &str, passwd: &[u8], group: &[u8], group_add: &[String]) -> Result<oci::User> {
    let (user, group_name) = user.split_once(':').unwrap_or((user, ""));
    let asked = Id::parse(user)?;
    let entry = lines(passwd).filter_map(Passwd::parse).find(|entry| match asked {
        Id::None => entry.uid == 0,
        Id::Number(uid) => entry.uid == uid,
        Id::Name(name) => entry.name == name,
    });
    let mut found = oci::User::default();
    match (&entry, asked) {
        (Some(entry), _) => (found.uid, found.gid) = (entry.uid, entry.gid),
        (None, Id::None) => {}
        (None, Id::Number(uid)) => found.uid = uid,
        (None, Id::Name(name)) => {
            refuse!("unable to find user {name}: no matching entries in passwd file")
        }
    }
    let groups = || lines(group).filter_map(Group::parse);
    let mut additional = Vec::new();
    if group_name.is_empty() {
        if let Some(entry) = &entry {
            additional
                .extend(groups().filter(|group| group.has(entry.name)).map(|group| group.gid));
        }
    } else {
        found.gid = gid(group_name, groups())?;
    }
    for name in group_add {
        additional.push(gid(name, groups())?);
    }
    additional.insert(0, found.gid);
    let in_range = found.uid <= MAX_ID && additional.iter().all(|&gid| gid <= MAX_ID);
    must!(in_range, "uids and gids must be in range 0-{MAX_ID}");
    let mut seen = BTreeSet::new();
    additional.retain(|&gid| seen.insert(gid));
    additional.truncate(MAX_GROUPS);
    found.additional_gids = additional;
    Ok(found)
}

/// Whether a text can name a user: what must never reach a file or a message as it is (R26).
pub(crate) fn check(user: &str, group_add: &[String]) -> Result<()> {
    for name in std::iter::once(user).chain(group_add.iter().map(String::as_str)) {
        must!(name.len() <= 512 && !name.contains(char::is_control), "invalid user: {name:?}");
        for part in name.split(':') {
            Id::parse(part)?;
        }
    }
    Ok(())
}

fn gid<'a>(name: &str, mut groups: impl Iterator<Item = Group<'a>>) -> Result<u32> {
    match Id::parse(name)? {
        Id::Number(gid) => Ok(gid),
        Id::Name(name) => match groups.find(|group| group.name == name) {
            Some(group) if group.gid <= MAX_ID => Ok(group.gid),
            Some(_) => refuse!("uids and gids must be in range 0-{MAX_ID}"),
            None => refuse!("unable to find group {name}: no matching entries in group file"),
        },
        Id::None => refuse!("unable to find group : no matching entries in group file"),
    }
}

#[derive(Clone, Copy)]
enum Id<'a> {
    None,
    Number(u32),
    Name(&'a str),
}

impl<'a> Id<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::None);
        }
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        match text.parse::<u32>() {
            Ok(number) if number <= MAX_ID => Ok(Self::Number(number)),
            _ => Err(Error::new(format!("uids and gids must be in range 0-{MAX_ID}"))),
        }
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    let file = &file[..file.len().min(usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX))];
    file.split(|&b| b == b'\n')
        .filter(|line| line.len() <= MAX_LINE_BYTES)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// name:password:uid:gid:…
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Passwd<'a> {
    /// None for a line whose ids are no numbers. libcs differ here; an entry that one of them does
    /// not have is better not there than root.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        Some(Self { name, uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    }
}

/// name:password:gid:member,member
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        Some(Self { name, gid: gid.parse().ok()?, members: fields.next().unwrap_or("") })
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\n  adm:x:3:4::/:\nbig:x:5000000000:1::/:\n1000:x:7:7::/:\nbad:x::0::/:\nhuge:x:1:4294967295::/:\nuser:x:1000:2000::/home/user:\n";
    const GROUP: &[u8] =
        b"root:x:0:\nadm:x:4:adm,user\nextra:x:50:root,user\nwheel:x:10:root\nhuge:x:3000000000:\n";

    fn check_one(user: &str, add: &[&str], expected: Result<(u32, u32, &[u32]), &str>) {
        let add: Vec<_> = add.iter().map(|&name| name.to_owned()).collect();
        let found = resolve(user, PASSWD, GROUP, &add);
        match (&found, expected) {
            (Ok(found), Ok((uid, gid, gids))) => {
                assert_eq!((found.uid, found.gid), (uid, gid), "{user}");
                assert_eq!(found.additional_gids, gids, "{user}");
            }
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text, "{user}"),
            other => panic!("{user}: {other:?}"),
        }
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        const RANGE: &str = "uids and gids must be in range 0-2147483647";
        check_one("", &[], Ok((0, 0, &[0, 50, 10])));
        check_one("root", &[], Ok((0, 0, &[0, 50, 10])));
        check_one("user", &[], Ok((1000, 2000, &[2000, 4, 50])));
        // A number is a number, not the name of the entry that is called so.
        check_one("1000", &[], Ok((1000, 2000, &[2000, 4, 50])));
        check_one("7", &[], Ok((7, 7, &[7])));
        check_one("4711", &[], Ok((4711, 0, &[0])));
        check_one("user:wheel", &[], Ok((1000, 10, &[10])));
        check_one("user:77", &[], Ok((1000, 77, &[77])));
        check_one(":wheel", &[], Ok((0, 10, &[10])));
        check_one("1:2", &["extra", "60", "2"], Ok((1, 2, &[2, 50, 60])));
        check_one("2147483647", &[], Ok((2_147_483_647, 0, &[0])));
        check_one("2147483648", &[], Err(RANGE));
        check_one("-1", &[], Err(RANGE));
        check_one("99999999999999999999", &[], Err(RANGE));
        check_one("huge", &[], Err(RANGE));
        check_one("0:huge", &[], Err(RANGE));
        check_one("0", &["huge"], Err(RANGE));
        check_one(
            "nobody",
            &[],
            Err("unable to find user nobody: no matching entries in passwd file"),
        );
        check_one("big", &[], Err("unable to find user big: no matching entries in passwd file"));
        check_one("bad", &[], Err("unable to find user bad: no matching entries in passwd file"));
        check_one(
            "0:none",
            &[],
            Err("unable to find group none: no matching entries in group file"),
        );
        check_one(
            "0",
            &["none"],
            Err("unable to find group none: no matching entries in group file"),
        );
    }

    #[test]
    fn without_files_numbers_are_enough() {
        let user = resolve("5:6", b"", b"", &["7".to_owned()]).unwrap();
        assert_eq!((user.uid, user.gid, user.additional_gids), (5, 6, vec![6, 7]));
        assert_eq!(resolve("", b"", b"", &[]).unwrap().additional_gids, [0]);
    }

    #[test]
    fn long_lines_and_large_files_end() {
        let mut passwd = vec![b'x'; 70_000];
        passwd.extend(b"\nuser:x:1:1::/:\n\xff\xff:x:0:0\n");
        assert_eq!(resolve("user", &passwd, b"", &[]).unwrap().uid, 1);
        let many = b"g:x:1:user\n".repeat(100_000);
        assert_eq!(resolve("user", &passwd, &many, &[]).unwrap().additional_gids, [1]);
        // 300,000 groups with one member: the kernel takes 65,536, and time stays short.
        let each: String = (2..80_000).map(|gid| format!("g:x:{gid}:user\n")).collect();
        let found = resolve("user", &passwd, each.as_bytes(), &[]).unwrap();
        assert_eq!(found.additional_gids.len(), MAX_GROUPS);
    }

    #[test]
    fn control_characters_are_refused() {
        assert!(check("a\nb", &[]).is_err() && check("a", &["\0".to_owned()]).is_err());
        check("user:group", &["5".to_owned()]).unwrap();
    }
}
