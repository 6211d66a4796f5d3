//! Interfaces of daemons over gRPC, for what their command lines cannot say.
//!
//! One unary call a connection: HTTP/2 from h2, the messages from whoever calls. The
//! usual crate for it compiles its messages with protoc, which not everybody has.

use std::time::Duration;

use containerd_shim_protos::protobuf::{Enum, Message};
use containerd_shim_protos::ttrpc::Code;
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use crate::note;
use crate::shim::Refusal;

/// The namespace that ctr uses when it is told none.
const NAMESPACE: &str = "default";
/// Not compressed, and the length of what follows.
const PREFIX_BYTES: usize = 5;

type Failure = Box<dyn std::error::Error>;

/// A client of a containerd.
#[derive(Clone, Debug)]
pub struct Grpc {
    socket: String,
}

impl Grpc {
    /// Whoever listens on a socket.
    pub fn new(socket: &str) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Calls a method, `/package.Service/Method`. The task service's messages have the
    /// same fields as those of shims for most methods.
    pub fn call<Q: Message + std::fmt::Display, A: Message>(
        &self,
        path: &str,
        request: &Q,
        limit: Duration,
    ) -> Result<A, Refusal> {
        let body = request.write_to_bytes().expect("a message can be written");
        let result = self.call_bytes(path, &body, &[("containerd-namespace", NAMESPACE)], limit);
        note(&format!("{path}({request}) -> {:?}", result.as_ref().map(drop)));
        result.map(|bytes| A::parse_from_bytes(&bytes).expect("the right message"))
    }

    /// Calls a method with a message that was made elsewhere, and further headers.
    pub fn call_bytes(
        &self,
        path: &str,
        message: &[u8],
        headers: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Vec<u8>, Refusal> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a thread is free");
        let exchange = async {
            tokio::time::timeout(limit, exchange(&self.socket, path, message, headers)).await
        };
        match runtime.block_on(exchange) {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => Err(Refusal { code: None, message: failure.to_string() }),
            Err(_) => Err(Refusal { code: None, message: format!("no answer in {limit:?}") }),
        }
    }
}

/// One request and its answer, or the error in its place.
async fn exchange(
    socket: &str,
    path: &str,
    message: &[u8],
    headers: &[(&str, &str)],
) -> Result<Result<Vec<u8>, Refusal>, Failure> {
    let stream = UnixStream::connect(socket).await?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(())?;
    let (response, mut upload) = client.send_request(request, false)?;
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    upload.send_data(frame.into(), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut received = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        received.extend_from_slice(&chunk);
    }
    // An error without a body comes with the head alone.
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    driver.abort();
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let code: i32 = text("grpc-status").ok_or("an answer without a status")?.parse()?;
    if code != 0 {
        let message = text("grpc-message").unwrap_or_default().to_owned();
        return Ok(Err(Refusal { code: Code::from_i32(code), message }));
    }
    Ok(Ok(received.get(PREFIX_BYTES..).unwrap_or_default().to_vec()))
}
