//! The rows: which snapshot is which directory, and what lies on what.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hull_manager_core::{Error, Result, Store, error::IoContext as _, files};
use hull_runtime_sys::path::c_path;
use hull_specs_image::Digest;
use rusqlite::{OptionalExtension as _, Row, Transaction};

use crate::{Finding, Info, Kind};

/// A directory that is on its way out. No number has this name.
const TRASH: &str = "trash-";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS snapshots (
        number INTEGER PRIMARY KEY AUTOINCREMENT, driver TEXT NOT NULL, name TEXT NOT NULL,
        kind INTEGER NOT NULL, parent INTEGER REFERENCES snapshots (number), UNIQUE (driver, name));
    CREATE INDEX IF NOT EXISTS snapshots_on ON snapshots (parent)";

/// The driver whose snapshots a store knows, if it knows any.
pub(crate) fn driver(store: &Store) -> Result<Option<String>> {
    store.tables(TABLE)?;
    store.read(|connection| {
        let mut statement = connection.prepare("SELECT driver FROM snapshots LIMIT 1")?;
        Ok(statement.query_row([], |row| row.get(0)).optional()?)
    })
}

/// The rows of one driver and their directories `ROOT/NUMBER`.
#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
    driver: &'static str,
    root: PathBuf,
    /// Held while the rows and the directories differ.
    turn: Arc<Mutex<()>>,
    /// Directories that were set aside.
    aside: Arc<AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) number: i64,
    pub(crate) kind: Kind,
    pub(crate) parent: Option<i64>,
}

impl Records {
    /// The rows in `store`; what a killed manager has left is removed.
    pub(crate) fn open(store: &Store, driver: &'static str, root: &Path) -> Result<Self> {
        files::private_directory(root, 0o700)?;
        store.tables(TABLE)?;
        let records = Self {
            store: store.clone(),
            driver,
            root: root.to_owned(),
            turn: Arc::default(),
            aside: Arc::default(),
        };
        // A full disk must not keep the manager away: it is needed to make room.
        records.store.settle(|t| {
            t.execute(
                "DELETE FROM snapshots WHERE driver = ?1 AND kind = ?2",
                (driver, code(Kind::Staged)),
            )?;
            Ok(())
        })?;
        for stray in records.strays()? {
            remove_tree(&stray)?;
        }
        Ok(records)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn directory(&self, number: i64) -> PathBuf {
        self.root.join(number.to_string())
    }

    pub(crate) fn find(&self, name: &str) -> Result<Option<Record>> {
        self.store.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT number, kind, parent FROM snapshots WHERE driver = ?1 AND name = ?2",
            )?;
            Ok(statement.query_row((self.driver, name), record).optional()?)
        })
    }

    pub(crate) fn get(&self, name: &str) -> Result<Record> {
        self.find(name)?.ok_or_else(|| Error::not_found(format!("no snapshot {name}")))
    }

    pub(crate) fn layer(&self, chain_id: &Digest) -> Result<Record> {
        self.get(&chain_id.to_string())
    }

    /// The numbers from the layer on which `record` lies down to the lowest.
    pub(crate) fn below(&self, record: &Record) -> Result<Vec<i64>> {
        self.store.read(|connection| {
            let mut statement = connection.prepare_cached(
                "WITH RECURSIVE below (number, depth) AS (
                    SELECT ?1, 0 UNION ALL
                    SELECT s.parent, depth + 1 FROM snapshots s JOIN below USING (number)
                    WHERE s.parent IS NOT NULL)
                 SELECT number FROM below WHERE number IS NOT NULL ORDER BY depth",
            )?;
            let numbers = statement.query_map([record.parent], |row| row.get(0))?;
            Ok(numbers.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// A new row. Its directory is made by `make` before anybody can see the row.
    pub(crate) fn insert(
        &self,
        name: &str,
        kind: Kind,
        parent: Option<&Digest>,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Record> {
        let mut made = None;
        let turn = self.turn();
        let inserted = self.store.write(|t| {
            let parent = parent.map(|parent| self.layer_in(t, parent)).transpose()?;
            let inserted = t
                .prepare_cached("INSERT OR IGNORE INTO snapshots (driver, name, kind, parent) VALUES (?1, ?2, ?3, ?4)")?
                .execute((self.driver, name, code(kind), parent))?;
            if inserted == 0 {
                return Err(Error::already_exists(format!("there is a snapshot {name} already")));
            }
            let number = t.last_insert_rowid();
            let directory = self.directory(number);
            // The number of a rolled-back row is given again.
            if directory.exists() {
                remove_tree(&directory)?;
            }
            make(made.insert(directory))?;
            Ok(Record { number, kind, parent })
        });
        // Also if it is the row that the disk has no room for.
        inserted.inspect_err(|_| {
            let left = made.map_or(Ok(None), |directory| self.set_aside(&directory));
            // From here on the number may be another's.
            drop(turn);
            if let Ok(Some(trash)) = left {
                drop(remove_tree(&trash));
            }
        })
    }

    /// Takes a directory away from its number. Who has done that removes it, and nobody else does
    /// but the next start. Nothing if it is not there.
    fn set_aside(&self, directory: &Path) -> Result<Option<PathBuf>> {
        let trash =
            self.root.join(format!("{TRASH}{}", self.aside.fetch_add(1, Ordering::Relaxed)));
        match fs::rename(directory, &trash) {
            Ok(()) => Ok(Some(trash)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).about(directory.display()),
        }
    }

    /// Whether there is a layer, and its directory.
    pub(crate) fn has_layer(&self, chain_id: &Digest) -> Result<bool> {
        let found = self.find(&chain_id.to_string())?;
        Ok(found.is_some_and(|found| found.kind == Kind::Layer && self.is_whole(found.number)))
    }

    fn is_whole(&self, number: i64) -> bool {
        self.directory(number).join("fs").is_dir()
    }

    /// A staged row becomes a layer; false if there is that layer already. `merge` has the last
    /// word: it brings the directory to the form of a layer. Of a layer whose directory is gone,
    /// this becomes the directory.
    pub(crate) fn commit(
        &self,
        key: &str,
        chain_id: &Digest,
        parent: Option<&Digest>,
        merge: impl FnOnce(i64, Option<i64>) -> Result<()>,
    ) -> Result<bool> {
        let staged = self.get(key)?;
        if staged.kind != Kind::Staged {
            return Err(Error::conflict(format!("snapshot {key} is not staged")));
        }
        if self.has_layer(chain_id)? {
            return Ok(false);
        }
        // While it is merged, the parent stays.
        let below = self.store.write(|t| {
            let parent = parent.map(|parent| self.layer_in(t, parent)).transpose()?;
            t.execute(
                "UPDATE snapshots SET parent = ?2 WHERE number = ?1",
                (staged.number, parent),
            )?;
            Ok(parent)
        })?;
        merge(staged.number, below)?;
        // The row may reach the disk at any time from when it is written, and nobody looks at
        // the files of a layer again.
        sync(&self.directory(staged.number))?;
        let _turn = self.turn();
        self.store.write(|t| {
            let name = chain_id.to_string();
            let there = t
                .query_row(
                    "SELECT number FROM snapshots WHERE driver = ?1 AND name = ?2",
                    (self.driver, &name),
                    |row| row.get(0),
                )
                .optional()?;
            match there {
                None => t.execute(
                    "UPDATE snapshots SET name = ?2, kind = ?3 WHERE number = ?1",
                    (staged.number, name, code(Kind::Layer)),
                )?,
                Some(there) if self.is_whole(there) => return Ok(false),
                Some(there) => {
                    let directory = self.directory(there);
                    if directory.exists() {
                        remove_tree(&directory)?;
                    }
                    fs::rename(self.directory(staged.number), &directory)
                        .about(directory.display())?;
                    t.execute("DELETE FROM snapshots WHERE number = ?1", [staged.number])?
                }
            };
            Ok(true)
        })
    }

    /// What was filled as staged becomes what it was meant to be.
    pub(crate) fn promote(&self, record: &Record, kind: Kind) -> Result<()> {
        self.store.write(|t| {
            t.execute(
                "UPDATE snapshots SET kind = ?2 WHERE number = ?1",
                (record.number, code(kind)),
            )?;
            Ok(())
        })
    }

    fn layer_in(&self, t: &Transaction<'_>, chain_id: &Digest) -> Result<i64> {
        t.prepare_cached(
            "SELECT number FROM snapshots WHERE driver = ?1 AND name = ?2 AND kind = ?3",
        )?
        .query_row((self.driver, chain_id.to_string(), code(Kind::Layer)), |row| row.get(0))
        .optional()?
        .ok_or_else(|| Error::not_found(format!("no layer {chain_id}")))
    }

    /// Removes a row and then its directory; false if there is no such row.
    pub(crate) fn remove(&self, name: &str, layer: bool) -> Result<bool> {
        let Some(record) = self.find(name)? else { return Ok(false) };
        if layer != (record.kind == Kind::Layer) {
            return Err(Error::conflict(format!("snapshot {name} is of another kind")));
        }
        let turn = self.turn();
        self.store.settle(|t| {
            let children: i64 = t
                .prepare_cached("SELECT count(*) FROM snapshots WHERE parent = ?1")?
                .query_row([record.number], |row| row.get(0))?;
            if children > 0 {
                return Err(Error::conflict(format!(
                    "layer {name} is in use by {children} snapshots"
                )));
            }
            t.prepare_cached("DELETE FROM snapshots WHERE number = ?1")?
                .execute([record.number])?;
            Ok(())
        })?;
        // Without its row it is nothing but rubbish: if this fails, the next start removes it.
        let trash = self.set_aside(&self.directory(record.number))?;
        drop(turn);
        if let Some(trash) = trash {
            remove_tree(&trash)?;
        }
        Ok(true)
    }

    pub(crate) fn list(&self) -> Result<Vec<(Info, i64)>> {
        self.store.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT s.name, s.kind, p.name, s.number FROM snapshots s LEFT JOIN snapshots p ON s.parent = p.number
                 WHERE s.driver = ?1 ORDER BY s.number",
            )?;
            let rows = statement.query_map([self.driver], |row| {
                let parent: Option<String> = row.get(2)?;
                let info = Info {
                    name: row.get(0)?,
                    kind: kind(row.get(1)?),
                    parent: parent.and_then(|parent| parent.parse().ok()),
                };
                Ok((info, row.get(3)?))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Directories that no row names.
    fn strays(&self) -> Result<Vec<PathBuf>> {
        let known: std::collections::HashSet<PathBuf> =
            self.list()?.into_iter().map(|(_, number)| self.directory(number)).collect();
        let mut strays = Vec::new();
        for entry in fs::read_dir(&self.root).about(self.root.display())? {
            let path = entry.about(self.root.display())?.path();
            if !known.contains(&path) {
                strays.push(path);
            }
        }
        Ok(strays)
    }

    /// Directories without a row, and rows without a directory. Others go on meanwhile.
    pub(crate) fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        let turn = self.turn();
        let rows = self.list()?;
        let mut strays = Vec::new();
        for stray in self.strays()? {
            // It is somebody's who removes it.
            if stray
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(TRASH.as_bytes()))
            {
                continue;
            }
            let trash = if repair { self.set_aside(&stray).ok().flatten() } else { None };
            strays.push((stray, trash));
        }
        let lost: Vec<_> = rows.into_iter().filter(|(_, number)| !self.is_whole(*number)).collect();
        drop(turn);
        let mut findings = Vec::new();
        for (stray, trash) in strays {
            let repaired = trash.is_some_and(|trash| remove_tree(&trash).is_ok());
            findings.push(Finding {
                subject: format!("snapshot directory {}", stray.display()),
                problem: "no snapshot has it".into(),
                repaired: repaired.then(|| "removed".into()),
            });
        }
        for (info, number) in lost {
            findings.push(Finding {
                subject: format!("snapshot {}", info.name),
                problem: format!("its directory {} is gone", self.directory(number).display()),
                repaired: None,
            });
        }
        Ok(findings)
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record { number: row.get(0)?, kind: kind(row.get(1)?), parent: row.get(2)? })
}

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Staged => 0,
        Kind::Layer => 1,
        Kind::Active => 2,
        Kind::View => 3,
    }
}

fn kind(code: u8) -> Kind {
    match code {
        0 => Kind::Staged,
        1 => Kind::Layer,
        3 => Kind::View,
        _ => Kind::Active,
    }
}

fn sync(directory: &Path) -> Result<()> {
    let open = fs::File::open(directory).about(directory.display())?;
    hull_runtime_sys::fd::sync_file_system(open).map_err(|cause| {
        Error::from(anyhow::Error::new(cause).context("bring a layer to the disk"))
    })
}

/// Removes a directory of ours with all that a container has put there, however deep: std's
/// removal calls itself for each level, and a container makes more of them than a stack holds.
fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal(format!("{} has no parent", path.display())));
    };
    let parent = fs::File::open(parent).about(parent.display())?;
    let name = c_path(name).map_err(anyhow::Error::new)?;
    hull_manager_archive::remove(parent, &name)
        .map_err(|cause| Error::internal(format!("remove {}", path.display())).because(cause))
}

#[cfg(test)]
mod tests {
    use hull_runtime_sys::fd::{mkdirat, openat};

    use super::*;

    #[test]
    fn a_tree_as_deep_as_a_container_likes_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("deep");
        fs::create_dir(&deep).unwrap();
        let mut at: std::os::fd::OwnedFd = fs::File::open(&deep).unwrap().into();
        for _ in 0..5_000 {
            mkdirat(&at, c"d", 0o700).unwrap();
            at = openat(&at, c"d", libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        }
        drop(at);
        remove_tree(&deep).unwrap();
        assert!(!deep.exists());
    }
}
