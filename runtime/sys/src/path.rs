//! Paths resolved beneath a directory descriptor.
