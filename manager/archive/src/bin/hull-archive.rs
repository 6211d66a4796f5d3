//! The worker as a program of its own: for tests, and for looking at it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    hull_manager_archive::worker::run_if_asked();
    eprintln!("hull-archive is started by hulld");
    std::process::ExitCode::FAILURE
}
