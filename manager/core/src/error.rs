//! What a caller is told when something could not be done.
//!
//! An error is a kind, for programs, one sentence, for a person, and the cause beneath it, for
//! the log and the rest of the sentence. Each protocol maps kinds in one place of its own.
//! Sentences that docker's users match on are docker's ("No such container: x").

use std::fmt;

/// What kind of failure it is, whatever the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// The request makes no sense, whatever the state.
    InvalidArgument,
    /// The request makes sense, but not now: in use, not running.
    FailedPrecondition,
    /// The caller may not: a registry refused the credentials.
    PermissionDenied,
    /// Somebody we need does not answer: a registry, a shim.
    Unavailable,
    /// We don't do that.
    Unimplemented,
    /// A limit was reached, or the disk is full.
    ResourceExhausted,
    /// The caller went away.
    Cancelled,
    /// Took longer than allowed.
    DeadlineExceeded,
    /// Content is not what its digest says.
    DataLoss,
    /// Anything else: our fault, or the host's.
    Internal,
}

/// A failure.
pub struct Error {
    kind: ErrorKind,
    message: String,
    cause: Option<anyhow::Error>,
}

/// What the manager's operations give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        $(
            #[doc = concat!("A failure of kind [`ErrorKind::", stringify!($kind), "`].")]
            #[must_use]
            pub fn $name(message: impl fmt::Display) -> Self {
                Self::new(ErrorKind::$kind, message)
            }
        )*
    };
}

impl Error {
    /// A failure without a cause.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), cause: None }
    }

    constructors! {
        not_found => NotFound,
        already_exists => AlreadyExists,
        invalid => InvalidArgument,
        conflict => FailedPrecondition,
        denied => PermissionDenied,
        unavailable => Unavailable,
        unimplemented => Unimplemented,
        exhausted => ResourceExhausted,
        cancelled => Cancelled,
        timed_out => DeadlineExceeded,
        corrupt => DataLoss,
        internal => Internal,
    }

    /// The same failure, because of `cause`.
    #[must_use]
    pub fn because(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same failure of what is named: the sentence begins with it.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence without its causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    /// The whole sentence: what, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause:#}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

/// ENOSPC and EDQUOT: the same numbers on every machine of Linux that hull runs on.
const FULL: [i32; 2] = [28, 122];

/// A failure that nobody expected keeps its chain. A full disk is told apart, because the caller
/// can do something about it.
impl From<anyhow::Error> for Error {
    fn from(cause: anyhow::Error) -> Self {
        match cause.downcast::<Self>() {
            Ok(error) => error,
            Err(cause) => {
                let full = cause.chain().any(|error| {
                    let number = match error.downcast_ref::<hull_runtime_sys::Error>() {
                        Some(error) => Some(error.errno()),
                        None => error
                            .downcast_ref::<std::io::Error>()
                            .and_then(std::io::Error::raw_os_error),
                    };
                    number.is_some_and(|number| FULL.contains(&number))
                });
                let kind = if full { ErrorKind::ResourceExhausted } else { ErrorKind::Internal };
                Self::new(kind, format!("{cause:#}"))
            }
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(cause: rusqlite::Error) -> Self {
        // SQLITE_IOERR_SHMSIZE: of the index beside the log nothing else is said.
        let index = cause.sqlite_error().is_some_and(|error| error.extended_code == 4874);
        let full = index || cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        let kind = if full { ErrorKind::ResourceExhausted } else { ErrorKind::Internal };
        Self::new(kind, "the metadata store").because(cause)
    }
}

/// `std::io` errors are given what they are about.
pub trait IoContext<T> {
    /// The error, about `what`.
    ///
    /// # Errors
    /// If this is one: full disks are [`ErrorKind::ResourceExhausted`], all others
    /// [`ErrorKind::Internal`].
    fn about(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn about(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error::from(anyhow::Error::new(cause).context(what.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_sentence_has_its_causes_once() {
        let cause = anyhow::anyhow!("connection refused").context("localhost:5000");
        let error = Error::unavailable("pull a:1").because(cause);
        assert_eq!(error.to_string(), "pull a:1: localhost:5000: connection refused");
        assert_eq!(error.context("b").message(), "b: pull a:1");
    }

    #[test]
    fn an_error_keeps_its_kind_through_anyhow() {
        let through: Error = anyhow::Error::new(Error::not_found("x")).into();
        assert_eq!(through.kind(), ErrorKind::NotFound);
        let full = std::io::Error::from_raw_os_error(28);
        assert_eq!(
            Err::<(), _>(full).about("blob").unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
        let quota =
            anyhow::Error::new(hull_runtime_sys::Error::new("write", 122)).context("a copy");
        assert_eq!(Error::from(quota).kind(), ErrorKind::ResourceExhausted);
        let other: Error = Err::<(), _>(fmt::Error).context("y").unwrap_err().into();
        assert_eq!(
            (other.kind(), other.to_string().starts_with("y: ")),
            (ErrorKind::Internal, true)
        );
    }
}
