//! hull's networks as a CNI plugin; see `hull_manager_networks::plugin`.
#![forbid(unsafe_code)]

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
};

/// No configuration is longer, in bytes.
const MAX_INPUT_BYTES: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut input = Vec::new();
    if let Err(error) = std::io::stdin().take(MAX_INPUT_BYTES).read_to_end(&mut input) {
        eprintln!("hull-cni: read the configuration: {error}");
        return ExitCode::FAILURE;
    }
    let environment = |name: &str| std::env::var(name).ok();
    let (text, failed) = hull_manager_networks::plugin::run(&environment, &input);
    if std::io::stdout().write_all(text.as_bytes()).is_err() || failed {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
