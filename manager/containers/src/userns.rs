//! Ids of the host for the user namespaces of `--userns=auto`: each such container has a range of
//! its own, as long as it exists, out of what `/etc/subuid` and `/etc/subgid` give one user.
//!
//! podman's words: the ranges are those of the user `containers` (or of one that the configuration
//! names, or a range that it gives itself), and a container gets as many ids
//! as its image's users need, 1,024 at least, or as `auto:size=` says. Users and groups have the
//! same numbers here, so only what both files give is used.

use std::{fs, ops::Range};

use hull_manager_core::{Error, Result, Store, error::IoContext as _};
use hull_specs_oci::IdMapping;
use rusqlite::OptionalExtension as _;

use crate::Inner;

/// What podman gives at least, and at most unless told otherwise.
const MIN_SIZE: u32 = 1024;
const MAX_SIZE: u32 = 65536;
/// "nobody" of many images: no reason to take 65,535 ids.
const NOBODY: u32 = 65534;

/// The rows: which container has what.
#[derive(Clone)]
pub(crate) struct Ranges {
    store: Store,
    user: String,
}

impl Ranges {
    pub(crate) fn open(store: &Store, user: &str) -> Result<Self> {
        store.tables(
            "CREATE TABLE IF NOT EXISTS user_ranges (
                container TEXT PRIMARY KEY, first INTEGER NOT NULL UNIQUE, size INTEGER NOT NULL) WITHOUT ROWID",
        )?;
        Ok(Self { store: store.clone(), user: user.to_owned() })
    }

    /// The ids of a container, if it has any of its own.
    pub(crate) fn of(&self, container: &str) -> Result<Option<IdMapping>> {
        self.store.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT first, size FROM user_ranges WHERE container = ?1")?;
            let row = statement.query_row([container], |row| {
                Ok(IdMapping { container_id: 0, host_id: row.get(0)?, size: row.get(1)? })
            });
            Ok(row.optional()?)
        })
    }

    /// Gives a container a range that no other has.
    fn take(&self, container: &str, size: u32) -> Result<()> {
        let read = |path: &str| fs::read_to_string(path).about(path);
        let given = match self.user.contains(':') {
            true => given(&format!(":{}", self.user), ""),
            false => common(
                &given(&read("/etc/subuid")?, &self.user),
                &given(&read("/etc/subgid")?, &self.user),
            ),
        };
        if given.is_empty() {
            return Err(Error::conflict(format!(
                "cannot find mappings for user {:?}: no subordinate ranges for it in both /etc/subuid and /etc/subgid",
                self.user
            )));
        }
        self.store.write(|t| {
            let mut statement = t.prepare("SELECT first, size FROM user_ranges ORDER BY first")?;
            let taken = statement
                .query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?)))?
                .map(|row| row.map(|(first, size)| span(first, size)))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let first = place(&given, &taken, size).ok_or_else(|| {
                Error::exhausted(format!(
                    "could not find enough available IDs: {size} in a row of what {:?} has",
                    self.user
                ))
            })?;
            t.execute("INSERT INTO user_ranges VALUES (?1, ?2, ?3)", (container, first, size))?;
            Ok(())
        })
    }

    pub(crate) fn free(&self, container: &str) -> Result<()> {
        self.store.settle(|t| {
            t.execute("DELETE FROM user_ranges WHERE container = ?1", [container])?;
            Ok(())
        })
    }

    /// Who has one.
    pub(crate) fn owners(&self) -> Result<Vec<String>> {
        self.store.read(|connection| {
            let mut statement = connection.prepare("SELECT container FROM user_ranges")?;
            let owners = statement.query_map([], |row| row.get(0))?;
            Ok(owners.collect::<rusqlite::Result<_>>()?)
        })
    }
}

impl Inner {
    /// Gives a container what its mode asks for; its file system is there already.
    pub(crate) fn take_range(&self, id: &str, mode: &str, user: &str) -> Result<()> {
        if !mode.starts_with("auto") {
            return Ok(());
        }
        let size = match mode.strip_prefix("auto:size=").and_then(|size| size.parse().ok()) {
            Some(size) => size,
            None => {
                let root = self.parts.snapshots.mount_detached(id, true)?;
                let [passwd, group] =
                    ["etc/passwd", "etc/group"].map(|name| crate::prepare::read_in(&root, name));
                needed(&passwd?, &group?, user)
            }
        };
        self.ranges.take(id, size)
    }
}

fn span(first: u32, size: u32) -> Range<u64> {
    u64::from(first)..u64::from(first) + u64::from(size)
}

/// The ranges that a file of `USER:FIRST:SIZE` gives, in order; no id above what the kernel has.
fn given(file: &str, user: &str) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = file
        .lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            (fields.next()? == user).then_some(())?;
            let (first, size): (u32, u32) =
                (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let range = span(first, size);
            (fields.next().is_none() && size > 0 && range.end < u64::from(u32::MAX))
                .then_some(range)
        })
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// What both have.
fn common(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let both = |a: &Range<u64>, b: &Range<u64>| a.start.max(b.start)..a.end.min(b.end);
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| both(a, b)));
    let mut ranges: Vec<_> = pairs.filter(|range| !range.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// The first gap that is large enough. `taken` is in order.
fn place(given: &[Range<u64>], taken: &[Range<u64>], size: u32) -> Option<u32> {
    for range in given {
        let mut first = range.start;
        for other in taken.iter().filter(|other| other.end > range.start) {
            if other.start >= first + u64::from(size) {
                break;
            }
            first = first.max(other.end);
        }
        if first + u64::from(size) <= range.end {
            return u32::try_from(first).ok();
        }
    }
    None
}

/// As many ids as the files of an image and the container's user name.
fn needed(passwd: &[u8], group: &[u8], user: &str) -> u32 {
    let ids = |file: &[u8]| -> Vec<u32> {
        let text = String::from_utf8_lossy(file);
        let fields = text.lines().flat_map(|line| line.split(':').skip(2).take(2));
        fields.filter_map(|field| field.parse().ok()).collect()
    };
    let named = user.split(':').filter_map(|id| id.parse().ok());
    let group = String::from_utf8_lossy(group);
    let groups = group.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok());
    let largest = ids(passwd).into_iter().chain(groups).filter(|id| *id != NOBODY).chain(named);
    let size = largest.filter(|id| *id < MAX_SIZE).max().map_or(MIN_SIZE, |id| id + 1);
    size.max(MIN_SIZE)
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range is as good as several")]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_of_one_user() {
        let file = "root:1:5\ncontainers:100000:65536\n# containers:1:1\ncontainers:5000:10\n\
            containers:x:1\ncontainers:7:0\ncontainers:4294967290:10\nother:1:1\n";
        assert_eq!(given(file, "containers"), [5000..5010, 100_000..165_536]);
        assert_eq!(given(file, "nobody"), []);
        assert_eq!(common(&[5..10, 20..40], &[8..30]), [8..10, 20..30]);
        assert_eq!(common(&[5..10], &[10..11]), []);
    }

    #[test]
    fn a_range_is_the_first_gap_that_is_large_enough() {
        let given = [100..200, 300..1000];
        for (taken, size, first) in [
            (&[][..], 100, Some(100)),
            (&[], 101, Some(300)),
            (&[], 701, None),
            (&[100..150][..], 50, Some(150)),
            (&[100..150][..], 51, Some(300)),
            (&[150..200], 50, Some(100)),
            (&[120..130, 140..200], 20, Some(100)),
            (&[120..130, 140..200], 21, Some(300)),
            (&[300..400, 500..600, 700..1000], 100, Some(100)),
            (&[100..200, 300..400, 500..600, 700..1000], 100, Some(400)),
            (&[100..200, 300..1000], 1, None),
        ] {
            assert_eq!(place(&given, taken, size), first, "{taken:?} {size}");
        }
    }

    #[test]
    fn an_image_needs_as_many_ids_as_it_names() {
        let passwd =
            b"root:x:0:0::/:\napp:x:5000:6000::/:\nnobody:x:65534:65534::/:\nhuge:x:70000:1::/:\n";
        assert_eq!(needed(b"", b"", ""), 1024);
        assert_eq!(needed(passwd, b"", "app"), 6001);
        assert_eq!(needed(passwd, b"g:x:6500:\nx:y\n", ""), 6501);
        assert_eq!(needed(passwd, b"", "7000:1"), 7001);
        assert_eq!(needed(b"", b"", "65534"), 65535);
    }

    #[test]
    fn no_two_have_the_same_ids_and_freed_ones_are_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let store = Store::open(&directory.path().join("meta.db")).unwrap();
            Ranges::open(&store, "10:25").unwrap()
        };
        let ranges = open();
        ranges.take("a", 10).unwrap();
        ranges.take("b", 10).unwrap();
        // As after a restart.
        let ranges = open();
        let of = |id| ranges.of(id).unwrap().map(|map| (map.host_id, map.size));
        assert_eq!((of("a"), of("b")), (Some((10, 10)), Some((20, 10))));
        let error = ranges.take("c", 10).unwrap_err();
        assert!(error.message().contains("could not find enough available IDs"), "{error}");
        ranges.free("a").unwrap();
        ranges.free("a").unwrap();
        ranges.take("c", 8).unwrap();
        assert_eq!(of("c"), Some((10, 8)));
        ranges.free("c").unwrap();
        assert_eq!(
            (ranges.of("a").unwrap(), ranges.owners().unwrap()),
            (None, vec!["b".to_owned()])
        );
    }
}
