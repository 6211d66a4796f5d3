//! hull.v1, the manager's gRPC API: messages, clients and servers as tonic makes them from
//! `proto/hull/v1`, where each is documented.
#![forbid(unsafe_code)]

/// The package `hull.v1`.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("hull.v1");
}

/// The descriptors of all of it, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("hull.v1");
