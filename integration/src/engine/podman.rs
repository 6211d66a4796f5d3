//! podman on a store of its own.

use std::ops::Deref;

use serde_json::Value;

use super::site::{attempt, report};
use super::{Client, Lab, Side, Site, busybox_archive, command, runtime_path, stock};
use crate::SOON;
use crate::wait::poll;

/// podman, with the image `busybox`, and no network unless a test asks for one.
#[derive(Debug)]
pub struct Podman {
    site: Site,
    client: Client,
}

impl Podman {
    /// A store with the image.
    pub fn new() -> Self {
        Self::with_configuration("")
    }

    /// A store, and lines for the `engine` table of containers.conf.
    pub fn with_configuration(engine: &str) -> Self {
        Self::with(engine, runtime_path(), Vec::new())
    }

    /// A store, and another runtime than the one under test.
    pub fn with_runtime(runtime: &str) -> Self {
        Self::with("", runtime, Vec::new())
    }

    /// A store, another runtime, and networks of its default kind on the host of a lab.
    pub fn start_in(lab: &Lab, runtime: &str) -> Self {
        stock("netavark");
        let backend = "[network]\nnetwork_backend = \"netavark\"";
        Self::with(backend, runtime, lab.words(Side::Host))
    }

    fn with(engine: &str, runtime: &str, place: Vec<String>) -> Self {
        let site = Site::new();
        // Locks in shared memory would be those of the machine's own podman. Its
        // built-in limits are above the hard limits of some machines.
        let configuration = format!(
            "[containers]\n\
             netns = \"none\"\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n\
             [engine]\n\
             lock_type = \"file\"\n\
             volume_path = \"{volumes}\"\n\
             infra_image = \"localhost/busybox\"\n\
             {engine}\n",
            volumes = site.make("volumes"),
        );
        let configuration = site.write("containers.conf", &configuration);
        stock("conmon");
        let mut words = place;
        words.extend([
            stock("env"),
            "--unset=XDG_RUNTIME_DIR".to_owned(),
            format!("CONTAINERS_CONF={configuration}"),
            stock("podman"),
        ]);
        for (option, value) in [
            ("--root", site.make("root")),
            ("--runroot", site.make("run")),
            ("--tmpdir", site.make("tmp")),
            ("--network-config-dir", site.make("networks")),
            ("--storage-driver", "overlay".to_owned()),
            ("--runtime", runtime.to_owned()),
            ("--cgroup-manager", "cgroupfs".to_owned()),
            ("--events-backend", "file".to_owned()),
        ] {
            words.extend([option.to_owned(), value]);
        }
        // conmon tells of a memory kill by a file in the directory it was started in.
        let client = Client::new(words).placed(site.directory(), site.cgroup());
        let podman = Self { site, client };
        podman.run(&["import", busybox_archive(), "localhost/busybox"]).ok();
        podman
    }

    /// The private places.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Bundles of this store that the runtime still knows: podman 4.3 leaves the
    /// runtime's root at its default, where those of others are too.
    fn known_to_the_runtime(&self) -> Vec<String> {
        let list = command(&[runtime_path(), "list", "--format", "json"]).run();
        let containers: Value = serde_json::from_str(&list.stdout).unwrap_or_default();
        let own = self.site.directory().to_string_lossy();
        let bundle = |container: &Value| container["bundle"].as_str().map(str::to_owned);
        containers
            .as_array()
            .map(|all| {
                all.iter().filter_map(bundle).filter(|path| path.starts_with(&*own)).collect()
            })
            .unwrap_or_default()
    }
}

impl Deref for Podman {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for args in [
            &["pod", "rm", "--all", "--force", "--time=0"][..],
            &["rm", "--all", "--force", "--time=0", "--volumes"],
        ] {
            // The cleaning up that conmon started may have the container at this moment.
            let again = || (self.run(args).code() == Some(0)).then_some(());
            attempt(&mut left, || poll(SOON, again).expect("podman removes what it made"));
        }
        let known = attempt(&mut left, || self.known_to_the_runtime()).unwrap_or_default();
        left.extend(known.into_iter().map(|path| format!("state of {path}")));
        // Of a pod's own cgroup it forgets the hierarchies without a controller; conmon's
        // has no owner.
        let habitual = |name: &str| !name.starts_with("libpod-");
        left.extend(self.site.clear(&["root/overlay"], habitual));
        report("podman", &left);
    }
}
