//! Builds the probe statically and hands its path to the library, which embeds
//! it: the suite then needs nothing beside its own executable, in a virtual
//! machine as on the host.
#![forbid(unsafe_code)]

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=probe");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let target = variable("TARGET");
    let target_dir = out_dir.join("probe");
    // A directory of its own: this cargo must not wait for the lock of the one
    // that runs this script. Wrappers (clippy's) are for the outer build only.
    let status = Command::new(variable("CARGO"))
        .args(["build", "--release", "--package", "hull-integration-probe", "--target", &target])
        .arg("--manifest-path")
        .arg(PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("probe/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the probe does not build");
    let probe = target_dir.join(target).join("release/hull-integration-probe");
    println!("cargo::rustc-env=HULL_PROBE_BINARY={}", probe.display());
}
