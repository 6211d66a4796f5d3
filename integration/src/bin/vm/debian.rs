//! What the machine takes from Debian's archive: kernel, AppArmor's parser, and
//! a small system with systemd. Packages are unpacked into the cache, never
//! installed; each is fetched once.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::image::find_program;

/// The kernel's meta package, whose dependency is the current version.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Beyond what mmdebstrap's smallest variant brings.
const SYSTEMD_PACKAGES: &str = "systemd,systemd-sysv,dbus,busybox-static,kmod,iproute2,\
    procps,apparmor,iptables,nftables,ufw,firewalld";

/// The disk's size; it is sparse and only ever written to a snapshot.
const DISK_SIZE: &str = "2000M";

/// An unpacked kernel.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) release: String,
}

pub(crate) fn kernel(cache: &Path) -> Result<Kernel> {
    let folder = cache.join("linux");
    if !folder.exists() {
        let output = Command::new("apt-cache")
            .args(["depends", KERNEL])
            .output()
            .context("run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let package = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"))
            .with_context(|| format!("{KERNEL} names no kernel: is apt-get update needed?"))?;
        once(&folder, |unpacked| {
            unpack(package, unpacked)?;
            let release = only_entry(&unpacked.join("lib/modules"))?;
            // kmod's: it writes the lists that Debian's modprobe reads, too.
            let depmod = find_program("depmod").context("kmod is not installed")?;
            call(Command::new(depmod).arg("-b").arg(unpacked).arg(release))
        })?;
    }
    let release = only_entry(&folder.join("lib/modules"))?;
    Ok(Kernel {
        image: folder.join(format!("boot/vmlinuz-{release}")),
        modules: folder.join("lib/modules").join(&release),
        release,
    })
}

pub(crate) fn apparmor_parser(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("apparmor");
    once(&folder, |unpacked| unpack("apparmor", unpacked))?;
    Ok(folder.join("sbin/apparmor_parser"))
}

/// A disk with a Debian that boots systemd, and all modules of the kernel, which loads what the
/// machine asks for.
pub(crate) fn systemd_disk(cache: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (SYSTEMD_PACKAGES, &kernel.release).hash(&mut hasher);
    let disk = cache.join(format!("systemd-{:016x}.ext4", hasher.finish()));
    once(&disk, |disk| {
        let tree = cache.join("systemd.tree");
        if tree.exists() {
            fs::remove_dir_all(&tree).context("remove an unfinished tree")?;
        }
        call(
            Command::new("mmdebstrap")
                .args(["--quiet", "--variant=essential", "--include", SYSTEMD_PACKAGES])
                .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
                .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
                .arg("bookworm")
                .arg(&tree),
        )?;
        fs::write(tree.join("etc/fstab"), "").context("write fstab")?;
        let modules = tree.join("usr/lib/modules");
        fs::create_dir_all(&modules).context("make the folder of modules")?;
        call(Command::new("cp").arg("-a").arg(&kernel.modules).arg(modules))?;
        call(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-d"])
                .arg(&tree)
                .arg(disk)
                .arg(DISK_SIZE),
        )?;
        fs::remove_dir_all(&tree).context("remove the tree")
    })?;
    Ok(disk)
}

/// Makes `target` by way of a name that no unfinished attempt can pass for.
fn once(target: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    let unfinished = target.with_extension("unfinished");
    if unfinished.is_dir() {
        fs::remove_dir_all(&unfinished).context("remove an unfinished attempt")?;
    } else if unfinished.exists() {
        fs::remove_file(&unfinished).context("remove an unfinished attempt")?;
    }
    make(&unfinished)?;
    fs::rename(&unfinished, target).context("keep the result")
}

fn unpack(package: &str, target: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    call(Command::new("apt-get").args(["download", "-q", package]).current_dir(folder.path()))?;
    let archive = folder.path().join(only_entry(folder.path())?);
    call(Command::new("dpkg-deb").arg("-x").arg(archive).arg(target))
}

fn only_entry(folder: &Path) -> Result<String> {
    let mut entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let entry = entries.next().with_context(|| format!("{} is empty", folder.display()))??;
    ensure!(entries.next().is_none(), "{} has several entries", folder.display());
    entry.file_name().into_string().ok().context("a name is not text")
}

fn call(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, log.trim());
    Ok(())
}
