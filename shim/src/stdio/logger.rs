//! A program of the operator's that reads a container's output (`binary://`).
//!
//! It gets the streams as descriptors 3 and 4, and 5, which it closes when it is ready;
//! `CONTAINER_ID` and `CONTAINER_NAMESPACE` in its environment; and the URI's query as words.

use std::{
    ffi::{CString, OsString},
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::Path,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys::{
    fd, path, process,
    spawn::{self, Child, Program},
};

use super::Owner;
use crate::reactor::{self, Expected, Source};

/// How long the program has to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long it has to end once the streams have ended, before it is told to.
const END_LIMIT: Duration = Duration::from_millis(500);

/// How long it has after `SIGTERM`.
const TERM_LIMIT: Duration = Duration::from_secs(12);

/// A running logger.
pub(super) struct Logger {
    child: Child,
    expected: Rc<Expected>,
}

/// A logger that is ready, and the ends to write to.
pub(super) struct Started {
    pub(super) logger: Logger,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Logger {
    /// `uri` is what follows the scheme. With `strict`, the program must write a byte before it
    /// closes descriptor 5.
    ///
    /// # Errors
    /// It does not start, or does not become ready.
    pub(super) async fn start(uri: &str, strict: bool, owner: &Owner<'_>) -> Result<Started> {
        let (file, words) = parse(uri)?;
        let (stdout_reader, stdout) = fd::pipe()?;
        let (stderr_reader, stderr) = fd::pipe()?;
        let (ready, ready_writer) = fd::pipe()?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let mut args = vec![path::c_path(&file)?];
        args.extend(words);
        let env = [("CONTAINER_ID", owner.id), ("CONTAINER_NAMESPACE", owner.namespace)];
        let env = env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
        let expected = reactor::expect_children();
        let child = spawn::spawn(Program {
            path: &path::c_path(&file)?,
            args,
            env: env.collect::<Result<_, _>>()?,
            fds: &[
                null.as_fd(),
                null.as_fd(),
                null.as_fd(),
                stdout_reader.as_fd(),
                stderr_reader.as_fd(),
                ready_writer.as_fd(),
            ],
            death_signal: None,
        })
        .context("failed to start binary process")?;
        drop(ready_writer);
        let logger = Self { child, expected };
        fd::set_nonblocking(&ready, true)?;
        let ready = Source::new(ready);
        let mut byte = [0];
        let n = match reactor::within(READY_LIMIT, ready.read(&mut byte)).await {
            Some(n) => n?,
            None => {
                logger.end().await;
                bail!("logging binary was not ready in {READY_LIMIT:?}");
            }
        };
        if strict && n == 0 {
            logger.end().await;
            bail!("logging binary did not call ready (it may have crashed or exited prematurely)");
        }
        Ok(Started { logger, stdout, stderr })
    }

    /// Lets it read to the end of the streams, then ends it.
    pub(super) async fn end(self) {
        let mut ended = std::pin::pin!(reactor::wait_for(&self.expected, self.child.pid));
        for (limit, signal) in [(END_LIMIT, libc::SIGTERM), (TERM_LIMIT, libc::SIGKILL)] {
            if reactor::within(limit, ended.as_mut()).await.is_some() {
                return;
            }
            // It can end by itself at any moment.
            let _ = process::send_signal(&self.child.pidfd, signal);
        }
        ended.await;
    }
}

/// The program's path, and its words: each key of the query and its value.
fn parse(uri: &str) -> Result<(OsString, Vec<CString>)> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    if !Path::new(path).is_absolute() {
        bail!("the logging binary's path {path:?} is not absolute");
    }
    let mut words = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        words.push(CString::new(decode(key, true)?)?);
        let value = decode(value, true)?;
        if !value.is_empty() {
            words.push(CString::new(value)?);
        }
    }
    Ok((OsString::from_vec(decode(path, false)?), words))
}

/// Percent-decoding (RFC 3986); in a query, `+` is a space.
fn decode(text: &str, query: bool) -> Result<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|d| char::from(d.unwrap_or(b' ')));
                let [high, low] = digits.map(|digit| digit.to_digit(16));
                match (high, low) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low)?,
                    _ => bail!("{text:?} is not percent-encoded as a URI must be"),
                }
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_a_program_and_its_words() {
        let (path, words) = parse("/opt/my%20logger?driver=json&x=a+b%2Fc&flag").unwrap();
        assert_eq!(path, "/opt/my logger");
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, ["driver", "json", "x", "a b/c", "flag"]);
        assert!(parse("/l").unwrap().1.is_empty());
        for bad in ["relative", "", "/l?a=%zz", "/l?a=%4", "/l?a=%00"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
