//! Unpacks a layer by the worker, and says how fast: `unpack ARCHIVE DIRECTORY`.

use std::{fs::File, os::fd::AsFd as _, time::Instant};

use hull_manager_archive::{
    Options,
    worker::{self, Files, Job},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    worker::run_if_asked();
    let words: Vec<String> = std::env::args().collect();
    let [_, archive, directory] = words.as_slice() else {
        return Err("unpack ARCHIVE DIRECTORY".into());
    };
    let (archive, root) = (File::open(archive)?, File::open(directory)?);
    let files =
        Files { root: root.as_fd(), base: None, input: Some(archive.as_fd()), output: None };
    let start = Instant::now();
    let outcome = worker::spawn(&Job::Unpack { options: Options::default() }, files)?.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{outcome:?}");
    println!(
        "{seconds:.3} s: {:.0} entries/s, {:.0} MB/s plain, {:.0} MB/s compressed",
        outcome.entries as f64 / seconds,
        outcome.plain_bytes as f64 / 1e6 / seconds,
        outcome.archive_bytes as f64 / 1e6 / seconds
    );
    Ok(())
}
