//! The initramfs: a small loader, the kernel's modules, and the payload that
//! becomes part of the machine's root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::debian::Kernel;

const INIT: &str = include_str!("../../../vm/init");
const START: &str = include_str!("../../../vm/start");
const RUN: &str = include_str!("../../../vm/run");
const PROFILE: &str = include_str!("../../../vm/hull-vm.apparmor");
const SERVICE: &str = include_str!("../../../vm/hull-vm.service");

/// Loaded by the machine's scripts; what they depend on comes along.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "overlay", "veth", "bridge", "br_netfilter", "dummy"];

/// The tree that is packed, growing.
pub(crate) struct Payload {
    /// The initramfs; the payload proper is in its folder `payload`.
    tree: PathBuf,
    packed: PathBuf,
}

impl Payload {
    pub(crate) fn new(folder: &Path) -> Result<Payload> {
        let payload = Payload { tree: folder.join("tree"), packed: folder.join("initramfs") };
        for name in ["bin", "sbin", "etc", "tmp", "payload/bin", "payload/sbin"] {
            fs::create_dir_all(payload.tree.join(name)).context("make the tree")?;
        }
        let busybox = find_program("busybox").context("busybox-static is not installed")?;
        fs::copy(busybox, payload.tree.join("bin/busybox")).context("copy busybox")?;
        payload.write("init", INIT, 0o755)?;
        payload.write("payload/vm/start", START, 0o755)?;
        payload.write("payload/vm/run", RUN, 0o755)?;
        payload.write("payload/vm/hull-vm.apparmor", PROFILE, 0o644)?;
        // The parser complains where it has no settings.
        payload.write("payload/etc/apparmor/parser.conf", "", 0o644)?;
        // Tests bind them into containers.
        payload.write("payload/etc/hosts", "127.0.0.1 localhost\n", 0o644)?;
        payload.write("payload/etc/hostname", "hull-vm\n", 0o644)?;
        Ok(payload)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.tree.join(name);
        make_parent(&path)?;
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("set a mode")?;
        Ok(())
    }

    /// The loader's two questions: where is the root, what is its process 1.
    pub(crate) fn plan_boot(&self, root: &str, start: &str) -> Result<()> {
        self.write("boot-plan", &format!("{root} {start}\n"), 0o644)
    }

    /// The accounts that tests look up, where no Debian brings its own.
    pub(crate) fn add_accounts(&self) -> Result<()> {
        self.write("payload/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
        self.write("payload/etc/group", "root:x:0:\ntty:x:5:\n", 0o644)
    }

    pub(crate) fn add_service(&self) -> Result<()> {
        // Or systemd would empty /tmp, and with it programs that came from there.
        self.write("payload/etc/tmpfiles.d/tmp.conf", "", 0o644)?;
        self.write("payload/etc/systemd/system/hull-vm.service", SERVICE, 0o644)
    }

    /// The command, as the shell script that `vm/run` reads.
    pub(crate) fn add_command(
        &self,
        command: &[String],
        environment: &[(String, String)],
    ) -> Result<()> {
        let mut script = String::from("cd /tmp\nexport HOME=/root\n");
        for (name, value) in environment {
            script.push_str(&format!("export {name}={}\n", quoted(value)));
        }
        let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        script.push_str(&words.join(" "));
        script.push('\n');
        self.write("payload/vm/command", &script, 0o644)
    }

    /// A program of the host with the libraries that it is linked with.
    pub(crate) fn add_program(&mut self, program: &Path) -> Result<()> {
        let name = program.to_str().context("a program's path is not text")?;
        self.add_as(program, name)
    }

    /// A program of the host under another name.
    pub(crate) fn add_as(&mut self, program: &Path, name: &str) -> Result<()> {
        self.copy(program, name)?;
        let output = Command::new("ldd").arg(program).output().context("run ldd")?;
        // A static program, or a script, has no libraries to list.
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            self.copy(Path::new(&library), &library)?;
        }
        Ok(())
    }

    fn copy(&self, file: &Path, name: &str) -> Result<()> {
        let relative = merged(name);
        let target = self.tree.join("payload").join(relative.trim_start_matches('/'));
        make_parent(&target)?;
        fs::copy(file, &target)
            .with_context(|| format!("copy {} into the machine", file.display()))?;
        Ok(())
    }

    /// The modules in `MODULES` and all that they depend on.
    pub(crate) fn add_modules(&self, kernel: &Kernel) -> Result<()> {
        let dependencies = kernel.modules.join("modules.dep");
        let text = fs::read_to_string(&dependencies).context("read modules.dep")?;
        let folder = self.tree.join("lib/modules").join(&kernel.release);
        for file in module_closure(&text, MODULES)? {
            let target = folder.join(&file);
            make_parent(&target)?;
            fs::copy(kernel.modules.join(&file), &target)
                .with_context(|| format!("copy module {file}"))?;
        }
        for name in ["modules.order", "modules.builtin", "modules.dep"] {
            fs::copy(kernel.modules.join(name), folder.join(name)).context("copy module lists")?;
        }
        Ok(())
    }

    pub(crate) fn pack(self) -> Result<PathBuf> {
        self.merge_usr()?;
        let target = fs::File::create(&self.packed).context("create the initramfs")?;
        let mut list = Command::new("find")
            .args([".", "-print0"])
            .current_dir(&self.tree)
            .stdout(Stdio::piped())
            .spawn()
            .context("run find")?;
        let names = list.stdout.take().context("read the names")?;
        let status = Command::new("cpio")
            .args(["--null", "--create", "--format=newc", "--owner=0:0", "--quiet"])
            .current_dir(&self.tree)
            .stdin(names)
            .stdout(target)
            .status()
            .context("run cpio")?;
        ensure!(status.success() && list.wait()?.success(), "cpio failed to pack the initramfs");
        Ok(self.packed)
    }

    /// Debian's root has `/lib` in `/usr/lib`, and so on; a payload that is laid
    /// over it must not put folders in place of those links, and the programs'
    /// interpreter must be found without Debian too.
    fn merge_usr(&self) -> Result<()> {
        for name in ["bin", "sbin", "lib", "lib64"] {
            let link = self.tree.join("payload").join(name);
            if link.is_dir() {
                fs::remove_dir(&link).with_context(|| format!("{name} has files"))?;
            }
            fs::create_dir_all(self.tree.join("payload/usr").join(name))?;
            symlink(format!("usr/{name}"), &link).context("link into /usr")?;
        }
        Ok(())
    }
}

/// `/lib/x` as `/usr/lib/x`, where Debian keeps it.
fn merged(path: &str) -> String {
    let top = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if ["bin", "sbin", "lib", "lib64"].contains(&top) { format!("/usr{path}") } else { path.into() }
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a path without a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))
}

/// A word as the shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The absolute paths in the output of ldd.
fn libraries(text: &str) -> Vec<String> {
    let words = text.lines().flat_map(|line| line.split_whitespace());
    words
        .filter(|word| word.starts_with('/'))
        .map(|word| word.trim_end_matches(':').into())
        .collect()
}

/// The files of `names` and of everything that they need, in modules.dep's words.
fn module_closure(dependencies: &str, names: &[&str]) -> Result<BTreeSet<String>> {
    let mut wanted = BTreeSet::new();
    for name in names {
        let line = dependencies.lines().find(|line| {
            let file = line.split(':').next().unwrap_or_default();
            file.rsplit('/').next().is_some_and(|file| file.split('.').next() == Some(name))
        });
        let Some(line) = line else { bail!("the kernel has no module {name}") };
        wanted.extend(line.split([':', ' ']).filter(|file| !file.is_empty()).map(String::from));
    }
    Ok(wanted)
}

/// The absolute path of a program, which may be a name to look up.
pub(crate) fn find_program(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return std::path::absolute(name)
            .ok()
            .filter(|path| path.is_file())
            .with_context(|| format!("{name} is no file"));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let mut candidates = folders.map(|folder| Path::new(folder).join(name));
    candidates.find(|path| path.is_file()).with_context(|| format!("{name} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::{libraries, merged, module_closure, quoted};

    #[test]
    fn quoted_words_survive_the_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn libraries_are_every_path_that_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/a/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(libraries(text), ["/lib/a/libc.so.6", "/lib64/ld.so.2"]);
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn top_folders_move_to_usr_only_where_debian_merged_them() {
        assert_eq!(merged("/lib64/ld.so.2"), "/usr/lib64/ld.so.2");
        assert_eq!(merged("/library/x"), "/library/x");
    }

    #[test]
    fn a_module_brings_its_dependencies_along() {
        let text =
            "kernel/net/llc.ko:\nkernel/net/bridge.ko: kernel/net/stp.ko kernel/net/llc.ko\n";
        let files = module_closure(text, &["bridge"]).unwrap();
        assert_eq!(files.len(), 3);
        assert!(module_closure(text, &["nothing"]).is_err());
    }
}
