//! The OCI image specification's documents, and Docker's where they differ: digests,
//! references, platforms, descriptors, manifests, configurations. Pure data: no IO.
#![forbid(unsafe_code)]

pub mod config;
pub mod digest;
pub mod document;
pub mod media_type;
pub mod platform;
pub mod reference;

pub use config::{ContainerConfig, Health, History, ImageConfig, RootFs};
pub use digest::{Digest, Hasher};
pub use document::{Descriptor, Index, Manifest};
pub use platform::Platform;
pub use reference::Reference;
