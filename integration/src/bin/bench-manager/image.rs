//! The images that are pulled: a Debian and five more layers of its packages, and a second image
//! that has one small layer more. Made once, and kept in a registry's directory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hull_integration::engine::{Registry, Site, busybox_archive, command, debian_archive};

/// Fetching packages over a slow line, and compressing them.
const LIMIT: Duration = Duration::from_secs(1800);

/// What each layer above the first has: few large files, very many small ones, and between.
const PACKAGES: [&[&str]; 5] = [
    &["openjdk-17-jre-headless", "libicu72"],
    &["gcc-12", "cpp-12", "libgcc-12-dev", "git", "perl-modules-5.36"],
    &["golang-1.19-src", "vim-runtime"],
    &["libboost1.74-dev", "linux-headers-6.1.0-*-common"],
    &["llvm-14-dev", "libllvm14", "python3-numpy", "python3-scipy"],
];

/// The same, small.
const QUICK_PACKAGES: [&[&str]; 5] =
    [&["vim-runtime"], &["netbase"], &["python3-numpy"], &["media-types"], &["tzdata"]];

/// The image, and the one that is based on it, in a registry.
pub(crate) const BASE: &str = "bench:base";
pub(crate) const CHILD: &str = "bench:child";

/// The registry with the images. They are made if they are not in the directory.
pub(crate) fn registry(cache: &Path, quick: bool) -> Registry {
    let directory = cache.join(if quick { "registry-quick" } else { "registry" });
    let done = directory.join("whole");
    if !done.exists() {
        // Of a run that was ended.
        let _ = fs::remove_dir_all(&directory);
    }
    fs::create_dir_all(&directory).expect("the cache is writable");
    let registry = Registry::start(&directory);
    if !done.exists() {
        eprintln!("making the images in {}; this takes minutes", directory.display());
        make(&registry, quick);
        fs::write(&done, "").expect("the cache is writable");
    }
    registry
}

fn make(registry: &Registry, quick: bool) {
    // On disk, unlike the site: it is large.
    let work = tempfile::tempdir().expect("the temporary directory is writable");
    let path = |name: &str| work.path().join(name).to_str().expect("the path is text").to_owned();
    let site = Site::new();
    let run = |words: &[&str]| drop(command(words).limit(LIMIT).cwd(site.directory()).run().ok());
    let layout = path("layout");
    let image = |tag: &str| format!("{layout}:{tag}");
    run(&["umoci", "init", "--layout", &layout]);
    run(&["umoci", "new", "--image", &image("base")]);
    let add =
        |tag: &str, tar: &str| run(&["umoci", "raw", "add-layer", "--image", &image(tag), tar]);
    add("base", if quick { busybox_archive() } else { debian_archive() });
    let layers = if quick { QUICK_PACKAGES } else { PACKAGES };
    for (number, packages) in layers.iter().enumerate() {
        let (root, debs) = (path(&format!("root{number}")), path(&format!("debs{number}")));
        for directory in [&root, &debs] {
            fs::create_dir_all(directory).expect("the directory is ours");
        }
        // Of a pattern the last name, which is that of the newest version.
        let script = "cd \"$1\"; shift; for p; do apt-get download -qq \
            \"$(apt-cache pkgnames \"${p%%\\**}\" | grep -x \"$(echo \"$p\" | sed 's/[.+]/\\\\&/g; s/\\*/.*/')\" | sort -V | tail -1)\"; done";
        run(&[&["/bin/sh", "-ec", script, "sh", &debs], *packages].concat());
        run(&[
            "/bin/sh",
            "-ec",
            "for p in \"$1\"/*.deb; do dpkg-deb -x \"$p\" \"$2\"; done",
            "sh",
            &debs,
            &root,
        ]);
        let tar = path(&format!("layer{number}.tar"));
        run(&["tar", "--sort=name", "--numeric-owner", "-C", &root, "-cf", &tar, "."]);
        add("base", &tar);
        for directory in [&root, &debs] {
            fs::remove_dir_all(directory).expect("the directory is ours");
        }
        fs::remove_file(&tar).expect("it was just made");
    }
    run(&["umoci", "config", "--image", &image("base"), "--config.cmd", "true"]);
    run(&["umoci", "tag", "--image", &image("base"), "child"]);
    let small = site.make("small");
    fs::write(format!("{small}/small"), "a layer of its own\n").expect("the site is writable");
    let tar = path("small.tar");
    run(&["tar", "--numeric-owner", "-C", &small, "-cf", &tar, "."]);
    add("child", &tar);
    for (tag, name) in [("base", BASE), ("child", CHILD)] {
        let target = format!("docker://{}/{name}", registry.address);
        let source = format!("oci:{}", image(tag));
        run(&["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]);
    }
    site.end();
}
