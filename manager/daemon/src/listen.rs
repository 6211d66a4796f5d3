//! The manager's sockets: path sockets that only root or a group can reach, and TCP with mutual
//! TLS. Never abstract (R9).

use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _, chown},
        net::{UnixListener as StdListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Config, Listen};

/// A bound socket.
pub(crate) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Binds all of them, or none.
///
/// # Errors
/// If one is in use by somebody who answers, or can't be bound.
pub(crate) fn bind(config: &Config) -> Result<Vec<Socket>> {
    let group = config.group.as_deref().map(group_id).transpose()?;
    config.listen.iter().map(|listen| bind_one(listen, group)).collect()
}

pub(crate) fn bind_one(listen: &Listen, group: Option<u32>) -> Result<Socket> {
    match listen {
        Listen::Unix(path) => Ok(Socket::Unix(
            bind_path(path, group).with_context(|| format!("listen on {}", path.display()))?,
        )),
        Listen::Tcp(address) => {
            let bind = || -> Result<TcpListener> {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(TcpListener::from_std(listener)?)
            };
            Ok(Socket::Tcp(bind().with_context(|| format!("listen on {address}"))?))
        }
    }
}

/// The socket gets its name only once its mode and owner are right.
fn bind_path(path: &Path, group: Option<u32>) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) => {
            ensure!(found.file_type().is_socket(), "there is something that is not a socket");
            match UnixStream::connect(path) {
                Ok(_) => bail!("somebody answers there already"),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let temporary: PathBuf = path.with_extension(format!("{}", std::process::id()));
    let bind = || -> Result<StdListener> {
        let listener = StdListener::bind(&temporary)?;
        fs::set_permissions(
            &temporary,
            fs::Permissions::from_mode(if group.is_some() { 0o660 } else { 0o600 }),
        )?;
        if group.is_some() {
            chown(&temporary, None, group)?;
        }
        fs::rename(&temporary, path)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listener = bind().inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok(UnixListener::from_std(listener)?)
}

/// Path sockets go with the manager.
pub(crate) fn remove(config: &Config) {
    for listen in config.listen.iter().chain(&config.metrics) {
        if let Listen::Unix(path) = listen {
            drop(fs::remove_file(path));
        }
    }
}

/// A group by number or by its line in /etc/group: no name service is asked (R12).
pub(crate) fn group_id(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").context("group: read /etc/group")?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    found.with_context(|| format!("group: there is no group {name:?}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_a_dead_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(StdListener::bind(&path).unwrap());
        let socket = bind_path(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(format!("{:#}", bind_path(&path, None).unwrap_err()).contains("answers"));
        drop(socket);
        bind_path(&path, Some(0)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(format!("{:#}", bind_path(&file, None).unwrap_err()).contains("not a socket"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn groups_are_numbers_or_names() {
        assert_eq!(group_id("12").unwrap(), 12);
        assert_eq!(group_id("root").unwrap(), 0);
        assert!(group_id("no such group").is_err());
    }
}
