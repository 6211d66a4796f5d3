//! A blocking connection to a systemd manager: its private socket, or a message bus.
//!
//! One call at a time. Signals are read while waiting for a reply, and only the ends of jobs
//! are kept. Everything has a deadline, and every message a bound (`wire::MAX_BYTES`).

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    Property,
    wire::{CALL, ERROR, Message, PREFIX_BYTES, RETURN, SIGNAL, Value},
};

const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

const PATIENCE: Duration = Duration::from_secs(30);
/// Ends of other jobs that may arrive while we wait for ours.
const MAX_FINISHED: usize = 1024;

/// The answer of systemd to a call was an error; its name tells which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallError {
    pub(super) name: String,
    text: String,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.name)
    }
}

impl std::error::Error for CallError {}

/// A connection that has been let in.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Behind a message bus calls need a destination; a private socket has one peer.
    destination: &'static str,
    /// Jobs that have ended: path and result.
    finished: Vec<(String, String)>,
}

impl Bus {
    /// The system's manager: by its private socket, which needs no bus daemon, or by the bus.
    pub(super) fn system() -> Result<Self> {
        let private = Self::connect(Path::new("/run/systemd/private"), false);
        private.or_else(|first| {
            Self::connect(Path::new("/run/dbus/system_bus_socket"), true)
                .with_context(|| format!("failed to connect to dbus ({first:#})"))
        })
    }

    /// The manager of the user in whose session we run.
    pub(super) fn user() -> Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
        let bus = match session_socket(&address) {
            Some(path) => path,
            None => runtime.map(|dir| dir.join("bus")).context(
                "could not detect DBUS_SESSION_BUS_ADDRESS from the environment; make sure you \
                 have installed the dbus-user-session or dbus-daemon package; note you may need \
                 to re-login",
            )?,
        };
        Self::connect(&bus, true).context("failed to connect to dbus")
    }

    /// Connects to the socket at `path`; `daemon` says that a message bus listens there.
    pub(super) fn connect(path: &Path, daemon: bool) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("can't connect to {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let destination = if daemon { MANAGER } else { "" };
        let mut bus = Self { stream, serial: 0, destination, finished: Vec::new() };
        bus.authenticate().with_context(|| format!("{} doesn't let us in", path.display()))?;
        if daemon {
            bus.call_to(BUS, BUS_PATH, BUS, "Hello", Vec::new())?;
            let rule = "type='signal',sender='org.freedesktop.systemd1',\
                        interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            bus.call_to(BUS, BUS_PATH, BUS, "AddMatch", vec![Value::String(rule.into())])?;
        }
        Ok(bus)
    }

    /// The other side takes our identity from the socket; in a user namespace our own idea of
    /// our number would be wrong, so none is sent.
    ///
    /// `BEGIN` goes with the rest, before the answer, as systemd's own client has it: what
    /// systemd receives in one piece with `BEGIN` it leaves lying until more arrives, and the
    /// first call would be in that piece.
    fn authenticate(&mut self) -> Result<()> {
        self.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for expected in ["DATA", "OK"] {
            let line = self.line()?;
            let word = line.split(' ').next().unwrap_or_default();
            ensure!(word == expected, "D-Bus authentication failed: {line:?}");
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        const MAX_LINE_BYTES: usize = 512;
        let mut line = Vec::new();
        // Byte by byte: what follows the line isn't ours to take yet.
        while !line.ends_with(b"\r\n") {
            ensure!(line.len() < MAX_LINE_BYTES, "a D-Bus authentication line is too long");
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>> {
        self.call_to(self.destination, MANAGER_PATH, MANAGER_INTERFACE, member, body)
    }

    fn call_to(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>> {
        self.serial += 1;
        let message = Message {
            kind: CALL,
            serial: self.serial,
            destination: destination.into(),
            path: path.into(),
            interface: interface.into(),
            member: member.into(),
            body,
            ..Message::default()
        };
        self.stream.write_all(&message.encode()?).context("can't send to systemd")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                RETURN if message.reply_to == self.serial => return Ok(message.body),
                ERROR if message.reply_to == self.serial => {
                    let text = message.body.first().and_then(Value::as_text).unwrap_or_default();
                    return Err(CallError { name: message.error, text: text.to_owned() }.into());
                }
                _ => self.note(message),
            }
        }
    }

    /// Keeps the end of a job.
    fn note(&mut self, message: Message) {
        if message.kind != SIGNAL || message.member != "JobRemoved" {
            return;
        }
        if let [_, job, _, result] = message.body.as_slice()
            && let (Some(job), Some(result)) = (job.as_text(), result.as_text())
            && self.finished.len() < MAX_FINISHED
        {
            self.finished.push((job.to_owned(), result.to_owned()));
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "timed out while waiting for systemd");
        self.stream.set_read_timeout(Some(left))?;
        let mut prefix = [0; PREFIX_BYTES];
        self.stream.read_exact(&mut prefix).context("can't receive from systemd")?;
        let mut bytes = vec![0; Message::length(&prefix)?];
        bytes[..PREFIX_BYTES].copy_from_slice(&prefix);
        self.stream.read_exact(&mut bytes[PREFIX_BYTES..]).context("can't receive from systemd")?;
        Message::decode(&bytes)
    }

    /// Waits for the job that `reply` names; its result is `done` when all went well.
    fn wait(&mut self, reply: &[Value]) -> Result<String> {
        let job = reply.first().and_then(Value::as_text).context("systemd named no job")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.finished.iter().position(|(path, _)| path == job) {
                return Ok(self.finished.swap_remove(at).1);
            }
            let message = self.receive(deadline)?;
            self.note(message);
        }
    }

    /// Starts a transient unit and waits until it runs.
    pub(super) fn start(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let body = vec![
            Value::String(unit.into()),
            Value::String("replace".into()),
            property_list(properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let reply = match self.call("StartTransientUnit", body.clone()) {
            // A failed unit of that name may be left over; once it is forgotten it is gone.
            Err(error) if is_error(&error, "UnitExists") => {
                let _ = self.reset_failed(unit);
                self.call("StartTransientUnit", body)
            }
            reply => reply,
        };
        let reply = reply.with_context(|| format!("unable to start unit {unit:?}"))?;
        match self.wait(&reply) {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                let _ = self.reset_failed(unit);
                bail!("error creating systemd unit `{unit}`: got `{result}`")
            }
            Err(error) => {
                let _ = self.reset_failed(unit);
                Err(error.context(format!("unable to start unit {unit:?}")))
            }
        }
    }

    /// Stops a unit and waits until it is gone; one that isn't there is fine.
    pub(super) fn stop(&mut self, unit: &str) -> Result<()> {
        let body = vec![Value::String(unit.into()), Value::String("replace".into())];
        let result = match self.call("StopUnit", body) {
            Ok(reply) => {
                self.wait(&reply).map(drop).with_context(|| format!("unable to stop unit {unit:?}"))
            }
            Err(error) if error.is::<CallError>() => Ok(()),
            Err(error) => Err(error),
        };
        // A failed unit stays until it is told to go.
        let _ = self.reset_failed(unit);
        result
    }

    pub(super) fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let body = vec![Value::String(unit.into()), Value::Bool(true), property_list(properties)];
        self.call("SetUnitProperties", body).map(drop).context("unable to set unit properties")
    }

    fn reset_failed(&mut self, unit: &str) -> Result<()> {
        self.call("ResetFailedUnit", vec![Value::String(unit.into())]).map(drop)
    }

    /// A property of the manager itself, as text.
    pub(super) fn manager_property(&mut self, name: &str) -> Result<String> {
        let body = vec![Value::String(MANAGER_INTERFACE.into()), Value::String(name.into())];
        let interface = "org.freedesktop.DBus.Properties";
        let reply = self.call_to(self.destination, MANAGER_PATH, interface, "Get", body)?;
        let text = reply.first().and_then(Value::as_text).map(str::to_owned);
        text.ok_or_else(|| anyhow!("systemd has no property {name}"))
    }

    /// systemd's major version; 0 when it can't be told, so that nothing new is asked of it.
    pub(super) fn version(&mut self) -> u32 {
        self.manager_property("Version").ok().and_then(|text| major(&text)).unwrap_or(0)
    }
}

fn property_list(properties: &[Property]) -> Value {
    let list = properties.iter().map(|property| {
        let value = Value::Variant(Box::new(property.value.clone()));
        Value::Struct(vec![Value::String(property.name.clone()), value])
    });
    Value::Array("(sv)".into(), list.collect())
}

fn is_error(error: &anyhow::Error, name: &str) -> bool {
    error.downcast_ref::<CallError>().is_some_and(|e| e.name.ends_with(name))
}

/// "252.39-1~deb12u1" and "v245.4" are 252 and 245.
fn major(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The socket of a bus address such as `unix:path=/run/user/1000/bus,guid=…`.
fn session_socket(address: &str) -> Option<PathBuf> {
    let options = address.split(';').find_map(|one| one.strip_prefix("unix:"))?;
    let path = options.split(',').find_map(|option| option.strip_prefix("path="))?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// A socket that plays systemd: each call is answered by `answer`; what was called is
    /// returned at the end of the connection.
    pub(in crate::cgroup::systemd) fn fake(
        path: &Path,
        daemon: bool,
        answer: impl Fn(&Message) -> Vec<Message> + Send + 'static,
    ) -> thread::JoinHandle<Vec<Message>> {
        let listener = UnixListener::bind(path).expect("binds");
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accepts");
            let mut peer = Bus { stream, serial: 0, destination: "", finished: Vec::new() };
            let mut nul = [1];
            peer.stream.read_exact(&mut nul).expect("reads");
            assert_eq!(nul, [0]);
            assert_eq!(peer.line().expect("reads"), "AUTH EXTERNAL");
            assert_eq!(peer.line().expect("reads"), "DATA");
            assert_eq!(peer.line().expect("reads"), "BEGIN");
            peer.stream.write_all(b"DATA\r\nOK 0123\r\n").expect("writes");
            let mut calls = Vec::new();
            while let Ok(call) = peer.receive(Instant::now() + Duration::from_secs(5)) {
                assert_eq!(call.destination.is_empty(), !daemon);
                let ours = call.destination == BUS;
                let replies = if ours { vec![done(&call, vec![])] } else { answer(&call) };
                for reply in replies {
                    // The client may have heard enough.
                    let _ = peer.stream.write_all(&reply.encode().expect("encodes"));
                }
                calls.push(call);
            }
            calls
        })
    }

    pub(in crate::cgroup::systemd) fn done(call: &Message, body: Vec<Value>) -> Message {
        Message { kind: RETURN, serial: 1, reply_to: call.serial, body, ..Message::default() }
    }

    fn failed(call: &Message, name: &str) -> Message {
        Message {
            kind: ERROR,
            serial: 1,
            reply_to: call.serial,
            error: name.into(),
            body: vec![Value::String("it went wrong".into())],
            ..Message::default()
        }
    }

    pub(in crate::cgroup::systemd) fn removed(job: &str, result: &str) -> Message {
        Message {
            kind: SIGNAL,
            serial: 1,
            path: MANAGER_PATH.into(),
            interface: MANAGER_INTERFACE.into(),
            member: "JobRemoved".into(),
            body: vec![
                Value::Uint32(1),
                Value::ObjectPath(job.into()),
                Value::String("x.scope".into()),
                Value::String(result.into()),
            ],
            ..Message::default()
        }
    }

    fn members(calls: &[Message]) -> Vec<&str> {
        calls.iter().map(|call| call.member.as_str()).collect()
    }

    #[test]
    fn a_unit_is_started_when_its_job_is_done() {
        for daemon in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("socket");
            let server = fake(&path, daemon, |call| {
                vec![
                    // Another's job ends first, and ours even before the call returns.
                    removed("/job/9", "failed"),
                    removed("/job/1", "done"),
                    done(call, vec![Value::ObjectPath("/job/1".into())]),
                ]
            });
            let mut bus = Bus::connect(&path, daemon).expect("connects");
            let property = Property { name: "Delegate".into(), value: Value::Bool(true) };
            bus.start("x.scope", &[property]).expect("starts");
            drop(bus);
            let calls = server.join().expect("ends");
            let call = calls.last().expect("a call");
            assert_eq!(call.member, "StartTransientUnit");
            assert_eq!(call.body[0], Value::String("x.scope".into()));
            let Value::Array(_, properties) = &call.body[2] else { panic!("a list") };
            assert_eq!(properties.len(), 1);
        }
    }

    #[test]
    fn a_left_over_unit_is_reset_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let server = fake(&path, false, |call| match call.member.as_str() {
            "ResetFailedUnit" => vec![done(call, vec![])],
            _ => vec![failed(call, "org.freedesktop.systemd1.UnitExists")],
        });
        let mut bus = Bus::connect(&path, false).expect("connects");
        let error = bus.start("x.scope", &[]).expect_err("exists twice");
        assert!(format!("{error:#}").contains("UnitExists"), "{error:#}");
        drop(bus);
        let calls = server.join().expect("ends");
        assert_eq!(
            members(&calls),
            ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]
        );
    }

    #[test]
    fn a_job_that_fails_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let _server = fake(&path, false, |call| {
            vec![done(call, vec![Value::ObjectPath("/job/1".into())]), removed("/job/1", "timeout")]
        });
        let mut bus = Bus::connect(&path, false).expect("connects");
        let error = bus.start("x.scope", &[]).expect_err("timed out");
        assert_eq!(error.to_string(), "error creating systemd unit `x.scope`: got `timeout`");
    }

    #[test]
    fn stopping_what_is_not_there_succeeds() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let server =
            fake(&path, false, |call| vec![failed(call, "org.freedesktop.systemd1.NoSuchUnit")]);
        let mut bus = Bus::connect(&path, false).expect("connects");
        bus.stop("x.scope").expect("stops");
        drop(bus);
        assert_eq!(members(&server.join().expect("ends")), ["StopUnit", "ResetFailedUnit"]);
    }

    #[test]
    fn the_version_is_the_leading_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let _server = fake(&path, false, |call| {
            let version = Value::String("252.39-1~deb12u1".into());
            vec![done(call, vec![Value::Variant(Box::new(version))])]
        });
        assert_eq!(Bus::connect(&path, false).expect("connects").version(), 252);
        for (text, expected) in
            [("v245.4-1.fc32", Some(245)), ("245", Some(245)), ("\"v9\"", Some(9)), ("x", None)]
        {
            assert_eq!(major(text), expected);
        }
    }

    #[test]
    fn a_peer_that_refuses_or_hangs_up_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).expect("binds");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            stream.write_all(b"REJECTED EXTERNAL\r\n").expect("writes");
        });
        let error = Bus::connect(&path, false).expect_err("rejected");
        assert!(format!("{error:#}").contains("doesn't let us in"), "{error:#}");
        server.join().expect("ends");
        assert!(Bus::connect(&dir.path().join("none"), false).is_err());
    }

    #[test]
    fn session_addresses() {
        for (address, path) in [
            ("unix:path=/run/user/1000/bus", Some("/run/user/1000/bus")),
            ("tcp:host=x;unix:guid=1,path=/a%20b", Some("/a b")),
            ("unix:abstract=/tmp/x", None),
            ("unix:path=/a%2", None),
            ("", None),
        ] {
            assert_eq!(session_socket(address).as_deref(), path.map(Path::new), "{address}");
        }
    }
}
