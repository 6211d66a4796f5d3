//! Namespaces: clone3, unshare, setns.
