//! The command line, in the form of Go's flag package: `-id X`, `--id=X`, `-debug`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use hull_specs_oci::ContainerId;

/// What containerd says on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// containerd's gRPC socket; part of the name of the shim's own.
    pub(crate) address: String,
    /// Empty: the working directory.
    pub(crate) bundle: PathBuf,
    /// Log each request.
    pub(crate) debug: bool,
    /// What `compress` is to compress.
    pub(crate) file: PathBuf,
    pub(crate) action: Action,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a shim, and say where it can be reached.
    Start,
    /// Clean up after a shim that is dead.
    Delete,
    /// Compress a file of a log; the shim's own child.
    Compress,
    /// Print the version for people.
    Version,
    /// Print what the shim and its runtime can do, for programs.
    Info,
    /// Print how it is used.
    #[default]
    Help,
}

impl Args {
    /// # Errors
    /// An unknown flag, a missing value, an action that is not known.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut args = Self::default();
        let mut flag = None;
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            let Some(name) = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")) else {
                args.action = match bytes {
                    b"start" => Action::Start,
                    b"delete" => Action::Delete,
                    b"compress" => {
                        args.file = words.next().context("compress needs a file")?.into();
                        Action::Compress
                    }
                    _ => bail!("unknown action {word:?}: start and delete are known"),
                };
                if let Some(word) = words.next() {
                    bail!("unexpected argument {word:?}");
                }
                break;
            };
            let (name, value) = match name.iter().position(|byte| *byte == b'=') {
                Some(at) => (&name[..at], Some(OsStr::from_bytes(&name[at + 1..]).to_owned())),
                None => (name, None),
            };
            let mut value = || {
                value.clone().or_else(|| words.next()).with_context(|| {
                    format!("flag needs an argument: -{}", String::from_utf8_lossy(name))
                })
            };
            let mut text = || -> Result<String> {
                let value = value()?;
                value.into_string().map_err(|value| anyhow::anyhow!("{value:?} is not UTF-8"))
            };
            match name {
                b"namespace" => args.namespace = text()?,
                b"id" => args.id = text()?,
                b"address" => args.address = text()?,
                // Events go by the ttrpc address of the environment.
                b"publish-binary" => drop(text()?),
                b"bundle" => args.bundle = value()?.into(),
                b"debug" => args.debug = true,
                b"v" | b"version" => flag = Some(Action::Version),
                b"info" => flag = Some(Action::Info),
                b"h" | b"help" => flag = Some(Action::Help),
                _ => bail!("flag provided but not defined: {word:?}"),
            }
        }
        if let Some(action) = flag {
            args.action = action;
        }
        if matches!(args.action, Action::Start | Action::Delete) {
            if args.namespace.is_empty() {
                bail!("shim namespace cannot be empty");
            }
            // Both become parts of file names.
            args.namespace.parse::<ContainerId>().context("the namespace")?;
            args.id.parse::<ContainerId>().context("the id")?;
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn containerds_command_lines_are_understood() {
        let start =
            parse("-namespace n -address /a -publish-binary /c -id i -debug start").unwrap();
        let expected = Args {
            namespace: "n".into(),
            id: "i".into(),
            address: "/a".into(),
            debug: true,
            action: Action::Start,
            ..Args::default()
        };
        assert_eq!(start, expected);
        let delete = parse("--namespace=n -address= -id i -bundle /b delete").unwrap();
        assert_eq!((delete.bundle, delete.action), ("/b".into(), Action::Delete));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("").unwrap().action, Action::Help);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, text) in [
            ("-namespace n -id i stop", "unknown action \"stop\""),
            ("-namespace n -id i start now", "unexpected argument \"now\""),
            ("-id", "flag needs an argument: -id"),
            ("-nonsense", "flag provided but not defined"),
            ("-id i start", "shim namespace cannot be empty"),
            ("-namespace n start", "the id"),
            ("-namespace n -id ../x start", "the id"),
            ("-namespace a/b -id x delete", "the namespace"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(text), "{line}: {error}");
        }
    }
}
