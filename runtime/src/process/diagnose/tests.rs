use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes an executable file and says what executing it fails with, and why.
    fn check(&self, content: impl AsRef<[u8]>, why: &str) {
        self.check_mode(content, 0o755, why);
    }

    fn check_mode(&self, content: impl AsRef<[u8]>, mode: u32, why: &str) {
        let path = self.path("program");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self.check_path("program", why);
    }

    /// The errno is the kernel's: the file is really executed.
    fn check_path(&self, name: &str, why: &str) {
        let path = self.path(name);
        let error = std::process::Command::new(&path).output().unwrap_err();
        let errno = sys::Error::new("execve", error.raw_os_error().unwrap());
        let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let text = diagnose(&c_path, &errno);
        let expected = format!("exec {}: {why}", path.display());
        assert_eq!(text, expected.replace("DIR", self.0.path().to_str().unwrap()));
    }
}

#[test]
fn scripts() {
    let dir = Dir::new();
    let missing =
        |name: &str| format!("no such file or directory: its interpreter {name:?} does not exist");
    dir.check("#!/no/such/shell -e\n", &missing("/no/such/shell"));
    dir.check("#! \t/no/such/shell\n", &missing("/no/such/shell"));
    dir.check("#!/no\x1bsuch\n", &missing("/no\x1bsuch"));
    dir.check(
        "#!/bin/sh\r\necho\r\n",
        "no such file or directory: its \"#!\" line ends in a carriage return (a file with CRLF \
         line ends), so the interpreter would be \"/bin/sh\\r\"",
    );
    dir.check("#!\n", "exec format error: its \"#!\" line names no interpreter");
    dir.check(
        "#!/tmp\n",
        "permission denied: its interpreter \"/tmp\" can't be executed: it is a directory",
    );
    fs::write(dir.path("plain"), "x").unwrap();
    dir.check(
        format!("#!{}\n", dir.path("plain").display()),
        "permission denied: its interpreter \"DIR/plain\" can't be executed: its mode is 0644",
    );
    dir.check(
        format!("#!{}\n", dir.path("program").display()),
        "too many levels of symbolic links: its interpreter \"DIR/program\" is a script, and so on",
    );
}

#[test]
fn unknown_formats() {
    let dir = Dir::new();
    dir.check("", "exec format error: the file is empty");
    dir.check(
        "echo hello\n",
        "exec format error: the file is neither an ELF program nor a script with a \"#!\" line",
    );
    dir.check("\x7fELF", "exec format error: its ELF header is damaged");
}

#[test]
fn permissions_and_kinds() {
    let dir = Dir::new();
    dir.check_mode(
        "#!/bin/sh\n",
        0o644,
        "permission denied: the file is not executable (mode 0644)",
    );
    fs::create_dir(dir.path("directory")).unwrap();
    dir.check_path("directory", "permission denied: is a directory");
    dir.check_path("gone", "no such file or directory: the file does not exist");
    symlink("gone", dir.path("dangling")).unwrap();
    dir.check_path("dangling", "no such file or directory: the file does not exist");
    symlink("circle", dir.path("circle")).unwrap();
    dir.check_path(
        "circle",
        "too many levels of symbolic links: a link in the path leads in a circle or into procfs",
    );
    let status = std::process::Command::new("mkfifo").arg(dir.path("pipe")).status().unwrap();
    assert!(status.success());
    dir.check_path("pipe", "permission denied: it is not a regular file");
}

/// A 64-bit or 32-bit ELF file with one program header, for a machine.
fn elf(machine: u16, is_64_bit: bool, kind: u16, interpreter: &str) -> Vec<u8> {
    let (header_bytes, entry_bytes) = if is_64_bit { (64_usize, 56_usize) } else { (52, 32) };
    let mut file = vec![0; header_bytes + entry_bytes];
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(is_64_bit), 1, 1]);
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let word = |value: usize| value.to_le_bytes()[..if is_64_bit { 8 } else { 4 }].to_vec();
    put(&mut file, 16, &kind.to_le_bytes());
    put(&mut file, 18, &machine.to_le_bytes());
    put(&mut file, 20, &1_u32.to_le_bytes());
    let (offset_at, sizes_at) = if is_64_bit { (32, 54) } else { (28, 42) };
    put(&mut file, offset_at, &word(header_bytes));
    put(&mut file, sizes_at, &(entry_bytes as u16).to_le_bytes());
    put(&mut file, sizes_at + 2, &1_u16.to_le_bytes());
    put(&mut file, header_bytes, &3_u32.to_le_bytes());
    let (offset_at, size_at) = if is_64_bit { (8, 32) } else { (4, 16) };
    put(&mut file, header_bytes + offset_at, &word(header_bytes + entry_bytes));
    put(&mut file, header_bytes + size_at, &word(interpreter.len() + 1));
    file.extend_from_slice(interpreter.as_bytes());
    file.push(0);
    file
}

fn ours() -> u16 {
    let own = fs::read("/proc/self/exe").unwrap();
    u16::from_le_bytes([own[18], own[19]])
}

#[test]
fn programs() {
    let dir = Dir::new();
    let foreign = |machine: u16, name: &str| {
        dir.check(
            elf(machine, true, 2, "/lib/ld.so"),
            &format!(
                "exec format error: the file is built for {name}, but this machine is {}",
                std::env::consts::ARCH
            ),
        );
    };
    for (machine, name) in [
        (183, "aarch64"),
        (62, "x86_64"),
        (243, "riscv64"),
        (22, "s390x"),
        (999, "machine number 999"),
    ] {
        if machine != ours() {
            foreign(machine, name);
        }
    }
    dir.check(
        elf(ours(), true, 1, ""),
        "exec format error: the file is an ELF object that is not a program",
    );
    dir.check(
        elf(ours(), true, 3, "/lib/ld-none.so.1"),
        "no such file or directory: its dynamic loader \"/lib/ld-none.so.1\" does not exist \
         (the program may be built for another C library than the container has)",
    );
    fs::write(dir.path("loader"), elf(999, true, 3, "")).unwrap();
    fs::set_permissions(dir.path("loader"), fs::Permissions::from_mode(0o755)).unwrap();
    let loader = dir.path("loader").display().to_string();
    dir.check(
        elf(ours(), true, 3, &loader),
        &format!(
            "accessing a corrupted shared library: its dynamic loader \"DIR/loader\" is built for \
             machine number 999, the program for {}",
            std::env::consts::ARCH
        ),
    );
    fs::write(dir.path("script"), format!("#!{loader}\n")).unwrap();
    fs::set_permissions(dir.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
    dir.check_path(
        "script",
        &format!(
            "exec format error: its interpreter \"DIR/loader\" can't be executed: the file is \
             built for machine number 999, but this machine is {}",
            std::env::consts::ARCH
        ),
    );
}

#[test]
fn a_hostile_header_is_read_within_bounds() {
    // Offsets and sizes at their largest, and files cut at each byte.
    let whole = elf(ours(), true, 3, "/lib/ld.so");
    for length in 0..whole.len() {
        let program = elf::Program::parse(&whole[..length]);
        if let Some(program) = program {
            let read = |offset: u64, wanted: usize| {
                let start = usize::try_from(offset).ok()?.min(length);
                Some(whole[start..length.min(start.checked_add(wanted)?)].to_vec())
            };
            let _ = program.interpreter(read);
        }
    }
    let mut wild = whole.clone();
    wild[32..40].fill(0xff);
    wild[54..58].fill(0xff);
    let path = Dir::new();
    let file = path.path("wild");
    fs::write(&file, &wild).unwrap();
    let c_path = CString::new(file.as_os_str().as_bytes()).unwrap();
    let errno = sys::Error::new("execve", libc::ENOEXEC);
    assert_eq!(diagnose(&c_path, &errno), format!("exec {}: exec format error", file.display()));
}

#[test]
fn the_kernels_words_alone_where_there_is_no_more_to_say() {
    for (errno, text) in [
        (
            libc::E2BIG,
            "exec /bin/sh: argument list too long: arguments and environment are too large",
        ),
        (libc::ETXTBSY, "exec /bin/sh: text file busy: the file is open for writing"),
        (libc::ENOMEM, "exec /bin/sh: cannot allocate memory"),
        (libc::EACCES, "exec /bin/sh: permission denied"),
    ] {
        assert_eq!(diagnose(c"/bin/sh", &sys::Error::new("execve", errno)), text);
    }
    let odd = diagnose(c"/a\nb\x1b", &sys::Error::new("execve", libc::ENOENT));
    assert_eq!(odd, r"exec /a\nb\u{1b}: no such file or directory: the file does not exist");
}
