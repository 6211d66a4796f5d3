//! What every snapshotter does, and that all do the same.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod changes;
mod fixture;
mod layers;
mod recovery;
mod trees;

/// Runs a test with each driver.
macro_rules! with_each_driver {
    ($($(#[$attribute:meta])* fn $name:ident($fixture:ident: &mut Fixture) $body:block)*) => {$(
        mod $name {
            use super::*;

            fn run($fixture: &mut Fixture) $body

            #[test]
            fn overlayfs() {
                run(&mut Fixture::new("overlayfs"));
            }

            #[test]
            fn vfs() {
                run(&mut Fixture::new("vfs"));
            }
        }
    )*};
}
use with_each_driver;
