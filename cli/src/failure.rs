//! How commands fail: one sentence, and an exit code.

use std::{fmt, io};

use tonic::Status;

/// The daemon's or our own failure, as docker has it for `run`.
pub(crate) const FAILED: u8 = 125;
/// A template that is none, as docker has it for one document.
pub(crate) const BAD_TEMPLATE: u8 = 64;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A failure with an exit code of its own. An empty sentence was said already.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    /// Everything that could be said was said.
    pub(crate) fn quiet(code: u8) -> anyhow::Error {
        Self { code, message: String::new() }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The manager's words; or, with a cause, ours for a connection that there was not or that broke.
#[derive(Debug)]
pub(crate) struct Refused {
    status: Status,
    /// Ours, if the connection is the reason.
    code: u8,
}

impl Refused {
    pub(crate) fn is(&self, code: tonic::Code) -> bool {
        self.status.code() == code
    }

    /// What the manager says comes without a cause.
    fn is_of_connection(&self) -> bool {
        std::error::Error::source(&self.status).is_some()
    }

    /// Whether the manager has ended the call because it ends: hulld's words.
    fn is_of_its_end(&self) -> bool {
        self.is(tonic::Code::Unavailable) && self.status.message() == "the manager is stopping"
    }

    /// Whether nobody answered at all.
    fn is_unreachable(&self) -> bool {
        let mut cause = std::error::Error::source(&self.status);
        while let Some(error) = cause {
            if error.is::<tonic::transport::Error>() || error.is::<io::Error>() {
                return self.is(tonic::Code::Unavailable);
            }
            cause = error.source();
        }
        false
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.message()) {
            (code, "") => write!(f, "{code}"),
            (_, message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Refused {}

/// `status` as an error of ours.
pub(crate) fn refused(status: Status) -> anyhow::Error {
    Refused { status, code: 1 }.into()
}

/// Whether the manager did not answer, or no more.
pub(crate) fn is_unreachable(error: &anyhow::Error) -> bool {
    let gone = |refused: &Refused| refused.is_of_connection() || refused.is_of_its_end();
    error.downcast_ref::<Refused>().is_some_and(gone)
}

/// The same failure; that nobody answers, or no more, is told with the address.
pub(crate) fn reached(error: anyhow::Error, host: &str) -> anyhow::Error {
    let Some(refused) = error.downcast_ref::<Refused>().filter(|it| it.is_of_connection()) else {
        return error;
    };
    let message = if refused.is_unreachable() {
        let cause = root_cause(&refused.status);
        format!("Cannot connect to the hull manager at {host}. Is hulld running? ({cause})")
    } else {
        return ended(host, refused.code);
    };
    Failure { code: refused.code, message }.into()
}

/// That the manager has ended what was to go on.
pub(crate) fn ended(host: &str, code: u8) -> anyhow::Error {
    Failure { code, message: format!("the manager at {host} ended the connection") }.into()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whether the manager said that there is no such thing.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.is(tonic::Code::NotFound))
}

/// The same failure with the code that `run`, `create` and `exec` have for it: by its text, as
/// docker does.
pub(crate) fn of_start(mut error: anyhow::Error) -> anyhow::Error {
    if let Some(refused) = error.downcast_mut::<Refused>()
        && refused.is_of_connection()
    {
        refused.code = FAILED;
        return error;
    }
    if error.downcast_ref::<Failure>().is_some() || is_broken_pipe(&error) {
        return error;
    }
    let message = format!("{error:#}");
    let code = start_code(&message);
    Failure { code, message }.into()
}

fn start_code(message: &str) -> u8 {
    // Not every runtime writes them small.
    let message = message.to_lowercase();
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    // What the CLI itself could not open is not the container's program.
    if !has(&["exec"]) && !has(&["executable file not found"]) {
        return FAILED;
    }
    if has(&["executable file not found", "no such file or directory"]) {
        NOT_FOUND
    } else if has(&["permission denied", "is a directory", "exec format error"]) {
        NOT_EXECUTABLE
    } else {
        FAILED
    }
}

/// Whether whom we write to has gone: not worth a word.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_broke_is_told_with_the_address() {
        let broken = |code| {
            let io = io::Error::from(io::ErrorKind::ConnectionReset);
            let mut status = Status::new(code, "h2 protocol error: error reading a body");
            status.set_source(std::sync::Arc::new(io));
            refused(status)
        };
        let told = |error: anyhow::Error| {
            let error = reached(error, "unix:///s");
            let code = error.downcast_ref::<Failure>().map(|failure| failure.code);
            (error.to_string(), code)
        };
        let ended = || "the manager at unix:///s ended the connection".to_owned();
        assert_eq!(told(broken(tonic::Code::Unknown)), (ended(), Some(1)));
        assert_eq!(told(of_start(broken(tonic::Code::Internal))), (ended(), Some(FAILED)));
        let (message, code) = told(of_start(broken(tonic::Code::Unavailable)));
        assert!(message.starts_with("Cannot connect to the hull manager at unix:///s."));
        assert_eq!(code, Some(FAILED));
        let stopping = || refused(Status::unavailable("the manager is stopping"));
        assert!(is_unreachable(&stopping()) && !is_unreachable(&refused(Status::unavailable("x"))));
        assert_eq!(told(of_start(stopping())).1, Some(FAILED));
        let words = told(refused(Status::internal("the words of the manager")));
        assert_eq!(words, ("the words of the manager".to_owned(), None));
    }

    #[test]
    fn exit_codes_follow_from_the_text_as_dockers_do() {
        for (message, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec /x: no such file or directory", 127),
            ("executable file `x` not found in $PATH: No such file or directory", 127),
            ("exec: \"/etc\": permission denied", 126),
            ("exec: \"/etc\": is a directory", 126),
            ("exec /x: exec format error", 126),
            ("No such image: x:latest", 125),
            ("open /x: no such file or directory", 125),
        ] {
            assert_eq!(start_code(message), code, "{message}");
        }
    }
}
