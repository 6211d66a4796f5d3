//! Why an exec failed, named: the kernel gives one errno for many causes.
//!
//! Runs after the fact, in the container's root and as its user, so it may allocate and take
//! its time, but reads only a bounded part of files that the container wrote. What it may
//! not read it does not guess about.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

use hull_runtime_sys::{self as sys, path::Links};

mod elf;

/// As much of a file as the kernel looks at for `#!`, and more than enough for an ELF header.
const HEADER_BYTES: usize = 4096;

/// As much of the first line as the kernel considers (`BINPRM_BUF_SIZE`).
const SHEBANG_BYTES: usize = 256;

/// The text for a failed execve(2) of `path`: `exec PATH: ERRNO'S WORDS: CAUSE`.
pub(crate) fn diagnose(path: &CStr, error: &sys::Error) -> String {
    let words = error.reason();
    let shown = escaped(path.to_bytes());
    match reason(path, error) {
        Some(reason) => format!("exec {shown}: {words}: {reason}"),
        None => format!("exec {shown}: {words}"),
    }
}

/// The cause alone, if there is more to say than the errno does.
pub(super) fn reason(path: &CStr, error: &sys::Error) -> Option<String> {
    let errno = error.errno();
    match errno {
        libc::E2BIG => return Some("arguments and environment are too large".to_owned()),
        libc::ETXTBSY => return Some("the file is open for writing".to_owned()),
        _ => {}
    }
    let file = match open(path) {
        Ok(file) => file,
        Err(error) => return unopened(path, errno, &error),
    };
    match errno {
        libc::EACCES | libc::EPERM => refused(path, &file, errno),
        libc::ENOENT | libc::ENOEXEC | libc::ELIBBAD | libc::EINVAL | libc::ELOOP => {
            unsuitable(path, errno)
        }
        _ => None,
    }
}

/// Opens only the name: for what may not be read, and what must not be (a device, a pipe).
fn open(path: &CStr) -> sys::Result<File> {
    open_with(path, libc::O_PATH)
}

fn open_with(path: &CStr, flags: i32) -> sys::Result<File> {
    let root = sys::fd::openat(sys::fd::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let mut absolute = Vec::new();
    if !path.to_bytes().starts_with(b"/") {
        absolute = sys::process::current_directory()?;
        absolute.push(b'/');
    }
    absolute.extend_from_slice(path.to_bytes());
    let path = OsStr::from_bytes(&absolute);
    sys::path::open_in_root(root, path, flags, 0, Links::Follow).map(File::from)
}

fn is_regular(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

fn is_on_noexec_mount(file: &File) -> bool {
    sys::path::file_system(file).is_ok_and(|fs| fs.flags & libc::ST_NOEXEC != 0)
}

/// Why the file itself could not be found.
fn unopened(path: &CStr, errno: i32, error: &sys::Error) -> Option<String> {
    match error.errno() {
        libc::ENOENT if errno == libc::ENOENT => Some("the file does not exist".to_owned()),
        libc::EACCES => {
            let parent = first_unsearchable(path)?;
            Some(format!("the user may not search the directory {}", escaped(&parent)))
        }
        libc::ELOOP => Some("a link in the path leads in a circle or into procfs".to_owned()),
        _ => None,
    }
}

fn first_unsearchable(path: &CStr) -> Option<Vec<u8>> {
    let bytes = path.to_bytes();
    let ends = (1..bytes.len()).filter(|end| bytes[*end] == b'/');
    for end in ends {
        // Looking for `.` in a directory takes the permission to search it.
        let inside = [&bytes[..end], b"/."].concat();
        match open(&CString::new(inside).ok()?) {
            Err(error) if error.errno() == libc::EACCES => return Some(bytes[..end].to_vec()),
            _ => {}
        }
    }
    None
}

/// Why a file that is there may not be executed.
fn refused(path: &CStr, file: &File, errno: i32) -> Option<String> {
    let stat = sys::path::stat(file).ok()?;
    if sys::path::is_directory(&stat) {
        return Some("is a directory".to_owned());
    }
    if !is_regular(&stat) {
        return Some("it is not a regular file".to_owned());
    }
    if is_on_noexec_mount(file) {
        return Some("the file is on a mount with the option noexec".to_owned());
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o111 == 0 {
        return Some(format!("the file is not executable (mode {mode:04o})"));
    }
    if sys::process::may_execute(path).is_err() {
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        return Some(format!(
            "the user may not execute the file (mode {mode:04o}, owner {uid}, group {gid})"
        ));
    }
    if errno == libc::EACCES {
        let (what, interpreter) = interpreter(&read_header(path)?)?;
        let interpreter = CString::new(interpreter).ok()?;
        let why = preflight_reason(&interpreter)?;
        return Some(format!("its {what} {} can't be executed: {why}", quoted(&interpreter)));
    }
    None
}

fn preflight_reason(interpreter: &CStr) -> Option<String> {
    let file = open(interpreter).ok()?;
    let stat = sys::path::stat(&file).ok()?;
    if sys::path::is_directory(&stat) {
        return Some("it is a directory".to_owned());
    }
    if is_on_noexec_mount(&file) {
        return Some("it is on a mount with the option noexec".to_owned());
    }
    sys::process::may_execute(interpreter).err()?;
    Some(format!("its mode is {:04o}", stat.st_mode & 0o7777))
}

/// Why a file that may be executed is nothing the kernel could execute.
fn unsuitable(path: &CStr, errno: i32) -> Option<String> {
    let header = read_header(path)?;
    if header.bytes.is_empty() {
        return (errno == libc::ENOEXEC).then(|| "the file is empty".to_owned());
    }
    if header.bytes.starts_with(b"#!") {
        return shebang_problem(&header.bytes, errno);
    }
    if header.bytes.starts_with(elf::MAGIC) {
        return elf_problem(&header, errno);
    }
    (errno == libc::ENOEXEC)
        .then(|| "the file is neither an ELF program nor a script with a \"#!\" line".to_owned())
}

/// The start of a regular file, and the file for more.
struct Header {
    file: File,
    bytes: Vec<u8>,
}

fn read_header(path: &CStr) -> Option<Header> {
    if !is_regular(&sys::path::stat(open(path).ok()?).ok()?) {
        return None;
    }
    let file = open_with(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY).ok()?;
    let bytes = read_at(&file, 0, HEADER_BYTES)?;
    Some(Header { file, bytes })
}

fn read_at(file: &File, offset: u64, wanted: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; wanted.min(HEADER_BYTES)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset.checked_add(filled as u64)?) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(filled);
    Some(bytes)
}

/// What the kernel would execute in the file's stead, and what that is called.
fn interpreter(header: &Header) -> Option<(&'static str, Vec<u8>)> {
    if header.bytes.starts_with(b"#!") {
        return Some(("interpreter", shebang(&header.bytes)?.to_vec()));
    }
    let loader = elf::Program::parse(&header.bytes)?
        .interpreter(|offset, length| read_at(&header.file, offset, length))?;
    Some(("dynamic loader", loader))
}

/// The interpreter of a `#!` line, as the kernel splits it off.
fn shebang(bytes: &[u8]) -> Option<&[u8]> {
    let line = &bytes[2..bytes.len().min(SHEBANG_BYTES)];
    let line = line.split(|byte| *byte == b'\n').next()?;
    line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty())
}

fn shebang_problem(bytes: &[u8], errno: i32) -> Option<String> {
    let Some(interpreter) = shebang(bytes) else {
        return Some("its \"#!\" line names no interpreter".to_owned());
    };
    let shown = quoted_bytes(interpreter);
    if interpreter.ends_with(b"\r") {
        return Some(format!(
            "its \"#!\" line ends in a carriage return (a file with CRLF line ends), \
             so the interpreter would be {shown}"
        ));
    }
    if !bytes[..bytes.len().min(SHEBANG_BYTES)].contains(&b'\n') && bytes.len() > SHEBANG_BYTES {
        return Some(format!("its \"#!\" line is longer than {SHEBANG_BYTES} bytes"));
    }
    let path = CString::new(interpreter).ok()?;
    match (errno, open(&path)) {
        (libc::ELOOP, Ok(_)) => Some(format!("its interpreter {shown} is a script, and so on")),
        (_, Err(error)) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR) => {
            Some(format!("its interpreter {shown} does not exist"))
        }
        (_, Err(error)) => {
            Some(format!("its interpreter {shown} can't be opened: {}", error.reason()))
        }
        (libc::ENOEXEC | libc::ENOENT | libc::ELIBBAD, Ok(_)) => {
            // The interpreter has an interpreter of its own, or is for another machine.
            let header = read_header(&path)?;
            let why = match header.bytes.starts_with(elf::MAGIC) {
                true => elf_problem(&header, errno)?,
                false if header.bytes.is_empty() => "the file is empty".to_owned(),
                false => return None,
            };
            Some(format!("its interpreter {shown} can't be executed: {why}"))
        }
        _ => None,
    }
}

fn elf_problem(header: &Header, errno: i32) -> Option<String> {
    let Some(program) = elf::Program::parse(&header.bytes) else {
        return (errno == libc::ENOEXEC).then(|| "its ELF header is damaged".to_owned());
    };
    if !program.is_ours() {
        return Some(format!(
            "the file is built for {}, but this machine is {}",
            program.machine(),
            elf::our_machine()
        ));
    }
    if !program.is_executable() {
        return Some("the file is an ELF object that is not a program".to_owned());
    }
    let loader = program.interpreter(|offset, length| read_at(&header.file, offset, length))?;
    let path = CString::new(loader.as_slice()).ok()?;
    let shown = quoted_bytes(&loader);
    match open(&path) {
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR) => Some(format!(
            "its dynamic loader {shown} does not exist \
             (the program may be built for another C library than the container has)"
        )),
        Err(error) => {
            Some(format!("its dynamic loader {shown} can't be opened: {}", error.reason()))
        }
        Ok(_) => {
            let header = read_header(&path)?;
            match elf::Program::parse(&header.bytes) {
                Some(loader) if !loader.same_machine(&program) => Some(format!(
                    "its dynamic loader {shown} is built for {}, the program for {}",
                    loader.machine(),
                    program.machine()
                )),
                Some(_) => None,
                None => Some(format!("its dynamic loader {shown} is not an ELF file")),
            }
        }
    }
}

fn quoted(path: &CStr) -> String {
    quoted_bytes(path.to_bytes())
}

/// In quotes, with control characters escaped: the container wrote it.
fn quoted_bytes(bytes: &[u8]) -> String {
    format!("{:?}", Path::new(OsStr::from_bytes(bytes)))
}

fn escaped(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests;
