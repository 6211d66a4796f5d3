//! Route netlink: links and addresses.
