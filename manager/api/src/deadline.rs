//! The deadline that a client gives with its request (`grpc-timeout`), for answers and for the
//! beginning of streams. A client ends a stream by itself when its time is over.
//!
//! tonic has the same timer around all services, which cannot be turned off and says CANCELLED;
//! grpc has DEADLINE_EXCEEDED for it. So this one, within, ends a moment earlier.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tower::Service;

/// How much earlier; half of what is shorter.
const EARLIER: Duration = Duration::from_millis(10);

/// A service whose requests have deadlines.
#[derive(Clone)]
pub(crate) struct Deadlines<S>(pub(crate) S);

/// An answer that comes in time, or a refusal.
pub(crate) struct Timely<F> {
    answer: Pin<Box<F>>,
    end: Option<Pin<Box<Sleep>>>,
}

impl<S, B, R: Default> Service<Request<B>> for Deadlines<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Timely<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = limit(request.headers());
        let end = limit.map(|limit| Box::pin(sleep(limit - EARLIER.min(limit / 2))));
        Timely { answer: Box::pin(self.0.call(request)), end }
    }
}

impl<F, R: Default, E> Future for Timely<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = self.answer.as_mut().poll(context) {
            return Poll::Ready(answer);
        }
        let over = self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready());
        if !over {
            return Poll::Pending;
        }
        let late = Status::deadline_exceeded("the time that the client gave is over");
        Poll::Ready(Ok(late.into_http()))
    }
}

/// At most eight digits and a unit, as the protocol has it.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_protocol_writes_them() {
        for (text, limit) in [
            ("300m", Some(Duration::from_millis(300))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("1S", Some(Duration::from_secs(1))),
            ("0n", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1x", None),
            ("1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(super::limit(&headers), limit, "{text:?}");
        }
    }
}
