//! Descriptors: flags, duplicates, pipes, memory files.
