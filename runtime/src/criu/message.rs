//! The messages of CRIU's RPC that a container runtime needs, with the field numbers of
//! `images/rpc.proto` in CRIU's sources.

use anyhow::{Context, Result};

use super::wire::{Fields, Message};

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Kind {
    fn of(number: u64) -> Option<Self> {
        [Self::Dump, Self::Restore, Self::PreDump, Self::Notify, Self::FeatureCheck, Self::Version]
            .into_iter()
            .find(|kind| *kind as u64 == number)
    }

    /// CRIU's own word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::FeatureCheck => "FEATURE_CHECK",
            Self::Version => "VERSION",
        }
    }
}

/// `criu_cg_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    #[default]
    Default = 6,
}

/// `criu_opts`. What is `None`, false or empty is not sent, and CRIU's own default holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// A descriptor of this process.
    pub(crate) images_dir_fd: i32,
    pub(crate) pid: Option<i32>,
    pub(crate) leave_running: bool,
    pub(crate) ext_unix_sk: bool,
    pub(crate) tcp_established: bool,
    pub(crate) evasive_devices: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) log_level: i32,
    pub(crate) log_file: &'static str,
    /// Address and port.
    pub(crate) page_server: Option<(String, u16)>,
    pub(crate) root: String,
    /// Relative to the images directory.
    pub(crate) parent_img: Option<String>,
    pub(crate) auto_dedup: bool,
    /// A descriptor of this process.
    pub(crate) work_dir_fd: Option<i32>,
    pub(crate) link_remap: bool,
    /// Mounts from outside: on a dump the mount point and a name; on a restore the name and
    /// the source.
    pub(crate) ext_mnt: Vec<(String, String)>,
    /// Controller and path.
    pub(crate) cg_root: Vec<(String, String)>,
    /// The restored process becomes this process's child.
    pub(crate) rst_sibling: bool,
    /// Key, and descriptor of the CRIU process.
    pub(crate) inherit_fd: Vec<(String, i32)>,
    pub(crate) cgroup_mode: CgroupMode,
    pub(crate) external: Vec<String>,
    /// `CLONE_NEW*`.
    pub(crate) empty_ns: u32,
    /// Kind and file.
    pub(crate) join_ns: Vec<(&'static str, String)>,
    pub(crate) freeze_cgroup: Option<String>,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) lazy_pages: bool,
    /// A descriptor of this process.
    pub(crate) status_fd: Option<i32>,
    pub(crate) orphan_pts_master: bool,
    pub(crate) config_file: Option<String>,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// Two texts as fields 1 and 2: `ext_mount_map`, `cgroup_root`, `join_namespace`.
fn pair(first: &str, second: &str) -> Message {
    let mut message = Message::default();
    message.text(1, first);
    message.text(2, second);
    message
}

impl Options {
    fn encode(&self) -> Message {
        let mut message = Message::default();
        message.signed(1, self.images_dir_fd);
        for (field, value) in [
            (3, self.leave_running),
            (4, self.ext_unix_sk),
            (5, self.tcp_established),
            (6, self.evasive_devices),
            (7, self.shell_job),
            (8, self.file_locks),
            // notify_scripts: what this runtime does at each stage hangs on it.
            (12, true),
            // track_mem: whoever builds on an earlier image wants later ones to build on
            // this one.
            (15, self.parent_img.is_some()),
            (16, self.auto_dedup),
            (18, self.link_remap),
            // manage_cgroups: older versions know only this and not the mode.
            (24, true),
            (26, self.rst_sibling),
            (46, self.tcp_skip_in_flight),
            (48, self.lazy_pages),
            (50, self.orphan_pts_master),
        ] {
            if value {
                message.flag(field, true);
            }
        }
        message.signed(9, self.log_level);
        message.number(34, self.cgroup_mode as u64);
        message.number(38, self.empty_ns.into());
        for (field, value) in [(2, self.pid), (17, self.work_dir_fd), (49, self.status_fd)] {
            if let Some(value) = value {
                message.signed(field, value);
            }
        }
        message.text(10, self.log_file);
        message.text(13, &self.root);
        for (field, value) in [
            (14, &self.parent_img),
            (44, &self.freeze_cgroup),
            (51, &self.config_file),
            (53, &self.lsm_profile),
            (63, &self.lsm_mount_context),
        ] {
            if let Some(value) = value {
                message.text(field, value);
            }
        }
        if let Some((address, port)) = &self.page_server {
            let mut server = Message::default();
            server.text(1, address);
            server.number(2, (*port).into());
            message.message(11, &server);
        }
        for (key, value) in &self.ext_mnt {
            message.message(23, &pair(key, value));
        }
        for (controller, path) in &self.cg_root {
            message.message(25, &pair(controller, path));
        }
        for (key, fd) in &self.inherit_fd {
            let mut inherited = Message::default();
            inherited.text(1, key);
            inherited.signed(2, *fd);
            message.message(27, &inherited);
        }
        for external in &self.external {
            message.text(37, external);
        }
        for (kind, file) in &self.join_ns {
            message.message(39, &pair(kind, file));
        }
        message
    }
}

/// `criu_features`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) mem_track: bool,
    pub(crate) lazy_pages: bool,
}

/// A `criu_req`, ready to be sent.
pub(super) fn request(
    kind: Kind,
    options: Option<&Options>,
    features: Option<Features>,
) -> Message {
    let mut message = Message::default();
    message.number(1, kind as u64);
    if let Some(options) = options {
        message.message(2, &options.encode());
    }
    if let Some(features) = features {
        let mut wanted = Message::default();
        for (field, value) in [(1, features.mem_track), (2, features.lazy_pages)] {
            if value {
                wanted.flag(field, true);
            }
        }
        message.message(5, &wanted);
    }
    message
}

/// The answer to a notification.
pub(super) fn notified() -> Message {
    let mut message = request(Kind::Notify, None, None);
    message.flag(3, true);
    message
}

/// `criu_version` as one number, as runc compares it: 3.17.1 is 31701.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32);

/// `criu_resp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response<'a> {
    pub(super) kind: Option<Kind>,
    pub(super) success: bool,
    /// The script's name and a process id.
    pub(super) notify: Option<(&'a str, Option<i32>)>,
    pub(super) errno: i32,
    pub(super) message: Option<&'a str>,
    pub(super) features: Features,
    pub(super) version: Option<Version>,
}

impl<'a> Response<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        Self::read(bytes).context("criu sent a message that cannot be understood")
    }

    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut response = Self {
            kind: None,
            success: false,
            notify: None,
            errno: 0,
            message: None,
            features: Features::default(),
            version: None,
        };
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => response.kind = Kind::of(value.number()?),
                2 => response.success = value.flag()?,
                5 => response.notify = Some(read_notify(value.bytes()?)?),
                7 => response.errno = value.signed()?,
                8 => response.features = read_features(value.bytes()?)?,
                9 => response.message = Some(value.text()?),
                10 => response.version = Some(read_version(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(response)
    }
}

fn read_notify(bytes: &[u8]) -> Result<(&str, Option<i32>)> {
    let mut notify = ("", None);
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => notify.0 = value.text()?,
            2 => notify.1 = Some(value.signed()?),
            _ => {}
        }
    }
    Ok(notify)
}

fn read_features(bytes: &[u8]) -> Result<Features> {
    let mut features = Features::default();
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => features.mem_track = value.flag()?,
            2 => features.lazy_pages = value.flag()?,
            _ => {}
        }
    }
    Ok(features)
}

fn read_version(bytes: &[u8]) -> Result<Version> {
    let (mut major, mut minor, mut sublevel, mut from_git) = (0, 0, 0, false);
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        let number = || u32::try_from(value.number()?).context("a version is too large");
        match field {
            1 => major = number()?,
            2 => minor = number()?,
            3 => from_git = true,
            4 => sublevel = number()?,
            _ => {}
        }
    }
    if from_git {
        // Built between two releases: it has what the next one will have.
        minor = minor.saturating_add(1);
        sublevel = 0;
    }
    let number = major
        .checked_mul(10_000)
        .and_then(|number| number.checked_add(minor.checked_mul(100)?))
        .and_then(|number| number.checked_add(sublevel));
    number.map(Version).context("a version is too large")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::wire::Value;

    fn fields(bytes: &[u8]) -> Vec<(u32, Value<'_>)> {
        let mut list = Vec::new();
        let mut fields = Fields::of(bytes);
        while let Some(field) = fields.next().unwrap() {
            list.push(field);
        }
        list
    }

    #[test]
    fn options_have_rpc_proto_s_numbers() {
        let options = Options {
            images_dir_fd: 5,
            pid: Some(77),
            leave_running: true,
            log_level: 4,
            log_file: "dump.log",
            page_server: Some(("::1".into(), 1234)),
            root: "/r".into(),
            parent_img: Some("../p".into()),
            ext_mnt: vec![("/a".into(), "/b".into())],
            cg_root: vec![("cpu".into(), "/c".into())],
            inherit_fd: vec![("pipe:[1]".into(), 1)],
            cgroup_mode: CgroupMode::Strict,
            external: vec!["net[4]:extRootNetNS".into()],
            empty_ns: 0x4000_0000,
            join_ns: vec![("ipc", "/i".into())],
            freeze_cgroup: Some("/f".into()),
            ..Options::default()
        };
        let request = request(Kind::Dump, Some(&options), None);
        let [(1, Value::Number(1)), (2, Value::Bytes(encoded))] = fields(request.bytes())[..]
        else {
            panic!("{request:?}")
        };
        let encoded = fields(encoded);
        let number = |field| {
            encoded.iter().find(|(f, _)| *f == field).map(|(_, value)| value.number().unwrap())
        };
        let text = |field| {
            encoded.iter().find(|(f, _)| *f == field).map(|(_, value)| value.text().unwrap())
        };
        let inner = |field| {
            let (_, value) = encoded.iter().find(|(f, _)| *f == field).unwrap();
            fields(value.bytes().unwrap())
        };
        for (field, value) in [
            (1, Some(5)),
            (2, Some(77)),
            (3, Some(1)),
            (4, None),
            (9, Some(4)),
            (12, Some(1)),
            (15, Some(1)),
            (24, Some(1)),
            (26, None),
            (34, Some(5)),
            (38, Some(0x4000_0000)),
            (49, None),
        ] {
            assert_eq!(number(field), value, "field {field}");
        }
        for (field, value) in [
            (10, Some("dump.log")),
            (13, Some("/r")),
            (14, Some("../p")),
            (37, Some("net[4]:extRootNetNS")),
            (44, Some("/f")),
            (51, None),
        ] {
            assert_eq!(text(field), value, "field {field}");
        }
        assert_eq!(inner(11), [(1, Value::Bytes(b"::1")), (2, Value::Number(1234))]);
        assert_eq!(inner(23), [(1, Value::Bytes(b"/a")), (2, Value::Bytes(b"/b"))]);
        assert_eq!(inner(25), [(1, Value::Bytes(b"cpu")), (2, Value::Bytes(b"/c"))]);
        assert_eq!(inner(27), [(1, Value::Bytes(b"pipe:[1]")), (2, Value::Number(1))]);
        assert_eq!(inner(39), [(1, Value::Bytes(b"ipc")), (2, Value::Bytes(b"/i"))]);
    }

    #[test]
    fn a_notification_is_read_and_answered() {
        let mut notify = Message::default();
        notify.text(1, "post-restore");
        notify.signed(2, 4711);
        let mut message = Message::default();
        message.number(1, Kind::Notify as u64);
        message.flag(2, true);
        message.message(5, &notify);
        message.number(999, 1);
        let response = Response::parse(message.bytes()).unwrap();
        assert_eq!(response.kind, Some(Kind::Notify));
        assert!(response.success);
        assert_eq!(response.notify, Some(("post-restore", Some(4711))));
        assert_eq!(notified().bytes(), b"\x08\x06\x18\x01");
    }

    #[test]
    fn a_version_is_runc_s_number() {
        let version = |numbers: &[(u32, u64)], git: bool| {
            let mut message = Message::default();
            numbers.iter().for_each(|(field, value)| message.number(*field, *value));
            if git {
                message.text(3, "v4.2-22");
            }
            read_version(message.bytes()).map(|version| version.0)
        };
        assert_eq!(version(&[(1, 3), (2, 17), (4, 1)], false).unwrap(), 31_701);
        assert_eq!(version(&[(1, 4), (2, 2)], true).unwrap(), 40_300);
        assert!(version(&[(1, u64::MAX), (2, 2)], false).is_err());
        assert!(version(&[(1, 4_000_000_000), (2, 2)], false).is_err());
    }

    #[test]
    fn a_wrong_form_is_an_error() {
        assert!(Response::parse(b"\x0a\x00").is_err(), "a text where a number belongs");
        assert!(Response::parse(b"\x28\x01").is_err(), "a number where a message belongs");
        assert!(Response::parse(b"\x2a\x02\x0a\x05").is_err(), "a truncated message");
    }
}
