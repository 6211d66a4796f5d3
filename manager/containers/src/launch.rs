//! Starting a container: the shim starts while its configuration is made.

use std::{path::Path, sync::Arc};

use containerd_shim_protos::types::mount::Mount;
use hull_manager_core::{Error, Result};

use crate::{
    bundle,
    logs::driver::{self, Place},
    owner::Owner,
    prepare,
    shim::{self, Shim, Streams},
};

/// What the shim takes for stdin that comes from attached clients.
const ATTACHED: &str = "hull-attach:";

/// A started container: its shim, its pid, and its end to come.
pub(crate) type Launched = (Shim, u32, crate::owner::Waiting);

impl Owner {
    /// Makes the container and starts its process. If that fails nothing is left.
    pub(crate) async fn launch(&mut self) -> Result<Launched> {
        let bundle = self.bundle();
        if bundle.exists() {
            // Of a start that was cut off.
            self.dismantle(false).await;
        }
        bundle::make(&bundle)?;
        self.handle.state.send_modify(|state| state.settled = false);
        let root = Arc::clone(&self.handle.root).write_owned().await;
        let launched = self.launch_in(&bundle).await;
        drop(root);
        if launched.is_err() {
            let connected = self.shim.is_some();
            self.dismantle(connected).await;
            // Who waits for the start is told that there is none.
            drop(self.handle.attaching.take());
        }
        launched
    }

    async fn launch_in(&mut self, bundle: &Path) -> Result<Launched> {
        let record = self.record();
        let id = record.id();
        let options = &record.effective;
        let inner = Arc::clone(&self.inner);
        let runtime = shim::options(&inner.settings(), &options.runtime)?;
        let starting = async {
            let (inner, of, at) = (Arc::clone(&inner), id.to_owned(), bundle.to_owned());
            let runtime = runtime.clone();
            let launch = move || shim::launch(&inner.settings(), &of, &at, &runtime);
            let launched = tokio::task::spawn_blocking(launch).await;
            let address = launched.map_err(|cause| Error::internal("start").because(cause))??;
            // At once: a shim that nobody talks to for some seconds ends.
            Shim::connect(id, bundle, &address).await
        };
        let (shim, prepared) = tokio::join!(starting, prepare::prepare(&inner, &self.handle));
        // Also when the rest failed: the shim is to be ended then.
        let shim = shim?;
        self.shim = Some(shim.clone());
        let rootfs = prepared?;
        let receiver = driver::receiver(options).await?;
        let socket = inner.attach_socket(id);
        let directory = inner.directory(id);
        let place = Place { directory: &directory, bundle, attach: &socket };
        let streams = Streams {
            stdin: if options.open_stdin { ATTACHED.to_owned() } else { String::new() },
            stdout: driver::uri(&record, &place, receiver.as_deref())?,
            stderr: String::new(),
            terminal: options.tty,
        };
        let mounts = rootfs.into_iter().map(|mount| Mount {
            type_: mount.kind,
            source: mount.source,
            options: mount.options,
            ..Mount::default()
        });
        shim.create(mounts.collect(), streams, runtime).await?;
        self.handle.connect_waiting(&socket).await?;
        let waiting = shim.clone();
        let waiting = tokio::spawn(async move { waiting.wait("").await });
        let pid = shim.start("").await?;
        Ok((shim, pid, waiting))
    }
}
