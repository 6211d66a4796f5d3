//! The descriptor-based mount API.
