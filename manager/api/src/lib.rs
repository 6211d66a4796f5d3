//! hull.v1 over gRPC: translation only.
#![forbid(unsafe_code)]
