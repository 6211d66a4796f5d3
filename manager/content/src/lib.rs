//! The content store: blobs by digest, in an OCI image layout.
#![forbid(unsafe_code)]
