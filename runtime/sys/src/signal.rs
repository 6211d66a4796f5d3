//! Signals as descriptors.
