//! The journal of what happened: kept on disk, told to whoever listens.

use std::time::{SystemTime, UNIX_EPOCH};

use hull_specs_api::v1;
use prost::Message as _;
use tokio::sync::broadcast;

use crate::{error::Result, store::Store};

/// So many of the newest are kept.
const MAX_EVENTS: i64 = 10_000;

/// Removed together, so that not each event removes one.
const SLACK: u64 = 500;

/// So many may wait for a listener; one that is further behind reads them from disk.
const QUEUE: usize = 256;

/// What to listen to next.
pub type Listener = broadcast::Receiver<v1::Event>;

/// The journal; clones share it.
#[derive(Clone)]
pub struct Journal {
    store: Store,
    listeners: broadcast::Sender<v1::Event>,
}

impl Journal {
    /// The journal in `store`.
    ///
    /// # Errors
    /// If its table can't be made.
    pub fn open(store: &Store) -> Result<Self> {
        store.tables(
            "CREATE TABLE IF NOT EXISTS events (
                sequence INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, event BLOB NOT NULL)",
        )?;
        Ok(Self { store: store.clone(), listeners: broadcast::Sender::new(QUEUE) })
    }

    /// Something happened now: `kind` is `container`, `image`, …; `action` docker's word.
    /// A full disk loses the entry, not what it is about: listeners are told either way.
    pub fn record(&self, kind: &str, action: &str, actor: &str, attributes: &[(&str, &str)]) {
        let now = SystemTime::now();
        let mut event = v1::Event {
            time: Some(now.into()),
            r#type: kind.into(),
            action: action.into(),
            actor: actor.into(),
            attributes: attributes
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            sequence: 0,
        };
        let written = self.store.write(|t| {
            t.prepare_cached("INSERT INTO events (time_ns, event) VALUES (?1, ?2)")?
                .execute((nanoseconds(now), event.encode_to_vec()))?;
            let sequence = u64::try_from(t.last_insert_rowid()).unwrap_or(0);
            if sequence % SLACK == 0 {
                t.execute(
                    "DELETE FROM events WHERE sequence <= ?1",
                    [t.last_insert_rowid() - MAX_EVENTS],
                )?;
            }
            Ok(sequence)
        });
        match written {
            Ok(sequence) => event.sequence = sequence,
            Err(error) => tracing::warn!(%error, "an event is not in the journal"),
        }
        // Nobody listens: that is fine.
        drop(self.listeners.send(event));
    }

    /// From now on. Listen first, then read what was: what is in both has the same sequence.
    #[must_use]
    pub fn listen(&self) -> Listener {
        self.listeners.subscribe()
    }

    /// Up to `limit` kept events after `sequence`, not older than `since`, the oldest first.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn after(&self, sequence: u64, since: SystemTime, limit: u32) -> Result<Vec<v1::Event>> {
        self.store.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sequence, event FROM events WHERE sequence > ?1 AND time_ns >= ?2 ORDER BY sequence LIMIT ?3",
            )?;
            let from = i64::try_from(sequence).unwrap_or(i64::MAX);
            let rows = statement.query_map((from, nanoseconds(since), limit), |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })?;
            let mut events = Vec::new();
            for row in rows {
                let (sequence, bytes) = row?;
                // One that can't be read is of no use to anybody.
                if let Ok(event) = v1::Event::decode(&*bytes) {
                    events.push(v1::Event { sequence: u64::try_from(sequence).unwrap_or(0), ..event });
                }
            }
            Ok(events)
        })
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_heard_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let journal = Journal::open(&Store::open(&path).unwrap()).unwrap();
        let mut listener = journal.listen();
        journal.record("container", "start", "c1", &[("name", "a")]);
        journal.record("container", "die", "c1", &[("exitCode", "3")]);
        let heard = listener.try_recv().unwrap();
        assert_eq!((heard.action.as_str(), heard.sequence), ("start", 1));
        drop(journal);
        let journal = Journal::open(&Store::open(&path).unwrap()).unwrap();
        let kept = journal.after(1, UNIX_EPOCH, 10).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].attributes["exitCode"], "3");
        assert_eq!(
            journal.after(0, SystemTime::now() + std::time::Duration::from_secs(1), 10).unwrap(),
            []
        );
    }

    #[test]
    fn only_the_newest_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let journal =
            Journal::open(&Store::open(&directory.path().join("meta.db")).unwrap()).unwrap();
        for _ in 0..10_600 {
            journal.record("image", "tag", "i", &[]);
        }
        let kept = journal.after(0, UNIX_EPOCH, u32::MAX).unwrap();
        assert!((10_000..=10_500).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last().unwrap().sequence, 10_600);
    }
}
