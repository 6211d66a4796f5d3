//! The services of a shim, by their names.

use std::rc::Rc;

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, ready},
};
use protobuf::Message;

use crate::{
    log, sandbox,
    task::{self, Shim},
    ttrpc::{Call, Failure, Kind, Service},
};

impl Service for Shim {
    fn call(self: Rc<Self>, call: Call) -> LocalBoxFuture<'static, Result<Vec<u8>, Failure>> {
        let method = call.method.clone();
        // Boxed one by one: a request that waits holds no more than its own service needs.
        let work = if task::SERVICES.contains(&call.service.as_str()) {
            self.answer(call).boxed_local()
        } else if call.service == sandbox::SERVICE {
            sandbox::answer(self, call).boxed_local()
        } else {
            let text = format!("service {}", call.service);
            ready(Err(Failure::new(Kind::Unimplemented, text))).boxed_local()
        };
        work.inspect(move |answer| {
            log::debug(|| match answer {
                Ok(_) => format!("{method}: done"),
                Err(failure) => format!("{method}: {}", failure.message),
            });
        })
        .boxed_local()
    }

    fn only_waits(&self, method: &str) -> bool {
        matches!(method, "Wait" | "WaitSandbox")
    }
}

/// Reads a request's message.
///
/// # Errors
/// It is none.
pub(crate) fn parse<M: Message>(payload: &[u8]) -> Result<M, Failure> {
    Ok(M::parse_from_bytes(payload)?)
}

/// Writes an answer's message.
///
/// # Errors
/// It is longer than protobuf allows.
pub(crate) fn reply<M: Message>(message: M) -> Result<Vec<u8>, Failure> {
    Ok(message.write_to_bytes()?)
}
