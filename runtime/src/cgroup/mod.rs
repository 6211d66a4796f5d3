//! Control groups: v1, hybrid and v2, by cgroupfs or by systemd.
