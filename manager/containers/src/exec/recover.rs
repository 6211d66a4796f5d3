//! Execs of a manager that is no more: nobody can be attached to them, but they go on, and their
//! ends are noted.

use std::{fs, path::Path, sync::Arc};

use hull_manager_core::ErrorKind;
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

use super::{list::Exec, session::BLOCK};
use crate::{
    Inner, bundle, exit_record,
    handle::Handle,
    shim::{Liveness, Shim},
};

impl Inner {
    /// Those of a container that runs.
    pub(crate) fn take_up_execs(self: &Arc<Self>, handle: &Handle, shim: &Shim) {
        for exec in self.execs.of(&handle.id) {
            if exec.now().begun {
                let (inner, record, shim) = (Arc::clone(self), handle.record(), shim.clone());
                tokio::spawn(async move {
                    if inner.take_up_exec(&exec, &shim).await {
                        inner.watch_exec(record, exec, shim).await;
                    }
                });
            }
        }
        self.forsake_streams(shim);
    }

    /// Whether its end is to come. One that its manager could not start any more is ended: there
    /// is nobody who waits for it.
    async fn take_up_exec(&self, exec: &Exec, shim: &Shim) -> bool {
        let pid = match shim.state(&exec.id).await {
            Ok((Liveness::Created, _)) => match shim.delete(&exec.id).await {
                Ok(()) => {
                    self.execs.end(exec, None);
                    return false;
                }
                // Its start was under way.
                Err(_) => shim.state(&exec.id).await.map_or(0, |(_, pid)| pid),
            },
            Ok((_, pid)) => pid,
            // An end is noted before the shim forgets it: this one was never asked for there.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.execs.end(exec, None);
                return false;
            }
            // The shim is dying, and so is the exec.
            Err(_) => 0,
        };
        if let Err(error) = self.execs.change(exec, |state| state.pid = pid) {
            tracing::error!(exec = %exec.id, %error, "its process is not stored");
        }
        true
    }

    /// Those of a container that does not run: how they ended, as far as the shim has noted it.
    pub(crate) fn end_execs(&self, container: &str, bundle: &Path) {
        for exec in self.execs.of(container) {
            if exec.now().begun {
                let record = exit_record::read_exec(bundle, &exec.id).ok().flatten();
                self.execs.end(&exec, record.map(|record| record.shell_code));
            }
        }
    }

    /// Their output must not wait for a reader, and nobody types into them any more.
    fn forsake_streams(&self, shim: &Shim) {
        for name in bundle::names(&shim.bundle).unwrap_or_default() {
            let Some((id, "out" | "err" | "in")) =
                name.strip_prefix("exec-").and_then(|name| name.split_once('.'))
            else {
                continue;
            };
            // A health check's is no exec that anybody could ask for.
            let known = self.execs.find(id).is_ok();
            let (path, id, shim) = (shim.bundle.join(&name), id.to_owned(), shim.clone());
            tokio::spawn(async move {
                if name.ends_with(".in") {
                    // Its client is gone.
                    let _ = shim.close_stdin(&id).await;
                } else if let Ok(mut reader) = pipe::OpenOptions::new().open_receiver(&path) {
                    let mut buffer = vec![0; BLOCK];
                    while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
                }
                if !known {
                    let _ = shim.wait(&id).await;
                    // One of its streams does it, the others find it done.
                    let _ = shim.delete(&id).await;
                }
                let _ = fs::remove_file(&path);
            });
        }
    }
}
