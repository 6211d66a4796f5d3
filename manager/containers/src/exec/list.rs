//! Which execs there are. They are stored: a manager that is started anew knows them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use hull_manager_core::{Error, Result, Store};
use hull_specs_api::v1;
use prost::Message as _;
use rusqlite::params;
use tokio::sync::watch;

/// Of one container; the oldest that have ended are forgotten.
const MAX_EXECS: usize = 512;

/// One further process.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(super) request: v1::CreateExecRequest,
    /// Its process as the runtime takes it, until it is started.
    prepared: Mutex<Option<Vec<u8>>>,
    /// Its place in the order of creation.
    number: i64,
    pub(super) state: watch::Sender<State>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Somebody has asked for its start.
    pub(super) begun: bool,
    /// 0 until it runs.
    pub(super) pid: u32,
    pub(super) ended: bool,
    /// None also where nobody saw it end.
    pub(super) exit_code: Option<i32>,
}

impl Exec {
    pub(super) fn now(&self) -> State {
        *self.state.borrow()
    }

    pub(super) fn take_prepared(&self) -> Option<Vec<u8>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl State {
    pub(super) fn is_running(self) -> bool {
        self.pid != 0 && !self.ended
    }
}

/// All of them, by id, and their table.
pub(crate) struct Execs {
    store: Store,
    all: Mutex<BTreeMap<String, Arc<Exec>>>,
}

impl Execs {
    /// Those that are stored.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        store.tables(
            "CREATE TABLE IF NOT EXISTS execs (
                id TEXT PRIMARY KEY, container TEXT NOT NULL, number INTEGER NOT NULL,
                request BLOB NOT NULL, begun INTEGER NOT NULL, pid INTEGER NOT NULL,
                ended INTEGER NOT NULL, exit_code INTEGER) WITHOUT ROWID",
        )?;
        let all = store.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, container, number, request, begun, pid, ended, exit_code FROM execs",
            )?;
            let rows = statement.query_map([], |row| {
                let state = State {
                    begun: row.get(4)?,
                    pid: row.get(5)?,
                    ended: row.get(6)?,
                    exit_code: row.get(7)?,
                };
                let request: Vec<u8> = row.get(3)?;
                let exec = Exec {
                    id: row.get(0)?,
                    container: row.get(1)?,
                    // One that cannot be read is shown empty; it is not started any more.
                    request: v1::CreateExecRequest::decode(&*request).unwrap_or_default(),
                    prepared: Mutex::default(),
                    number: row.get(2)?,
                    state: watch::Sender::new(state),
                };
                Ok((exec.id.clone(), Arc::new(exec)))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        Ok(Self { store: store.clone(), all: Mutex::new(all) })
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Arc<Exec>>) -> T) -> T {
        act(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn find(&self, id: &str) -> Result<Arc<Exec>> {
        let missing = || Error::not_found(format!("No such exec instance: {id}"));
        self.with(|all| all.get(id).cloned()).ok_or_else(missing)
    }

    /// Those of a container that have not ended, in the order of their creation.
    pub(crate) fn of(&self, container: &str) -> Vec<Arc<Exec>> {
        let mut own: Vec<_> = self.with(|all| {
            let own = all.values().filter(|exec| exec.container == container && !exec.now().ended);
            own.cloned().collect()
        });
        own.sort_by_key(|exec| exec.number);
        own
    }

    /// Forgets those of a container that is removed.
    pub(crate) fn forget(&self, container: &str) -> Result<()> {
        let before = self.with(|all| {
            let before = all.len();
            all.retain(|_, exec| exec.container != container);
            before - all.len()
        });
        if before == 0 {
            return Ok(());
        }
        self.store.settle(|t| {
            let mut remove = t.prepare_cached("DELETE FROM execs WHERE container = ?1")?;
            remove.execute([container])?;
            Ok(())
        })
    }

    /// Adds one, and makes room for it.
    pub(super) fn add(
        &self,
        id: &str,
        container: &str,
        request: v1::CreateExecRequest,
        process: Vec<u8>,
    ) -> Result<()> {
        self.with(|all| {
            let own: Vec<_> = all.values().filter(|exec| exec.container == container).collect();
            let number = own.iter().map(|exec| exec.number).max().unwrap_or(0) + 1;
            let mut oldest = None;
            if own.len() >= MAX_EXECS {
                let ended = own.iter().filter(|exec| exec.now().ended);
                let Some(exec) = ended.min_by_key(|exec| exec.number) else {
                    return Err(Error::exhausted(format!(
                        "container {container} has {MAX_EXECS} execs"
                    )));
                };
                oldest = Some(exec.id.clone());
            }
            self.store.write(|t| {
                if let Some(oldest) = &oldest {
                    t.prepare_cached("DELETE FROM execs WHERE id = ?1")?.execute([oldest])?;
                }
                t.prepare_cached("INSERT INTO execs VALUES (?1, ?2, ?3, ?4, 0, 0, 0, NULL)")?
                    .execute(params![id, container, number, request.encode_to_vec()])?;
                Ok(())
            })?;
            if let Some(oldest) = &oldest {
                all.remove(oldest);
            }
            let state = watch::Sender::new(State::default());
            let (id, container) = (id.to_owned(), container.to_owned());
            let prepared = Mutex::new(Some(process));
            let exec = Exec { id: id.clone(), container, request, prepared, number, state };
            all.insert(id, Arc::new(exec));
            Ok(())
        })
    }

    /// Changes what became of one, on disk first.
    pub(super) fn change(&self, exec: &Exec, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = exec.now();
        change(&mut state);
        let stored =
            self.store.settle(|t| {
                t.prepare_cached(
                "UPDATE execs SET begun = ?2, pid = ?3, ended = ?4, exit_code = ?5 WHERE id = ?1",
            )?
            .execute(params![exec.id, state.begun, state.pid, state.ended, state.exit_code])?;
                Ok(())
            });
        exec.state.send_replace(state);
        stored
    }

    /// Takes one for its start, which is done once.
    pub(super) fn begin(&self, exec: &Exec) -> Result<()> {
        let begun = exec.state.send_if_modified(|state| !std::mem::replace(&mut state.begun, true));
        if !begun {
            return Err(Error::conflict(format!("exec {} has already been started", exec.id)));
        }
        self.change(exec, |_| {})
    }

    /// It has ended, or never ran.
    pub(super) fn end(&self, exec: &Exec, exit_code: Option<i32>) {
        let stored = self.change(exec, |state| {
            state.begun = true;
            state.ended = true;
            state.exit_code = exit_code;
        });
        if let Err(error) = stored {
            tracing::error!(exec = %exec.id, %error, "its end is not stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(execs: &Execs, id: &str, ended: bool) {
        execs.add(id, "c", v1::CreateExecRequest::default(), Vec::new()).unwrap();
        if ended {
            execs.end(&execs.find(id).unwrap(), Some(0));
        }
    }

    #[test]
    fn only_ended_ones_make_room_and_the_oldest_first() {
        let place = tempfile::tempdir().unwrap();
        let execs = Execs::open(&Store::open(&place.path().join("meta.db")).unwrap()).unwrap();
        for number in 0..MAX_EXECS {
            add(&execs, &format!("e{number}"), number == 5 || number == 9);
        }
        add(&execs, "f0", false);
        assert!(execs.find("e5").is_err() && execs.find("e9").is_ok());
        add(&execs, "f1", false);
        assert!(execs.add("f2", "c", v1::CreateExecRequest::default(), Vec::new()).is_err());
        assert!(execs.find("f2").is_err());
        execs.forget("c").unwrap();
        assert!(execs.of("c").is_empty());
    }

    #[test]
    fn another_manager_knows_them_with_what_became_of_them() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("meta.db")).unwrap();
        let execs = Execs::open(&store).unwrap();
        for id in ["new", "runs", "ended", "other"] {
            let request = v1::CreateExecRequest { command: vec![id.into()], ..Default::default() };
            execs.add(id, if id == "other" { "d" } else { "c" }, request, Vec::new()).unwrap();
        }
        let runs = execs.find("runs").unwrap();
        execs.begin(&runs).unwrap();
        assert!(execs.begin(&runs).is_err(), "twice");
        execs.change(&runs, |state| state.pid = 7).unwrap();
        execs.end(&execs.find("ended").unwrap(), Some(3));
        execs.forget("d").unwrap();

        let again = Execs::open(&store).unwrap();
        let own: Vec<_> = again.of("c").iter().map(|exec| exec.id.clone()).collect();
        assert_eq!(own, ["new", "runs"]);
        let state = |id: &str| again.find(id).unwrap().now();
        let runs = State { begun: true, pid: 7, ..State::default() };
        assert_eq!((state("new"), state("runs")), (State::default(), runs));
        assert_eq!((state("ended").ended, state("ended").exit_code), (true, Some(3)));
        assert!(again.find("other").is_err());
        assert_eq!(again.find("new").unwrap().request.command, ["new"]);
        assert!(again.begin(&again.find("runs").unwrap()).is_err());
    }
}
