//! Unix sockets and descriptors sent over them.
