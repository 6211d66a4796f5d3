//! The client: one request at a time, to containerd.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail, ensure};
use containerd_shim_protos::ttrpc::proto::{Code, Request, Response};
use hull_runtime_sys::socket;
use protobuf::Message;

use super::frame::{self, Next};
use crate::reactor::{self, Source};

/// A connection to a ttrpc server.
pub(crate) struct Client {
    stream: Source,
    last: u32,
}

impl Client {
    /// Connects to a socket file.
    ///
    /// # Errors
    /// `ENOENT` or `ECONNREFUSED` when nobody serves there.
    pub(crate) fn connect(path: &Path) -> hull_runtime_sys::Result<Self> {
        let stream = socket::connect_stream_nonblocking(path)?;
        Ok(Self { stream: Source::new(stream), last: 0 })
    }

    /// Sends a request and gives the answer's message.
    ///
    /// # Errors
    /// The connection's; the server's refusal; no answer within `limit`. After an error the
    /// connection is in an unknown state and should be dropped.
    pub(crate) async fn call(
        &mut self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>> {
        self.last += if self.last == 0 { 1 } else { 2 };
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload,
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
            ..Request::default()
        };
        let bytes = frame::encode(self.last, frame::REQUEST, &request.write_to_bytes()?);
        match reactor::within(limit, self.exchange(&bytes)).await {
            Some(result) => result,
            None => bail!("{service}/{method}: no answer within {limit:?}"),
        }
    }

    async fn exchange(&self, request: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        let mut bytes = Vec::new();
        loop {
            let mut buffer = [0; 1024];
            let n = self.stream.read(&mut buffer).await?;
            ensure!(n > 0, "the server closed the connection");
            bytes.extend_from_slice(&buffer[..n]);
            match frame::next(&bytes) {
                Next::Part(_) => {}
                Next::TooLong { .. } => bail!("the server's answer is longer than 4 MiB"),
                Next::Whole(frame, _)
                    if frame.kind != frame::RESPONSE || frame.stream != self.last =>
                {
                    bail!("the server answered what was not asked")
                }
                Next::Whole(frame, _) => {
                    let response = Response::parse_from_bytes(frame.payload)?;
                    let status = response.status.unwrap_or_default();
                    let code = status.code.enum_value_or_default();
                    ensure!(code == Code::OK, "{}", status.message);
                    return Ok(response.payload);
                }
            }
        }
    }
}
