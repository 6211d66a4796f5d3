//! A container's mounts: volumes that it takes, and where each source is on the host.
