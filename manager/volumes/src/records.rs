//! What the metadata store knows: volumes, and who uses them.

use hull_manager_core::{Result, Store};
use hull_specs_api::v1;
use prost::Message as _;
use rusqlite::{OptionalExtension as _, params};

/// The tables. A volume's record is the message that its inspection answers, without what is
/// looked up each time: mountpoint and users.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS volumes (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS volume_users (
        volume TEXT NOT NULL REFERENCES volumes (name), container TEXT NOT NULL,
        mounted INTEGER NOT NULL, PRIMARY KEY (volume, container)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS volume_users_container ON volume_users (container);";

#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
}

impl Records {
    pub(crate) fn open(store: &Store) -> Result<Self> {
        store.tables(TABLES)?;
        Ok(Self { store: store.clone() })
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<v1::Volume>> {
        let record: Option<Vec<u8>> = self.store.read(|c| {
            let sql = "SELECT record FROM volumes WHERE name = ?1";
            Ok(c.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
        })?;
        record.map(|record| self.whole(&record)).transpose()
    }

    pub(crate) fn all(&self) -> Result<Vec<v1::Volume>> {
        let records: Vec<Vec<u8>> = self.store.read(|c| {
            let mut statement = c.prepare_cached("SELECT record FROM volumes ORDER BY name")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        records.iter().map(|record| self.whole(record)).collect()
    }

    fn whole(&self, record: &[u8]) -> Result<v1::Volume> {
        let mut volume = v1::Volume::decode(record).map_err(|cause| {
            hull_manager_core::Error::corrupt("the record of a volume").because(cause)
        })?;
        volume.containers = self.names(
            "SELECT container FROM volume_users WHERE volume = ?1 ORDER BY container",
            &volume.name,
        )?;
        Ok(volume)
    }

    fn names(&self, sql: &str, of: &str) -> Result<Vec<String>> {
        self.store.read(|c| {
            let mut statement = c.prepare_cached(sql)?;
            let rows = statement.query_map([of], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    pub(crate) fn insert(&self, volume: &v1::Volume) -> Result<()> {
        let stored =
            v1::Volume { mountpoint: String::new(), containers: Vec::new(), ..volume.clone() };
        let sql = "INSERT INTO volumes VALUES (?1, ?2)";
        self.store.write(|t| {
            t.execute(sql, params![volume.name, stored.encode_to_vec()])?;
            Ok(())
        })
    }

    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        self.store.settle(|t| {
            t.execute("DELETE FROM volumes WHERE name = ?1", [name])?;
            Ok(())
        })
    }

    pub(crate) fn add_user(&self, volume: &str, container: &str) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO volume_users VALUES (?1, ?2, 0)";
        self.store.write(|t| {
            t.execute(sql, [volume, container])?;
            Ok(())
        })
    }

    pub(crate) fn remove_user(&self, container: &str) -> Result<()> {
        self.store.settle(|t| {
            t.execute("DELETE FROM volume_users WHERE container = ?1", [container])?;
            Ok(())
        })
    }

    pub(crate) fn set_mounted(&self, volume: &str, container: &str, mounted: bool) -> Result<()> {
        let sql = "UPDATE volume_users SET mounted = ?3 WHERE volume = ?1 AND container = ?2";
        self.store.settle(|t| {
            t.execute(sql, params![volume, container, mounted])?;
            Ok(())
        })
    }

    /// The volumes of a container.
    pub(crate) fn of_container(&self, container: &str) -> Result<Vec<String>> {
        self.names("SELECT volume FROM volume_users WHERE container = ?1", container)
    }

    /// Those who have it mounted.
    pub(crate) fn mounted_by(&self, volume: &str) -> Result<Vec<String>> {
        self.names("SELECT container FROM volume_users WHERE volume = ?1 AND mounted", volume)
    }
}
