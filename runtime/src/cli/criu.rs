//! The options of `checkpoint` and `restore`.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    lower::{absolute, id, run},
    parse::{Given, Parsed},
};
use crate::request;

fn criu(options: &Given<'_>) -> Result<request::Criu> {
    let image_path = options.value("image-path").unwrap_or(OsStr::new("checkpoint"));
    let manage_cgroups_mode = options.text("manage-cgroups-mode")?;
    if let Some(mode) = manage_cgroups_mode
        && !["soft", "full", "strict", "ignore"].contains(&mode)
    {
        bail!("invalid manage-cgroups-mode {mode:?}: not soft, full, strict or ignore");
    }
    let mut empty_ns = Vec::new();
    for name in options.all("empty-ns") {
        if name != "network" {
            bail!("namespace {name:?} is not supported");
        }
        empty_ns.push("network".to_owned());
    }
    let parent_path = options.value("parent-path").map(PathBuf::from);
    if parent_path.as_deref().is_some_and(Path::is_absolute) {
        bail!("--parent-path must be relative");
    }
    // -1 is how callers say that they want no such message.
    let status_fd = options.whole("status-fd")?.filter(|fd| *fd != -1);
    Ok(request::Criu {
        image_path: absolute(image_path)?,
        work_path: options.value("work-path").map(absolute).transpose()?,
        parent_path,
        tcp_established: options.flag("tcp-established"),
        tcp_skip_in_flight: options.flag("tcp-skip-in-flight"),
        link_remap: options.flag("link-remap"),
        ext_unix_sk: options.flag("ext-unix-sk"),
        shell_job: options.flag("shell-job"),
        file_locks: options.flag("file-locks"),
        lazy_pages: options.flag("lazy-pages"),
        manage_cgroups_mode: manage_cgroups_mode.map(str::to_owned),
        empty_ns,
        status_fd: status_fd
            .map(|fd| i32::try_from(fd).ok().filter(|fd| *fd >= 0))
            .map(|fd| fd.context("invalid value for flag -status-fd: not a descriptor"))
            .transpose()?,
    })
}

pub(super) fn checkpoint(parsed: &Parsed<'_>) -> Result<request::Checkpoint> {
    let options = &parsed.options;
    let page_server = options.text("page-server")?;
    if let Some(server) = page_server {
        let (address, port) = server.rsplit_once(':').unwrap_or_default();
        if address.is_empty() || port.is_empty() {
            bail!("use --page-server ADDRESS:PORT to specify page server");
        }
        port.parse::<u16>().map_err(|_| anyhow!("invalid port number {port:?}"))?;
    }
    Ok(request::Checkpoint {
        id: id(parsed)?,
        criu: criu(options)?,
        leave_running: options.flag("leave-running"),
        page_server: page_server.map(str::to_owned),
        pre_dump: options.flag("pre-dump"),
        auto_dedup: options.flag("auto-dedup"),
    })
}

pub(super) fn restore(parsed: &Parsed<'_>) -> Result<request::Restore> {
    let options = &parsed.options;
    let text = |name| options.text(name).map(|text| text.map(str::to_owned));
    Ok(request::Restore {
        run: run(parsed)?,
        criu: criu(options)?,
        auto_dedup: options.flag("auto-dedup"),
        lsm_profile: text("lsm-profile")?,
        lsm_mount_context: text("lsm-mount-context")?,
    })
}
