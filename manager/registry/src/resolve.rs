//! Names of hosts, as the system's resolver finds them. A failure keeps the name: it may be a
//! proxy's, or one that the registry sent us to.

use std::{fmt, io};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver.
pub(crate) struct System;

/// A name that has no address.
#[derive(Debug)]
pub(crate) struct Unresolved {
    name: String,
    cause: io::Error,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name {} can't be resolved: {}", self.name.escape_debug(), self.cause)
    }
}

impl std::error::Error for Unresolved {}

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is put in by whom it is for.
            match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(found) => Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs),
                Err(cause) => Err(Unresolved { name: name.as_str().to_owned(), cause }.into()),
            }
        })
    }
}
