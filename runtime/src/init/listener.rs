//! Handing a seccomp listener to its agent (config-linux.md, containerProcessState).

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

/// Sends the listener of process `pid` to the socket that the profile names.
pub(crate) fn send(
    linux: &oci::Linux,
    state: oci::State,
    pid: i32,
    listener: &OwnedFd,
) -> Result<()> {
    let Some(profile) = linux.seccomp.as_ref().filter(|profile| !profile.listener_path.is_empty())
    else {
        bail!("seccomp listenerPath is not set");
    };
    let message = oci::ContainerProcessState {
        oci_version: oci::VERSION.to_owned(),
        fds: vec!["seccompFd".to_owned()],
        pid,
        metadata: profile.listener_metadata.clone(),
        state,
    };
    let message = serde_json::to_vec(&message).context("cannot encode the process state")?;
    let socket = sys::socket::connect_stream(Path::new(&profile.listener_path))
        .context("failed to connect with seccomp agent specified in the seccomp profile")?;
    sys::socket::send(&socket, &message, &[listener.as_raw_fd()])
        .context("cannot send the listener to the seccomp agent")
}
