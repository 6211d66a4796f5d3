//! What is stored of a container: what was asked, and what only the manager knows. One row each.

use std::time::SystemTime;

use hull_manager_core::{Error, Result, Store};
use hull_specs_api::v1;
use prost::Message as _;
use rusqlite::params;
use serde::{Deserialize, Serialize};

/// One container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    /// As it is shown, without its state.
    pub(crate) container: v1::Container,
    /// The options with all defaults.
    pub(crate) effective: v1::ContainerOptions,
    pub(crate) facts: Facts,
}

/// What happened to it, as far as nobody else knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Facts {
    /// The user has stopped it, and not started it since.
    pub(crate) stopped_by_user: bool,
    /// By its restart policy, since a user started it.
    pub(crate) restarts: u32,
    /// The last start that succeeded.
    pub(crate) started: Option<SystemTime>,
    /// How that ended, once known here.
    pub(crate) ended: Option<Ended>,
    /// Why the last start failed.
    pub(crate) error: String,
    /// It is being removed: what is left of it is to go, too.
    pub(crate) removing: bool,
    /// With its anonymous volumes.
    pub(crate) removing_volumes: bool,
    /// It stands still only until its image is made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) paused_for_commit: bool,
}

/// An end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    /// Any of its processes, not the first alone.
    pub(crate) oom_killed: bool,
    pub(crate) at: SystemTime,
}

impl Facts {
    /// A start that was done, and its manager killed before it could say so. Before that start it
    /// was not running: whatever a user had stopped is started.
    pub(crate) fn catch_up(&mut self, started: SystemTime) {
        if self.started.is_none() || self.ended.as_ref().is_some_and(|ended| ended.at < started) {
            self.started = Some(started);
            self.ended = None;
            self.error.clear();
            self.stopped_by_user = false;
        }
    }
}

impl Record {
    pub(crate) fn id(&self) -> &str {
        &self.container.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.container.name
    }
}

/// The table.
#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
}

impl Records {
    pub(crate) fn open(store: &Store) -> Result<Self> {
        store.tables(
            "CREATE TABLE IF NOT EXISTS containers (
                id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,
                container BLOB NOT NULL, effective BLOB NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID",
        )?;
        Ok(Self { store: store.clone() })
    }

    /// All rows by id; of one that can't be read, why.
    pub(crate) fn all(&self) -> Result<Vec<(String, Result<Record>)>> {
        self.store.read(|connection| {
            let mut statement =
                connection.prepare("SELECT id, container, effective, facts FROM containers")?;
            let rows = statement.query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, Vec<u8>>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })?;
            let mut records = Vec::new();
            for row in rows {
                let (id, container, effective, facts) = row?;
                let record = decode(&container, &effective, &facts).map_err(|cause| {
                    Error::corrupt(format!("the row of container {id}")).because(cause)
                });
                records.push((id, record));
            }
            Ok(records)
        })
    }

    pub(crate) fn insert(&self, record: &Record) -> Result<()> {
        let facts = encode(&record.facts)?;
        self.store.write(|t| {
            t.prepare_cached(
                "INSERT INTO containers (id, name, container, effective, facts) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                record.id(),
                record.name(),
                record.container.encode_to_vec(),
                record.effective.encode_to_vec(),
                facts
            ])?;
            Ok(())
        })
    }

    /// The whole row anew.
    pub(crate) fn update(&self, record: &Record) -> Result<()> {
        let facts = encode(&record.facts)?;
        self.store.write(|t| {
            t.prepare_cached(
                "UPDATE containers SET name = ?2, container = ?3, effective = ?4, facts = ?5 WHERE id = ?1",
            )?
            .execute(params![
                record.id(),
                record.name(),
                record.container.encode_to_vec(),
                record.effective.encode_to_vec(),
                facts
            ])?;
            Ok(())
        })
    }

    /// What has happened already, or is about to end.
    pub(crate) fn update_facts(&self, id: &str, facts: &Facts) -> Result<()> {
        let facts = encode(facts)?;
        self.store.settle(|t| {
            t.prepare_cached("UPDATE containers SET facts = ?2 WHERE id = ?1")?
                .execute(params![id, facts])?;
            Ok(())
        })
    }

    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.store.settle(|t| {
            t.prepare_cached("DELETE FROM containers WHERE id = ?1")?.execute([id])?;
            Ok(())
        })
    }
}

fn encode(facts: &Facts) -> Result<String> {
    serde_json::to_string(facts).map_err(|cause| Error::internal("facts").because(cause))
}

fn decode(container: &[u8], effective: &[u8], facts: &str) -> anyhow::Result<Record> {
    Ok(Record {
        container: v1::Container::decode(container)?,
        effective: v1::ContainerOptions::decode(effective)?,
        facts: serde_json::from_str(facts)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, name: &str) -> Record {
        let container = v1::Container { id: id.into(), name: name.into(), ..Default::default() };
        Record { container, ..Record::default() }
    }

    #[test]
    fn a_start_that_was_not_said_is_caught_up_with() {
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let ended = |seconds| Ended { exit_code: 3, oom_killed: false, at: at(seconds) };
        let before = Facts {
            started: Some(at(1)),
            ended: Some(ended(2)),
            stopped_by_user: true,
            error: "x".into(),
            ..Facts::default()
        };
        let known = Facts { started: Some(at(1)), stopped_by_user: true, ..Facts::default() };
        for (mut facts, caught_up) in [
            (Facts::default(), Facts { started: Some(at(5)), ..Facts::default() }),
            (before.clone(), Facts { started: Some(at(5)), ..Facts::default() }),
            (known.clone(), known),
            (
                Facts { ended: Some(ended(6)), ..before.clone() },
                Facts { ended: Some(ended(6)), ..before },
            ),
        ] {
            facts.catch_up(at(5));
            assert_eq!(facts, caught_up);
        }
    }

    #[test]
    fn rows_are_found_again_and_names_are_unique() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("meta.db")).unwrap();
        let records = Records::open(&store).unwrap();
        let mut first = record("a1", "one");
        records.insert(&first).unwrap();
        assert!(records.insert(&record("a2", "one")).is_err());
        first.container.name = "two".into();
        first.facts.ended = Some(Ended { exit_code: 3, oom_killed: true, at: SystemTime::now() });
        records.update(&first).unwrap();
        first.facts.stopped_by_user = true;
        records.update_facts("a1", &first.facts).unwrap();
        records.insert(&record("a2", "one")).unwrap();
        records.remove("a2").unwrap();
        let all: Vec<Record> =
            records.all().unwrap().into_iter().map(|(_, row)| row.unwrap()).collect();
        assert_eq!(all, [first]);
    }

    #[test]
    fn a_row_that_cannot_be_read_does_not_hide_the_others() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("meta.db")).unwrap();
        let records = Records::open(&store).unwrap();
        records.insert(&record("a1", "one")).unwrap();
        records.insert(&record("a2", "two")).unwrap();
        store
            .write(|t| Ok(t.execute("UPDATE containers SET facts = 'x' WHERE id = 'a1'", [])?))
            .unwrap();
        let all = records.all().unwrap();
        assert_eq!(all.iter().filter(|(_, row)| row.is_ok()).count(), 1);
        let error = all.into_iter().find_map(|(_, row)| row.err()).unwrap();
        assert!(error.to_string().contains("container a1"), "{error}");
    }
}
