//! The metadata store: one SQLite database in the data root.
//!
//! Why SQLite: the manager may be killed between any two instructions, and a container must not
//! wait for the disk. A transaction in SQLite's write-ahead log is complete after one write(2),
//! so SIGKILL loses nothing of what was acknowledged, and after a power cut the database is
//! consistent and lacks at most the last moments. Stores that are whole only after fsync (redb)
//! cost milliseconds a commit, or lose commits with the process. [`Store::sync`] is for what must
//! survive a power cut before it is acknowledged.
//!
//! Each part of the manager owns its tables and declares them when it is made ([`Store::tables`]).

use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    error::{Error, Result},
    reserve::Reserve,
};

/// The version of all tables together, in `user_version`. A database of a later one is refused.
const VERSION: i64 = 1;

/// Beside the database.
const RESERVE: &str = "reserve";

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    reserve: Arc<Reserve>,
}

/// Makes a file that only its owner reads, or has one that is there be so.
fn private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    for kind in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(kind);
        match fs::set_permissions(&name, Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Store {
    /// Opens the database at `path`, made if it is not there.
    ///
    /// # Errors
    /// If it can't be opened, is damaged, or is of a later version.
    pub fn open(path: &Path) -> Result<Self> {
        // Rows have what containers were given, secrets among it. SQLite gives its other files the
        // mode of this one.
        private(path).map_err(|cause| {
            Error::internal(format!("make {} private", path.display())).because(cause)
        })?;
        let reserve = Reserve::open(path.with_file_name(RESERVE));
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            // Rows are small and few; the page cache of the kernel has them anyway.
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
                 PRAGMA cache_size = -512; PRAGMA journal_size_limit = 1048576;",
            )?;
            Ok(connection)
        };
        // What SQLite keeps beside the database is made anew at each start.
        let about = |cause| Error::from(cause).context(format!("open {}", path.display()));
        let connection = reserve.behind(|| open().map_err(about))?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => connection.pragma_update(None, "user_version", VERSION)?,
            VERSION => {}
            later => {
                return Err(Error::conflict(format!(
                    "{} is of version {later}, this is {VERSION}: a later hulld wrote it",
                    path.display()
                )));
            }
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), reserve: Arc::new(reserve) })
    }

    /// Makes tables that are not there: `CREATE TABLE IF NOT EXISTS …`.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn tables(&self, sql: &str) -> Result<()> {
        Ok(self.lock().execute_batch(sql)?)
    }

    /// Reads.
    ///
    /// # Errors
    /// Whatever `read` gives.
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        read(&self.lock())
    }

    /// Changes, all or nothing. When it returns, the change survives the process.
    ///
    /// # Errors
    /// Whatever `change` gives; then nothing was changed.
    pub fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = change(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// As [`Self::write`], of what makes room, and of what has happened already: a full disk does
    /// not keep it from being written.
    ///
    /// # Errors
    /// As of [`Self::write`].
    pub fn settle<T>(&self, change: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.with_reserve(|| self.write(&change))
    }

    /// Does something small that makes room, or follows from it; on a full disk, in the room that
    /// is kept for that.
    ///
    /// # Errors
    /// Whatever `work` gives; that the disk is full if the reserve was not enough, too.
    pub fn with_reserve<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        self.reserve.behind(work)
    }

    /// Brings all that was written to the disk.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.with_reserve(|| {
            self.lock().query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?;
            Ok(())
        })
    }

    /// Whether SQLite finds its own structures whole: its findings, none if so.
    ///
    /// # Errors
    /// If it can't be asked.
    pub fn check(&self) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
            let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(lines
                .collect::<rusqlite::Result<Vec<_>>>()?
                .into_iter()
                .filter(|line| line != "ok")
                .collect())
        })
    }

    /// A panic in one request leaves the connection usable: its transaction was rolled back.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(store: &Store) -> i64 {
        store.read(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)).unwrap()
    }

    #[test]
    fn a_failed_change_changes_nothing_and_a_finished_one_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let store = Store::open(&path).unwrap();
        store.tables("CREATE TABLE IF NOT EXISTS t (a INTEGER)").unwrap();
        let refused = store.write(|t| {
            t.execute("INSERT INTO t VALUES (1)", [])?;
            Err::<(), _>(Error::conflict("no"))
        });
        assert_eq!(refused.unwrap_err().message(), "no");
        assert_eq!(count(&store), 0);
        store.write(|t| Ok(t.execute("INSERT INTO t VALUES (1)", [])?)).unwrap();
        // Another connection, as after SIGKILL: the first was not closed.
        assert_eq!(count(&Store::open(&path).unwrap()), 1);
        assert_eq!(store.check().unwrap(), Vec::<String>::new());
        store.sync().unwrap();
        let modes = || {
            let files = fs::read_dir(directory.path()).unwrap();
            files.map(|file| file.unwrap().metadata().unwrap().permissions().mode() & 0o777)
        };
        assert!(modes().all(|mode| mode == 0o600) && modes().count() >= 3);
        // One that an earlier manager has left open.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Store::open(&path).unwrap();
        assert!(modes().all(|mode| mode == 0o600));
    }

    #[test]
    fn a_later_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
        let error = Store::open(&path).err().unwrap();
        assert!(error.message().contains("is of version 2"), "{error}");
    }
}
