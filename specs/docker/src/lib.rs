//! Docker's JSON documents (what `docker inspect` and the Engine API answer), and how they
//! follow from the messages of hull.v1. Pure conversions: no IO, no clock of their own.
#![forbid(unsafe_code)]

pub mod container;
pub mod event;
pub mod host_config;
pub mod image;
pub mod network;
pub mod network_settings;
pub mod ports;
pub mod status;
pub mod time;
pub mod units;
pub mod volume;
