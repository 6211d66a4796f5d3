//! The manager's end, for calls that would go on: each is told with one clear status, a moment
//! after the stop is asked for. What follows something (logs, events, wait, an exec) would else
//! hold the manager, and with it everybody who waits for the next one, for as long as it likes.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tonic::Status;
use tower::Service;

/// What calls that are short get to end by themselves.
const GRACE: Duration = Duration::from_secs(1);

/// Ready when no call may go on.
type Over = Shared<BoxFuture<'static, ()>>;

/// Makes services end with the manager.
#[derive(Clone)]
pub(crate) struct Stopping(Over);

impl Stopping {
    /// `closing` is true once the stop is asked for.
    pub(crate) fn new(mut closing: watch::Receiver<bool>) -> Self {
        let over = async move {
            if closing.wait_for(|closing| *closing).await.is_err() {
                // Nobody can ask any more.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(GRACE).await;
        };
        Self(over.boxed().shared())
    }

    pub(crate) fn around<S>(&self, service: S) -> Ends<S> {
        Ends { service, over: self.0.clone() }
    }
}

fn stopped() -> Status {
    Status::unavailable("the manager is stopping")
}

/// A service whose calls end with the manager.
#[derive(Clone)]
pub(crate) struct Ends<S> {
    service: S,
    over: Over,
}

impl<S, B, R> Service<Request<B>> for Ends<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: Default + Send,
{
    type Response = Response<Ending<R>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (answer, over) = (self.service.call(request), self.over.clone());
        Box::pin(async move {
            let answer = tokio::select! {
                // One that is there is given also when all is over.
                biased;
                answer = answer => answer?,
                () = over.clone() => stopped().into_http(),
            };
            Ok(answer.map(|body| Ending {
                body,
                over: Some(over),
                is_late: false,
                is_ended: false,
            }))
        })
    }
}

/// A body that ends with the manager.
pub(crate) struct Ending<R> {
    body: R,
    /// None once it was ready.
    over: Option<Over>,
    /// One frame came when all was over.
    is_late: bool,
    is_ended: bool,
}

impl<R: http_body::Body + Unpin> http_body::Body for Ending<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let this = &mut *self;
        if this.is_ended {
            return Poll::Ready(None);
        }
        let next = Pin::new(&mut this.body).poll_frame(context);
        if let Some(over) = &mut this.over {
            if Pin::new(over).poll(context).is_pending() {
                return next;
            }
            this.over = None;
        }
        match next {
            // An answer that was ready is given as a whole; it has one frame and its status.
            Poll::Ready(Some(Ok(frame))) if frame.is_data() && !this.is_late => {
                this.is_late = true;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None | Some(Err(_))) => next,
            _ => {
                this.is_ended = true;
                let mut trailers = HeaderMap::new();
                // Plain words are valid in a header.
                let _ = stopped().add_header(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // One that may be cut has no exact length.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body::Body as _;

    use super::*;

    /// Frames that are there, and then nothing for ever.
    #[derive(Default)]
    struct Frames(VecDeque<Frame<&'static [u8]>>);

    impl http_body::Body for Frames {
        type Data = &'static [u8];
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
            self.0.pop_front().map_or(Poll::Pending, |frame| Poll::Ready(Some(Ok(frame))))
        }
    }

    fn text(frame: Frame<&[u8]>) -> String {
        match frame.into_data() {
            Ok(data) => String::from_utf8_lossy(data).into_owned(),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap();
                let value = |name| trailers.get(name).map_or("", |value| value.to_str().unwrap());
                format!("{} {}", value("grpc-status"), value("grpc-message"))
            }
        }
    }

    async fn all(
        mut body: impl http_body::Body<Data = &'static [u8], Error = Infallible> + Unpin,
    ) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(frame) =
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            all.push(text(frame.unwrap()));
        }
        all
    }

    fn ending(
        frames: impl IntoIterator<Item = Frame<&'static [u8]>>,
        over: Over,
    ) -> Ending<Frames> {
        Ending {
            body: Frames(frames.into_iter().collect()),
            over: Some(over),
            is_late: false,
            is_ended: false,
        }
    }

    const END: &str = "14 the%20manager%20is%20stopping";

    #[tokio::test]
    async fn what_goes_on_ends_when_the_stop_is_asked() {
        let (sender, closing) = watch::channel(false);
        let stopping = Stopping::new(closing);
        let mut following = all(ending([Frame::data(&b"one"[..])], stopping.0.clone())).boxed();
        let mut service = stopping.around(tower::service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<Frames>, Infallible>>()
        }));
        let mut waiting = service.call(Request::new(()));
        assert!((&mut following).now_or_never().is_none());
        assert!((&mut waiting).now_or_never().is_none());
        sender.send_replace(true);
        assert_eq!(following.await, ["one", END]);
        assert_eq!(waiting.await.unwrap().headers()["grpc-status"], "14");
    }

    #[tokio::test]
    async fn an_answer_that_is_there_is_given_and_one_without_end_is_cut() {
        let over: Over = std::future::ready(()).boxed().shared();
        let status: HeaderMap = [("grpc-status", "0")]
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .into_iter()
            .collect();
        let answer = [Frame::data(&b"one"[..]), Frame::trailers(status)];
        let mut whole = ending(answer, over.clone());
        for expected in ["one", "0 "] {
            let frame = std::future::poll_fn(|context| Pin::new(&mut whole).poll_frame(context));
            assert_eq!(text(frame.await.unwrap().unwrap()), expected);
        }
        let flood = (0..100).map(|_| Frame::data(&b"x"[..]));
        assert_eq!(all(ending(flood, over)).await, ["x", END]);
    }
}
