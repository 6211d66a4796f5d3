//! Figures in OpenMetrics text, for who asked for them by `metrics-addr`.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use anyhow::Result;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

use crate::listen::Socket;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at one time.
const MAX_CONNECTIONS: usize = 8;

/// For the head of a request, and so for a client that sends nothing.
const LIMIT: Duration = Duration::from_secs(10);

/// One family of figures.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// Labels as they stand between the braces, and the value.
    pub(crate) samples: Vec<(String, f64)>,
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Gauge,
    Counter,
}

/// Who knows the figures.
pub(crate) trait Source: Send + Sync + 'static {
    fn families(&self) -> impl Future<Output = Vec<Family>> + Send;
}

/// Answers until dropped.
pub(crate) async fn serve(socket: Socket, source: Arc<impl Source>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let source = Arc::clone(&source);
        match &socket {
            Socket::Unix(listener) => {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(async move { drop((connection(stream, source).await, place)) });
            }
            Socket::Tcp(listener) => {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(async move { drop((connection(stream, source).await, place)) });
            }
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    source: Arc<impl Source>,
) -> Result<()> {
    let answer = service_fn(move |request: Request<Incoming>| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(answer(&request, source.as_ref()).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await?;
    Ok(())
}

async fn answer(request: &Request<Incoming>, source: &impl Source) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, text(&source.families().await)),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(OPEN_METRICS));
    response
}

/// The exposition (OpenMetrics 1.0, section 4).
fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, kind, help, samples } in families {
        let (kind, suffix) = match kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {help}");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(text, "{name}{suffix}{labels} {value}");
        }
    }
    text.push_str("# EOF\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_is_open_metrics() {
        let families = [
            Family {
                name: "hull_containers",
                kind: Kind::Gauge,
                help: "Containers by state",
                samples: vec![("state=\"running\"".into(), 2.0)],
            },
            Family {
                name: "hull_events",
                kind: Kind::Counter,
                help: "Events",
                samples: vec![(String::new(), 7.0)],
            },
        ];
        assert_eq!(
            text(&families),
            "# TYPE hull_containers gauge\n# HELP hull_containers Containers by state\n\
             hull_containers{state=\"running\"} 2\n\
             # TYPE hull_events counter\n# HELP hull_events Events\nhull_events_total 7\n# EOF\n"
        );
    }
}
