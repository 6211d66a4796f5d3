use std::collections::HashMap;

use hull_manager_core::ErrorKind;

use super::*;

struct Site {
    directory: tempfile::TempDir,
    store: Store,
    journal: Journal,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("meta.db")).unwrap();
        let journal = Journal::open(&store).unwrap();
        Self { directory, store, journal }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("volumes")
    }

    fn open(&self) -> Volumes {
        let places = self.directory.path().join("places");
        Volumes::open(&self.root(), &places, &self.store, &self.journal).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A test that failed may have left mounts.
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let here = self.directory.path().to_string_lossy().into_owned();
        for line in mountinfo.lines().rev() {
            let point = line.split(' ').nth(4).unwrap_or_default();
            if point.starts_with(&here) {
                drop(mount::unmount(point, true));
            }
        }
    }
}

fn is_root() -> bool {
    hull_runtime_sys::process::effective_uid() == 0
}

fn named(name: &str) -> v1::CreateVolumeRequest {
    v1::CreateVolumeRequest { name: name.into(), ..Default::default() }
}

fn of(name: &str) -> v1::Mount {
    v1::Mount { r#type: v1::mount::Type::Volume.into(), source: name.into(), ..Default::default() }
}

fn filters(pairs: &[(&str, &str)]) -> Vec<v1::Filter> {
    pairs
        .iter()
        .map(|&(key, value)| v1::Filter { key: key.into(), values: vec![value.into()] })
        .collect()
}

fn listed(volumes: &Volumes, pairs: &[(&str, &str)]) -> Vec<String> {
    let found = volumes.list(&v1::ListVolumesRequest { filters: filters(pairs) }).unwrap();
    found.volumes.into_iter().map(|volume| volume.name).collect()
}

fn remove(volumes: &Volumes, name: &str, force: bool) -> Result<v1::RemoveVolumeResponse> {
    volumes.remove(&v1::RemoveVolumeRequest { name: name.into(), force })
}

#[test]
fn a_volume_is_made_once_and_found_again() {
    let site = Site::new();
    let volumes = site.open();
    let request = v1::CreateVolumeRequest {
        labels: [("a".to_owned(), "1".to_owned())].into(),
        ..named("data")
    };
    let made = volumes.create(&request).unwrap();
    assert_eq!(made.mountpoint, site.root().join("data/_data").to_string_lossy());
    assert_eq!(volumes.create(&named("data")).unwrap(), made);
    drop(volumes);
    let volumes = site.open();
    assert_eq!(volumes.inspect(&v1::InspectVolumeRequest { name: "data".into() }).unwrap(), made);
    let other = v1::CreateVolumeRequest {
        options: HashMap::from(
            [("type", "tmpfs"), ("device", "tmpfs")].map(|(k, v)| (k.into(), v.into())),
        ),
        ..named("data")
    };
    assert_eq!(volumes.create(&other).unwrap_err().kind(), ErrorKind::FailedPrecondition);
}

#[test]
fn names_and_drivers_are_checked() {
    let site = Site::new();
    let volumes = site.open();
    for bad in ["../x", "a/b", ".removed", "a", "a\n"] {
        assert_eq!(
            volumes.create(&named(bad)).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
    }
    let foreign = v1::CreateVolumeRequest { driver: "nfs".into(), ..named("data") };
    assert_eq!(
        volumes.create(&foreign).unwrap_err().message(),
        "create data: error looking up volume plugin nfs: plugin \"nfs\" not found"
    );
    let anonymous = volumes.create(&named("")).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
}

#[test]
fn what_is_in_use_stays() {
    let site = Site::new();
    let volumes = site.open();
    volumes.acquire(&of("data"), "c1").unwrap();
    volumes.acquire(&of("data"), "c2").unwrap();
    let error = remove(&volumes, "data", true).unwrap_err();
    assert_eq!(error.message(), "remove data: volume is in use - [c1, c2]");
    volumes.release("c1", true).unwrap();
    volumes.release("c2", true).unwrap();
    // It has a name, so it outlives them.
    assert_eq!(listed(&volumes, &[]), ["data"]);
    fs::write(site.root().join("data/_data/file"), "1").unwrap();
    remove(&volumes, "data", false).unwrap();
    assert!(!site.root().join("data").exists());
    assert_eq!(fs::read_dir(site.root().join(REMOVED)).unwrap().count(), 0);
    assert_eq!(remove(&volumes, "data", false).unwrap_err().message(), "get data: no such volume");
    remove(&volumes, "data", true).unwrap();
}

#[test]
fn anonymous_volumes_go_with_their_container_if_asked() {
    let site = Site::new();
    let volumes = site.open();
    let (first, second) = (of(""), of(""));
    let kept = volumes.acquire(&first, "c1").unwrap();
    volumes.release("c1", false).unwrap();
    assert_eq!(listed(&volumes, &[("dangling", "true")]), std::slice::from_ref(&kept.name));
    let gone = volumes.acquire(&second, "c2").unwrap();
    volumes.release("c2", true).unwrap();
    assert!(kept.name != gone.name && listed(&volumes, &[]) == [kept.name]);
}

#[test]
fn lists_are_filtered_and_pruned() {
    let site = Site::new();
    let volumes = site.open();
    let label = v1::CreateVolumeRequest {
        labels: [("keep".to_owned(), String::new())].into(),
        ..named("one")
    };
    volumes.create(&label).unwrap();
    volumes.create(&named("two")).unwrap();
    volumes.acquire(&of("used"), "c1").unwrap();
    let anonymous = volumes.create(&named("")).unwrap().name;
    fs::write(site.root().join(&anonymous).join("_data/file"), vec![1; 10_000]).unwrap();
    assert_eq!(listed(&volumes, &[("label", "keep")]), ["one"]);
    assert_eq!(listed(&volumes, &[("name", "w")]), ["two"]);
    assert_eq!(listed(&volumes, &[("dangling", "false")]), ["used"]);
    assert_eq!(listed(&volumes, &[("driver", "nfs")]), [""; 0]);
    let bad = v1::ListVolumesRequest { filters: filters(&[("x", "y")]) };
    assert_eq!(volumes.list(&bad).unwrap_err().message(), "invalid filter 'x'");
    let prune = |pairs: &[(&str, &str)]| {
        volumes.prune(&v1::PruneVolumesRequest { filters: filters(pairs) }).unwrap()
    };
    let pruned = prune(&[]);
    assert_eq!(pruned.removed, [anonymous]);
    assert!(pruned.reclaimed_bytes >= 10_000, "{}", pruned.reclaimed_bytes);
    assert_eq!(prune(&[("all", "true"), ("label!", "keep")]).removed, ["two"]);
    assert_eq!(listed(&volumes, &[]), ["one", "used"]);
}

#[test]
fn what_a_killed_manager_left_is_settled() {
    let site = Site::new();
    drop(site.open());
    // Killed in create; in remove; a volume of another machine.
    fs::create_dir_all(site.root().join("half/_data")).unwrap();
    fs::create_dir_all(site.root().join(".removed/x/_data/deep")).unwrap();
    fs::create_dir_all(site.root().join("old/_data")).unwrap();
    fs::write(site.root().join("old/_data/file"), "1").unwrap();
    let volumes = site.open();
    assert_eq!(listed(&volumes, &[]), ["old"]);
    assert!(!site.root().join("half").exists() && !site.root().join(".removed/x").exists());
    // Killed after the rename: the record goes.
    fs::rename(site.root().join("old"), site.root().join(".removed/y")).unwrap();
    drop(volumes);
    assert_eq!(listed(&site.open(), &[]), [""; 0]);
}

#[test]
fn a_volume_with_options_is_mounted_while_it_is_used() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let volumes = site.open();
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k,mode=0751")];
    let mount = v1::Mount {
        volume_options: options.map(|(key, value)| (key.into(), value.into())).into(),
        ..of("fast")
    };
    for container in ["c1", "c2"] {
        volumes.acquire(&mount, container).unwrap();
        let path = volumes.mount("fast", "", container).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o751);
    }
    let file = site.root().join("fast/_data/file");
    fs::write(&file, "1").unwrap();
    volumes.unmount("c1").unwrap();
    assert!(file.exists());
    // A new manager knows who has it mounted.
    drop(volumes);
    let volumes = site.open();
    volumes.unmount("c2").unwrap();
    volumes.unmount("c2").unwrap();
    assert!(!file.exists());
    assert!(volumes.mount("fast", "", "c3").is_err());
}

#[test]
fn a_bind_of_the_local_driver_is_left_whole_by_a_removal() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let device = site.directory.path().join("device");
    fs::create_dir(&device).unwrap();
    fs::write(device.join("canary"), "1").unwrap();
    let volumes = site.open();
    let options = [("type", "none"), ("device", device.to_str().unwrap()), ("o", "bind,ro")];
    let request = v1::CreateVolumeRequest {
        options: options.map(|(key, value)| (key.into(), value.into())).into(),
        ..named("bound")
    };
    volumes.create(&request).unwrap();
    volumes.acquire(&of("bound"), "c1").unwrap();
    let path = volumes.mount("bound", "", "c1").unwrap();
    assert!(path.join("canary").exists());
    assert!(fs::write(path.join("new"), "1").is_err());
    volumes.release("c1", false).unwrap();
    remove(&volumes, "bound", false).unwrap();
    assert!(device.join("canary").exists());
}

#[test]
fn a_subpath_is_a_place_that_links_do_not_lead_out_of() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let volumes = site.open();
    volumes.acquire(&of("data"), "c1").unwrap();
    let data = site.root().join("data/_data");
    fs::create_dir_all(data.join("a/b")).unwrap();
    fs::write(data.join("a/b/file"), "1").unwrap();
    std::os::unix::fs::symlink("/a/b", data.join("inside")).unwrap();
    std::os::unix::fs::symlink("/etc", data.join("out")).unwrap();
    let mount = |subpath: &str| volumes.mount("data", subpath, "c1");
    let place = mount("a/b").unwrap();
    assert!(!place.starts_with(site.root()));
    assert!(place.join("file").exists());
    assert_eq!(fs::read(mount("inside/file").unwrap()).unwrap(), b"1");
    // What the container does to the path later does not matter.
    fs::rename(data.join("a"), data.join("moved")).unwrap();
    std::os::unix::fs::symlink("/etc", data.join("a")).unwrap();
    assert!(place.join("file").exists() && !place.join("passwd").exists());
    for bad in ["out", "../x", "/etc", "nothing", "inside/../../.."] {
        assert!(mount(bad).is_err(), "{bad}");
    }
    volumes.release("c1", false).unwrap();
    assert!(!place.exists());
    remove(&volumes, "data", false).unwrap();
}

#[test]
fn a_detached_mount_gets_a_place() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let volumes = site.open();
    let image = mount::Context::open("tmpfs").unwrap();
    image.create().unwrap();
    let image = image.mount(mount::Attributes::NONE).unwrap();
    hull_runtime_sys::fd::mkdirat(&image, c"sub", 0o755).unwrap();
    let whole = volumes.place(&image, "", "c1").unwrap();
    assert!(whole.join("sub").is_dir());
    volumes.unmount("c1").unwrap();
    let second = mount::Context::open("tmpfs").unwrap();
    second.create().unwrap();
    let second = second.mount(mount::Attributes::NONE).unwrap();
    hull_runtime_sys::fd::mkdirat(&second, c"sub", 0o700).unwrap();
    let below = volumes.place(&second, "sub", "c2").unwrap();
    assert_eq!(fs::metadata(&below).unwrap().permissions().mode() & 0o777, 0o700);
    volumes.unmount("c2").unwrap();
    assert!(!below.exists());
}

#[test]
fn an_empty_volume_is_filled_once() {
    let site = Site::new();
    let volumes = site.open();
    volumes.acquire(&of("data"), "c1").unwrap();
    let filled = volumes.fill("data", |_| Ok(())).unwrap();
    assert!(filled);
    fs::write(site.root().join("data/_data/file"), "1").unwrap();
    assert!(!volumes.fill("data", |_| anyhow::bail!("not asked")).unwrap());
}
