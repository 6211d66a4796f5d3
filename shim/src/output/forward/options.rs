//! The part of a `hull-log:` URI that says where lines go on to; [`super::super::options`] has
//! the table.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{
    super::{
        entry::{Form, Format},
        options::{add_pair, file_path, parse_size, put},
    },
    journald,
    syslog::{Style, Syslog, rest},
};

/// The most bytes of all of journald's fields together; they are in every message.
const FIELD_BYTES: usize = 64 * 1024;

/// What waits at most with `mode=non-blocking`, unless told otherwise: dockerd's 1 MB.
const BUFFER_BYTES: usize = 1_000_000;

/// Where a receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// The host's syslog, wherever it is.
    Local,
    Unixgram(PathBuf),
    Unix(PathBuf),
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Journal(PathBuf),
}

/// Where lines go on to, and in which form.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(super) address: Address,
    pub(super) form: Form,
    /// How many bytes may wait, if the container does not.
    pub(super) buffer_bytes: Option<usize>,
}

/// What was read of a URI.
#[derive(Default)]
pub(crate) struct Given {
    address: Option<Address>,
    facility: Option<u8>,
    style: Option<Style>,
    tag: Option<String>,
    fields: Vec<(String, String)>,
    non_blocking: Option<bool>,
    buffer: Option<u64>,
}

impl Given {
    /// Takes an option. False if there was one already; none for another's option.
    pub(crate) fn take(&mut self, key: &str, value: &str) -> Option<Result<bool>> {
        Some(match key {
            "syslog" => put(&mut self.address, parse_address(value)),
            "syslog-facility" => put(&mut self.facility, parse_facility(value)),
            "syslog-format" => put(&mut self.style, parse_style(value)),
            "tag" => put(&mut self.tag, Ok(value.to_owned())),
            "journald" => put(&mut self.address, file_path(value).map(Address::Journal)),
            "field" => add_field(&mut self.fields, value).map(|()| true),
            "mode" => put(&mut self.non_blocking, parse_mode(value)),
            "max-buffer-size" => put(&mut self.buffer, parse_size(value)),
            _ => return None,
        })
    }

    /// What they say together.
    pub(crate) fn finish(self) -> Result<Option<Options>> {
        let Self { address, facility, style, tag, fields, non_blocking, buffer } = self;
        let of_syslog = facility.is_some() || style.is_some() || tag.is_some();
        let Some(address) = address else {
            ensure!(
                !of_syslog && fields.is_empty() && non_blocking.is_none() && buffer.is_none(),
                "a log option of syslog or journald needs syslog or journald"
            );
            return Ok(None);
        };
        let form = if let Address::Journal(_) = address {
            ensure!(!of_syslog, "a log option of syslog does not go with journald");
            let mut text = Vec::new();
            for (name, value) in &fields {
                journald::push_field(&mut text, name.as_bytes(), value.as_bytes());
            }
            Form::with_text(Format::Journald, text)
        } else {
            ensure!(fields.is_empty(), "log option field needs journald");
            let style = style.unwrap_or(Style::Local);
            let syslog = Syslog { style, facility: facility.unwrap_or(DAEMON) };
            let host = fs::read_to_string("/proc/sys/kernel/hostname")
                .context("cannot read the host's name")?;
            let tag = tag.context("log option syslog needs tag")?;
            let text = rest(style, host.trim_end(), &tag, std::process::id());
            Form::with_text(Format::Syslog(syslog), text.into_bytes())
        };
        let non_blocking = non_blocking.unwrap_or(false);
        ensure!(
            buffer.is_none() || non_blocking,
            "log option max-buffer-size needs mode=non-blocking"
        );
        let bytes =
            buffer.map_or(BUFFER_BYTES, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(Some(Options { address, form, buffer_bytes: non_blocking.then_some(bytes) }))
    }
}

/// System daemons, which dockerd says unless told otherwise.
const DAEMON: u8 = 3;

fn parse_address(text: &str) -> Result<Address> {
    if text == "local" {
        return Ok(Address::Local);
    }
    let (scheme, rest) =
        text.split_once("://").with_context(|| format!("{text:?} has no scheme"))?;
    let socket =
        || rest.parse().with_context(|| format!("{rest:?} is not a numeric address with a port"));
    Ok(match scheme {
        "unixgram" => Address::Unixgram(file_path(rest)?),
        "unix" => Address::Unix(file_path(rest)?),
        "udp" => Address::Udp(socket()?),
        "tcp" => Address::Tcp(socket()?),
        _ => bail!("{scheme:?} is not unixgram, unix, udp or tcp"),
    })
}

fn parse_facility(text: &str) -> Result<u8> {
    match text.parse() {
        Ok(number @ 0..=23) => Ok(number),
        _ => bail!("{text:?} is not a number from 0 to 23"),
    }
}

fn parse_style(text: &str) -> Result<Style> {
    Ok(match text {
        "rfc3164" => Style::Rfc3164,
        "rfc5424" => Style::Rfc5424,
        "rfc5424micro" => Style::Rfc5424Micro,
        _ => bail!("{text:?} is not rfc3164, rfc5424 or rfc5424micro"),
    })
}

fn parse_mode(text: &str) -> Result<bool> {
    match text {
        "blocking" => Ok(false),
        "non-blocking" => Ok(true),
        _ => bail!("{text:?} is not blocking or non-blocking"),
    }
}

fn add_field(fields: &mut Vec<(String, String)>, text: &str) -> Result<()> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    ensure!(journald::is_name(name), "{name:?} is not a name of journald's");
    add_pair(fields, text, FIELD_BYTES)
}
