//! The directories of a checkpoint: CRIU's images, its logs, and `descriptors.json`, which
//! says what the container's standard streams were.
//!
//! An image directory comes from wherever the checkpoint was made, so what is read from it
//! is a claim: `descriptors.json` is bounded, its entries are checked, and a pipe is the
//! only kind that means anything.

use std::{
    fs::{self, DirBuilder},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;

use super::{CgroupMode, Options};
use crate::{log, request};

const DESCRIPTORS: &std::ffi::CStr = c"descriptors.json";

/// Three names of at most a path's length each, with JSON's own signs.
const MAX_DESCRIPTORS_BYTES: usize = 64 << 10;

/// How much of CRIU's log is looked through for errors, in bytes.
const MAX_LOG_BYTES: usize = 64 << 20;

/// How many lines of CRIU's log are repeated.
const MAX_QUOTED_LINES: usize = 20;

/// What the standard streams of a process are, as /proc/PID/fd names them; empty where that
/// could not be found out.
pub(crate) type Descriptors = Vec<String>;

/// The directories, open.
#[derive(Debug)]
pub(crate) struct Images {
    images: OwnedFd,
    work: Option<OwnedFd>,
    log_path: PathBuf,
    log_file: &'static str,
}

impl Images {
    /// Makes what is missing, for a checkpoint.
    pub(crate) fn make(request: &request::Criu) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&request.image_path)
            .with_context(|| format!("cannot make {}", request.image_path.display()))?;
        if let Some(parent) = &request.parent_path {
            let parent = request.image_path.join(parent);
            let metadata = fs::metadata(&parent)
                .with_context(|| format!("invalid --parent-path: {}", parent.display()))?;
            if !metadata.is_dir() {
                bail!("invalid --parent-path: {} is not a directory", parent.display());
            }
        }
        Self::open(request, "dump.log")
    }

    /// Opens what a checkpoint has made, for a restore.
    pub(crate) fn find(request: &request::Criu) -> Result<Self> {
        Self::open(request, "restore.log")
    }

    fn open(request: &request::Criu, log_file: &'static str) -> Result<Self> {
        let images = directory(&request.image_path)?;
        let work = request.work_path.as_ref().map(|path| {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot make {}", path.display()));
                }
                _ => {}
            }
            directory(path)
        });
        let log_path = request.work_path.as_ref().unwrap_or(&request.image_path).clone();
        Ok(Self { images, work: work.transpose()?, log_path, log_file })
    }

    /// The options that the directories and the command line's options make. CRIU reaches
    /// the directories through this process, which must keep `self`.
    pub(crate) fn options(
        &self,
        request: &request::Criu,
        annotations: &std::collections::BTreeMap<String, String>,
    ) -> Result<Options> {
        // The others' contents are the processes' own.
        if let Some(other) = request.empty_ns.iter().find(|name| *name != "network") {
            bail!("--empty-ns {other}: only the network namespace can be left empty");
        }
        let mut options = Options {
            // Everything but the noise of debugging.
            log_level: 4,
            log_file: self.log_file,
            shell_job: request.shell_job,
            ext_unix_sk: request.ext_unix_sk,
            tcp_established: request.tcp_established,
            tcp_skip_in_flight: request.tcp_skip_in_flight,
            link_remap: request.link_remap,
            file_locks: request.file_locks,
            lazy_pages: request.lazy_pages,
            cgroup_mode: match request.manage_cgroups_mode.as_deref() {
                Some("soft") => CgroupMode::Soft,
                Some("full") => CgroupMode::Full,
                Some("strict") => CgroupMode::Strict,
                Some("ignore") => CgroupMode::Ignore,
                _ => CgroupMode::Default,
            },
            // The addresses in a network namespace are its maker's business: always empty,
            // so that `--empty-ns network` changes nothing, as under runc.
            empty_ns: libc::CLONE_NEWNET.cast_unsigned(),
            orphan_pts_master: true,
            config_file: match annotations.get("org.criu.config").map(String::as_str) {
                Some("") => None,
                Some(file) => Some(file.to_owned()),
                // Where runc's callers expect it.
                None => Some("/etc/criu/runc.conf".to_owned()),
            },
            ..Options::default()
        };
        self.lend(&mut options);
        Ok(options)
    }

    /// Gives CRIU these directories.
    pub(crate) fn lend(&self, options: &mut Options) {
        options.images_dir_fd = self.images.as_raw_fd();
        options.work_dir_fd = self.work.as_ref().map(AsRawFd::as_raw_fd);
    }

    /// Keeps the names of the container's standard streams.
    pub(crate) fn write_descriptors(&self, descriptors: &Descriptors) -> Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
        let content = serde_json::to_vec(descriptors).context("cannot encode descriptors.json")?;
        sys::fd::openat(&self.images, DESCRIPTORS, flags, 0o600)
            .and_then(|file| sys::fd::write_all(file, &content))
            .context("cannot write descriptors.json")
    }

    /// The pipes among the standard streams that the container had: key and number.
    pub(crate) fn pipes(&self) -> Result<Vec<(String, i32)>> {
        // Not blocking: in place of the file there could be a FIFO.
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let content = sys::fd::openat(&self.images, DESCRIPTORS, flags, 0)
            .and_then(|file| sys::fd::read_to_end(file, MAX_DESCRIPTORS_BYTES))
            .context("cannot read descriptors.json")?;
        parse_pipes(&content).context("cannot understand descriptors.json")
    }

    /// Where CRIU's log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.log_path.join(self.log_file)
    }

    /// Repeats the errors of CRIU's log.
    pub(crate) fn quote_log(&self) {
        let open = || -> Result<Vec<u8>> {
            let path = sys::path::c_path(self.log_file)?;
            let dir = self.work.as_ref().unwrap_or(&self.images);
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = sys::fd::openat(dir, &path, flags, 0)?;
            Ok(sys::fd::read_to_end(file, MAX_LOG_BYTES)?)
        };
        // Without a log there is nothing to repeat; the failure itself is told anyhow.
        let content = open().unwrap_or_default();
        for line in errors(&String::from_utf8_lossy(&content)) {
            log::warning(format!("{}: {line}", self.log_file));
        }
    }
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    Ok(sys::fd::openat(sys::fd::AT_FDCWD, &sys::path::c_path(path)?, flags, 0)?)
}

fn parse_pipes(content: &[u8]) -> Result<Vec<(String, i32)>> {
    let names: Vec<String> = serde_json::from_slice(content)?;
    if names.len() > 3 {
        bail!("{} names, and a process has 3 standard streams", names.len());
    }
    let mut pipes = Vec::new();
    for (name, number) in names.into_iter().zip(0..) {
        if !name.contains("pipe:") {
            continue;
        }
        let inode = name.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
        if inode.is_none_or(|inode| inode.parse::<u64>().is_err()) {
            bail!("{name:?} is not the name of a pipe");
        }
        pipes.push((name, number));
    }
    Ok(pipes)
}

/// The lines of a log that tell of errors: the last ones, since those are what ended it.
fn errors(log: &str) -> Vec<String> {
    let told = |line: &&str| line.contains("Error");
    let count = log.lines().filter(told).count();
    log.lines()
        .filter(told)
        .skip(count.saturating_sub(MAX_QUOTED_LINES))
        .map(|line| crate::process::one_line(line.trim_end()))
        .collect()
}

/// What the standard streams of a process are now.
pub(crate) fn descriptors_of(pid: i32) -> Descriptors {
    (0..3)
        .map(|number| {
            fs::read_link(format!("/proc/{pid}/fd/{number}"))
                .map(|name| name.display().to_string())
                .unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_pipes_that_look_like_pipes_are_taken() {
        let pipes = |text: &str| parse_pipes(text.as_bytes());
        assert_eq!(
            pipes(r#"["/dev/null", "pipe:[12]", "pipe:[7]"]"#).unwrap(),
            [("pipe:[12]".to_owned(), 1), ("pipe:[7]".to_owned(), 2)]
        );
        assert!(pipes(r#"["", "/dev/pts/0", ""]"#).unwrap().is_empty());
        for text in [
            "",
            "{}",
            "[1]",
            r#"["pipe:[1]", "pipe:[2]", "pipe:[3]", "pipe:[4]"]"#,
            r#"["pipe:[../../etc]"]"#,
            r#"["extRootNetNS pipe:[1]"]"#,
            r#"["pipe:[]"]"#,
        ] {
            assert!(pipes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_link_or_a_flood_in_place_of_descriptors_json_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let request = request::Criu { image_path: dir.path().join("a/b"), ..Default::default() };
        assert!(Images::find(&request).is_err());
        let images = Images::make(&request).unwrap();
        let names = vec!["pipe:[1]".to_owned(), String::new(), String::new()];
        images.write_descriptors(&names).unwrap();
        assert_eq!(images.pipes().unwrap(), [("pipe:[1]".to_owned(), 0)]);
        let file = request.image_path.join("descriptors.json");
        fs::write(&file, vec![b' '; MAX_DESCRIPTORS_BYTES + 1]).unwrap();
        assert!(images.pipes().is_err());
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert!(images.pipes().is_err());
        assert!(images.write_descriptors(&names).is_err());
    }

    #[test]
    fn the_annotation_chooses_the_configuration_file() {
        let dir = tempfile::tempdir().unwrap();
        let request = request::Criu {
            image_path: dir.path().to_owned(),
            manage_cgroups_mode: Some("strict".to_owned()),
            ..Default::default()
        };
        let images = Images::make(&request).unwrap();
        let with = |value: Option<&str>| {
            let annotations: BTreeMap<_, _> = value
                .map(|value| ("org.criu.config".to_owned(), value.to_owned()))
                .into_iter()
                .collect();
            images.options(&request, &annotations).unwrap()
        };
        assert_eq!(with(None).config_file.as_deref(), Some("/etc/criu/runc.conf"));
        assert_eq!(with(Some("")).config_file, None);
        assert_eq!(with(Some("/x")).config_file.as_deref(), Some("/x"));
        assert_eq!(with(None).cgroup_mode, CgroupMode::Strict);
    }

    #[test]
    fn a_missing_parent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let request = request::Criu {
            image_path: dir.path().join("now"),
            parent_path: Some("../before".into()),
            ..Default::default()
        };
        let error = format!("{:#}", Images::make(&request).unwrap_err());
        assert!(error.starts_with("invalid --parent-path: "), "{error}");
        fs::create_dir(dir.path().join("before")).unwrap();
        Images::make(&request).unwrap();
    }

    #[test]
    fn the_last_errors_of_a_log_are_repeated() {
        let log: String =
            (0..30).map(|n| format!("info {n}\n(00.1) Error (x.c:{n}): \x1b\n")).collect();
        let errors = errors(&log);
        assert_eq!(errors.len(), MAX_QUOTED_LINES);
        assert_eq!(errors[19], "(00.1) Error (x.c:29): \\u{1b}");
    }
}
