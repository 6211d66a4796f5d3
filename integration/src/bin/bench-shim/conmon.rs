//! conmon, started as podman does it around a runtime.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use hull_integration::engine::{Site, command, runtime_path, stock};
use hull_integration::shim::SOON;
use hull_integration::{Bundle, wait_for};
use serde_json::json;

/// Where conmons and their containers are. Dropping it ends them.
pub(crate) struct Conmon {
    root: Bundle,
    site: Option<Site>,
    ids: RefCell<Vec<String>>,
}

/// A container with its conmon.
pub(crate) struct Container<'a> {
    conmon: &'a Conmon,
    id: String,
    /// conmon's process id.
    pub(crate) pid: i32,
    /// Where conmon writes the log.
    pub(crate) log: String,
}

impl Conmon {
    pub(crate) fn new() -> Self {
        Self { root: Bundle::new(), site: Some(Site::new()), ids: RefCell::default() }
    }

    pub(crate) fn site(&self) -> &Site {
        self.site.as_ref().expect("it is taken at the end only")
    }

    fn runtime(&self, words: &[&str]) -> hull_integration::Output {
        let root = self.site().path("runtime");
        command(&[&[runtime_path(), "--root", &root], words].concat()).run()
    }

    /// Makes a container.
    pub(crate) fn create(&self, id: &str, args: &[&str]) -> Container<'_> {
        self.create_with(id, args, None)
    }

    /// Makes one with a file of the host's at the same place inside.
    pub(crate) fn create_with(&self, id: &str, args: &[&str], file: Option<&str>) -> Container<'_> {
        let site = self.site();
        let bundle = site.make(&format!("bundles/{id}"));
        let mut config = self.root.config.clone();
        config["process"]["args"] = json!(args);
        config["root"]["path"] = json!(self.root.rootfs());
        config["linux"]["cgroupsPath"] = json!(format!("{}/{id}", site.cgroup()));
        if let (Some(file), Some(mounts)) = (file, config["mounts"].as_array_mut()) {
            mounts.push(json!({"destination": file, "type": "bind", "source": file,
                "options": ["rbind", "ro"]}));
        }
        site.write(&format!("bundles/{id}/config.json"), &config.to_string());
        let in_bundle = |name: &str| format!("{bundle}/{name}");
        let (pid_file, own_pid_file) = (in_bundle("pidfile"), in_bundle("conmon.pid"));
        let log = in_bundle("ctr.log");
        self.ids.borrow_mut().push(id.to_owned());
        let words = [
            &*stock("conmon"),
            "--api-version",
            "1",
            "-c",
            id,
            "-u",
            id,
            "-n",
            id,
            "-r",
            runtime_path(),
            "--runtime-arg",
            "--root",
            "--runtime-arg",
            &site.path("runtime"),
            "-b",
            &bundle,
            "--persist-dir",
            &bundle,
            "-p",
            &pid_file,
            "--conmon-pidfile",
            &own_pid_file,
            "--exit-dir",
            &site.make("exits"),
            "--full-attach",
            "--socket-dir-path",
            &site.make("sockets"),
            "--log-level",
            "error",
            "-l",
            &format!("k8s-file:{log}"),
        ];
        command(&words).run().ok();
        let read = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let pid = wait_for("conmon's process id", SOON, || read(&own_pid_file));
        let _: i32 = wait_for("the container's process id", SOON, || {
            assert!(Path::new(&format!("/proc/{pid}")).exists(), "conmon has ended");
            read(&pid_file)
        });
        Container { conmon: self, id: id.to_owned(), pid, log }
    }
}

impl Container<'_> {
    pub(crate) fn start(&self) {
        self.conmon.runtime(&["start", &self.id]).ok();
    }

    /// Removes it with its log.
    pub(crate) fn delete(&self) {
        self.conmon.runtime(&["delete", "--force", &self.id]).ok();
        let bundle = self.conmon.site().path(&format!("bundles/{}", self.id));
        wait_for("the end of conmon", SOON, || {
            (!Path::new(&format!("/proc/{}", self.pid)).exists()).then_some(())
        });
        fs::remove_dir_all(bundle).expect("it is ours, and holds no mount");
        self.conmon.ids.borrow_mut().retain(|id| *id != self.id);
    }
}

impl Drop for Conmon {
    fn drop(&mut self) {
        for id in self.ids.take() {
            self.runtime(&["delete", "--force", &id]);
        }
        if let Some(site) = self.site.take() {
            site.end();
        }
    }
}
