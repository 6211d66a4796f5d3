//! Processes: exec, wait, pidfd, limits, priorities, personality.
