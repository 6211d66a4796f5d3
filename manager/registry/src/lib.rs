//! A client of the OCI distribution specification 1.1 and of Docker's registry interface, for
//! strangers: a registry, its token server and whatever they redirect to are hostile.
//!
//! [`Registry::repository`] gives a [`Repository`], one conversation about one repository with
//! one caller's credentials. Credentials and tokens are bound to the registry's scheme, host and
//! port and leave it for nobody but its token server (`realm` says which); redirects are
//! followed here and not by the HTTP library; no certificate is taken unseen unless the operator
//! named the registry. Documents are read to one meaning or refused ([`document`]). Everything
//! is bounded in size, time and repetition.
//!
//! What it does not do: blobs are checked for their size, and for their digest by whoever
//! writes them ([`Repository::blob`]); nothing is stored.
#![forbid(unsafe_code)]

mod blob;
mod catalog;
mod challenge;
pub mod document;
mod download;
mod endpoint;
mod failure;
mod home;
mod hosts;
mod link;
mod login;
mod origin;
mod part;
mod proxy;
mod pull;
mod push;
mod realm;
mod remote;
mod repository;
mod resolve;
mod retry;
mod secret;
mod settings;
mod shared;
mod tls;
mod token;

pub use blob::{Blob, BlobEvent};
pub use catalog::Found;
pub use document::{Document, check_image, choose};
pub use download::Download;
pub use endpoint::check_insecure;
pub use proxy::Proxies;
pub use pull::{Image, Resolved};
pub use push::Pushed;
pub use repository::{Registry, Repository};
pub use secret::{Credentials, Secret};
pub use settings::{Limits, Settings};
