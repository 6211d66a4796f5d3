//! The shim's record of how a process ended, `exit.json`, as far as the manager uses it; and of
//! its start, `init.json`.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    path::Path,
    time::{Duration, SystemTime},
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_specs_oci::time::{parse_rfc3339, rfc3339_nano};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Its name, in the bundle, and afterwards beside the container's log.
pub(crate) const FILE: &str = "exit.json";

/// The largest that is read, in bytes; the shim writes less.
const LIMIT: u64 = 256 << 10;

/// How a container's first process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExitRecord {
    version: u32,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) shell_code: i32,
    #[serde(with = "timestamp")]
    pub(crate) exited_at: SystemTime,
    pub(crate) run_time_ns: u64,
    /// exited, signaled, oom-killed, start-failed, or "unknown: …".
    pub(crate) reason: String,
    pub(crate) oom_kills: u64,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) runtime_error: Option<String>,
    pub(crate) dropped_clients: u64,
    pub(crate) last_lines: Vec<String>,
}

impl ExitRecord {
    /// Whether the first process was killed for want of memory; [`Self::oom_kills`] counts others.
    pub(crate) fn oom_killed(&self) -> bool {
        self.reason == "oom-killed"
    }

    pub(crate) fn run_time(&self) -> Duration {
        Duration::from_nanos(self.run_time_ns)
    }

    /// Of an end that came with the host's.
    pub(crate) fn lost(exit_code: i32) -> Self {
        Self {
            shell_code: exit_code,
            reason: "unknown: the host was started anew".into(),
            ..Self::unseen(None, SystemTime::now())
        }
    }

    /// Of an end that nobody recorded: killed, as far as anybody can say.
    pub(crate) fn unseen(status: Option<u32>, at: SystemTime) -> Self {
        Self {
            version: 1,
            exit_code: None,
            signal: None,
            shell_code: status.and_then(|status| i32::try_from(status).ok()).unwrap_or(137),
            exited_at: at,
            run_time_ns: 0,
            reason: "unknown: no record of the end was written".into(),
            oom_kills: 0,
            peak_memory_bytes: None,
            runtime_error: None,
            dropped_clients: 0,
            last_lines: Vec::new(),
        }
    }
}

/// The record in a directory; none if there is none.
pub(crate) fn read(directory: &Path) -> Result<Option<ExitRecord>> {
    read_file(&directory.join(FILE))
}

/// The record of an exec, in the bundle; none if there is none.
pub(crate) fn read_exec(bundle: &Path, exec: &str) -> Result<Option<ExitRecord>> {
    read_file(&bundle.join(format!("exit@{exec}.json")))
}

/// When the shim started the container's program; none if it has not, or nobody noted it.
pub(crate) fn started(bundle: &Path) -> Result<Option<SystemTime>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct InitRecord {
        version: u32,
        started_at: Option<String>,
    }
    let path = bundle.join("init.json");
    let Some(record) = read_json::<InitRecord>(&path)? else { return Ok(None) };
    check_version(&path, record.version)?;
    let time = |text: String| {
        parse_rfc3339(&text).ok_or_else(|| Error::corrupt(format!("a time in {}", path.display())))
    };
    record.started_at.map(time).transpose()
}

fn read_file(path: &Path) -> Result<Option<ExitRecord>> {
    let record = read_json::<ExitRecord>(path)?;
    record.map(|record| check_version(path, record.version).map(|()| record)).transpose()
}

fn check_version(path: &Path, version: u32) -> Result<()> {
    match version {
        1 => Ok(()),
        other => Err(Error::corrupt(format!("{} is of version {other}", path.display()))),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.about(path.display())?,
    };
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).about(path.display())?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|cause| Error::corrupt(path.display()).because(cause))
}

mod timestamp {
    use serde::{Deserializer, Serializer, de::Error as _};

    use super::{Deserialize, Serialize, SystemTime, parse_rfc3339, rfc3339_nano};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        rfc3339_nano(*time).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not a time in RFC 3339"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"version":1,"containerId":"c","execId":"","pid":7,"startTime":1,
        "exitCode":null,"signal":9,"shellCode":137,"exitedAt":"2026-11-21T13:00:00.5Z",
        "runTimeNs":1500000000,"reason":"oom-killed","oom":"main","oomKills":1,
        "peakMemoryBytes":4096,"runtimeError":null,"droppedClients":0,"lastLines":["a"]}"#;

    #[test]
    fn a_record_of_the_shim_is_read() {
        let place = tempfile::tempdir().unwrap();
        assert!(read(place.path()).unwrap().is_none());
        fs::write(place.path().join(FILE), RECORD).unwrap();
        let record = read(place.path()).unwrap().unwrap();
        assert_eq!((record.shell_code, record.signal, record.oom_killed()), (137, Some(9), true));
        assert_eq!(record.run_time(), Duration::from_millis(1500));
    }

    #[test]
    fn a_start_is_read_once_it_was() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(started(place.path()).unwrap(), None);
        let write = |at: &str| {
            let text = format!(r#"{{"version":1,"containerId":"c","pid":7,"startedAt":{at}}}"#);
            fs::write(place.path().join("init.json"), text).unwrap();
        };
        write("null");
        assert_eq!(started(place.path()).unwrap(), None);
        write(r#""2026-11-21T13:00:00.5Z""#);
        let at = parse_rfc3339("2026-11-21T13:00:00.5Z");
        assert!(at.is_some() && started(place.path()).unwrap() == at);
        write(r#""soon""#);
        assert!(started(place.path()).is_err());
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        for text in ["", "{}", &RECORD.replace("\"version\":1", "\"version\":2")] {
            fs::write(place.path().join(FILE), text).unwrap();
            assert!(read(place.path()).is_err(), "{text}");
        }
    }
}
