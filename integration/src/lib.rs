//! Drives the built binaries, and the peers beside them, as root.
