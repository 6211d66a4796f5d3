use std::{fmt, io, os::fd::FromRawFd, os::fd::OwnedFd};

/// A system call that failed: its name, what it was applied to, and the errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    call: &'static str,
    subject: Option<Box<str>>,
    errno: i32,
}

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `call` with a known errno.
    #[must_use]
    pub fn new(call: &'static str, errno: i32) -> Self {
        Self { call, subject: None, errno }
    }

    /// The calling thread's errno, as an error of `call`.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        Self::new(call, io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// Names what the call was applied to: a path, an id.
    #[must_use]
    pub fn on(mut self, subject: impl fmt::Display) -> Self {
        self.subject = Some(subject.to_string().into_boxed_str());
        self
    }

    /// The errno.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The kernel's reason alone, in lower case: `no such file or directory`.
    #[must_use]
    pub fn reason(&self) -> String {
        let text = io::Error::from_raw_os_error(self.errno).to_string();
        let text = text.split(" (os error").next().unwrap_or("unknown error");
        let mut letters = text.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        first.into_iter().chain(letters).collect()
    }

    /// The system call's name.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.call
    }
}

impl fmt::Display for Error {
    /// `openat2 /etc/passwd: no such file or directory`. The kernel's words are in lower
    /// case because callers of OCI runtimes match on them that way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call)?;
        if let Some(subject) = &self.subject {
            write!(f, " {subject}")?;
        }
        write!(f, ": {}", self.reason())
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::from_raw_os_error(error.errno)
    }
}

/// Runs a call until it ends with something other than `EINTR`; -1 becomes an error.
pub(crate) fn retry(call: &'static str, mut f: impl FnMut() -> libc::c_long) -> Result<i64> {
    loop {
        match check(call, f()) {
            Err(error) if error.errno == libc::EINTR => {}
            result => return result,
        }
    }
}

/// Turns -1 into an error of `call`.
pub(crate) fn check(call: &'static str, result: libc::c_long) -> Result<i64> {
    if result == -1 { Err(Error::last(call)) } else { Ok(result) }
}

/// Turns -1 into an error of `call`, anything else into an owned descriptor.
pub(crate) fn check_fd(call: &'static str, result: libc::c_long) -> Result<OwnedFd> {
    let fd = check(call, result)?;
    let fd = i32::try_from(fd).map_err(|_| Error::new(call, libc::EBADF))?;
    // SAFETY: the kernel has just returned this descriptor to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_callers_of_runc_match_on() {
        let error = Error::new("openat2", libc::ENOENT).on("/x");
        assert_eq!(error.to_string(), "openat2 /x: no such file or directory");
        assert_eq!(Error::new("setns", libc::EPERM).to_string(), "setns: operation not permitted");
    }
}
