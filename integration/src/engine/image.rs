//! Images made on this machine, kept below the build directory for the next run.

use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::{Site, command, stock};

/// The Debian release that is made into an image.
const DEBIAN: &str = "bookworm";
/// Fetching and unpacking packages over a slow line.
const DEBIAN_LIMIT: Duration = Duration::from_secs(600);

/// A tar archive of a root file system with busybox and nothing else.
pub fn busybox_archive() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let busybox = fs::metadata(stock("busybox")).expect("it was just found");
        let name = format!("busybox-{}-{}.tar", busybox.size(), busybox.mtime());
        cached(&name, |target| {
            let site = Site::new();
            let root = site.make("root");
            build_root(Path::new(&root));
            command(&["tar", "--numeric-owner", "-C", &root, "-cf", target, "."]).run().ok();
            dispose(&site);
        })
    })
}

/// A tar archive of a small Debian, made by mmdebstrap from Debian's archive.
pub fn debian_archive() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        cached(&format!("debian-{DEBIAN}.tar"), |target| {
            command(&["mmdebstrap", "--variant=apt", "--format=tar", DEBIAN, target])
                .limit(DEBIAN_LIMIT)
                .run()
                .ok();
        })
    })
}

/// An archive of an OCI layout with the busybox root, made by umoci and skopeo. Its
/// name is `localhost/busybox:latest`.
pub fn oci_layout() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let name = Path::new(busybox_archive()).with_extension("oci");
        let name = name.file_name().expect("it has a name").to_str().expect("the path is text");
        cached(name, |target| {
            for program in ["umoci", "skopeo"] {
                stock(program);
            }
            let site = Site::new();
            let (layout, bundle) = (site.path("layout"), site.path("bundle"));
            let image = format!("{layout}:latest");
            command(&["umoci", "init", "--layout", &layout]).run().ok();
            command(&["umoci", "new", "--image", &image]).run().ok();
            command(&["umoci", "unpack", "--image", &image, &bundle]).run().ok();
            command(&["tar", "-C", &format!("{bundle}/rootfs"), "-xf", busybox_archive()])
                .run()
                .ok();
            command(&["umoci", "repack", "--image", &image, &bundle]).run().ok();
            command(&["umoci", "config", "--image", &image, "--config.cmd", "sh"]).run().ok();
            let target = format!("oci-archive:{target}:localhost/busybox:latest");
            command(&["skopeo", "--insecure-policy", "copy", &format!("oci:{image}"), &target])
                .run()
                .ok();
            dispose(&site);
        })
    })
}

#[track_caller]
fn dispose(site: &Site) {
    super::site::report("making an image", &site.clear(&[], |_| false));
}

/// The path, below the build directory, of a file or directory that `make` makes when it is not
/// there yet.
pub fn cached(name: &str, make: impl FnOnce(&str)) -> String {
    let directory = cache_directory();
    fs::create_dir_all(&directory).expect("the build directory is writable");
    let path = directory.join(name);
    // Another test process may be making it at this moment.
    let lock =
        File::create(directory.join("images.lock")).expect("the build directory is writable");
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("ours");
    if !path.exists() {
        let unfinished = directory.join(format!("{name}.unfinished"));
        let _ = fs::remove_file(&unfinished);
        let _ = fs::remove_dir_all(&unfinished);
        make(unfinished.to_str().expect("the path is text"));
        fs::rename(&unfinished, &path).expect("it was just made");
    }
    path.to_str().expect("the path is text").to_owned()
}

fn cache_directory() -> PathBuf {
    let test = env::current_exe().expect("/proc is mounted");
    match test.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()) {
        Some(target) => target.join("tmp"),
        None => env::temp_dir().join("hull-images"),
    }
}

fn build_root(root: &Path) {
    let writable = "the site is writable";
    for name in ["bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "var/tmp"]
    {
        fs::create_dir_all(root.join(name)).expect(writable);
    }
    for name in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(name), Permissions::from_mode(0o1777)).expect(writable);
    }
    let busybox = stock("busybox");
    fs::copy(&busybox, root.join("bin/busybox")).expect(writable);
    let applets = command(&[&*busybox, "--list"]).run().ok();
    for applet in applets.lines().into_iter().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("no applet is listed twice");
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"),
        ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
    ];
    for (name, text) in files {
        fs::write(root.join(name), text).expect(writable);
    }
}
