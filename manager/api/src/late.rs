//! A service that is made by its first call: what nobody asks for takes no memory. Reflection
//! keeps every name of every message twice over, which is a third of an idle manager's heap.

use std::{
    convert::Infallible,
    fmt::Display,
    future::{Ready, ready},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

/// A service, or how to make it.
pub(crate) struct Late<S, E> {
    made: Arc<OnceLock<S>>,
    make: fn() -> Result<S, E>,
}

impl<S, E> Late<S, E> {
    pub(crate) fn new(make: fn() -> Result<S, E>) -> Self {
        Self { made: Arc::default(), make }
    }
}

impl<S, E> Clone for Late<S, E> {
    fn clone(&self) -> Self {
        Self { made: Arc::clone(&self.made), make: self.make }
    }
}

impl<S: NamedService, E> NamedService for Late<S, E> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<Response<Body>, Infallible>;

/// Of services that are always ready, as tonic's are.
impl<S, E: Display> Service<Request<Body>> for Late<S, E>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let made = match self.made.get() {
            Some(made) => Ok(made),
            None => (self.make)().map(|made| self.made.get_or_init(|| made)),
        };
        match made {
            Ok(made) => Either::Left(made.clone().call(request)),
            Err(error) => {
                let failed = Status::internal(format!("{} can't be made: {error}", S::NAME));
                Either::Right(ready(Ok(failed.into_http())))
            }
        }
    }
}
