//! `make layout`: writes the linker script that keeps together what hulld calls on an ordinary
//! day.
//!
//! The kernel brings a program into memory by 64 KiB or more at a time. Where what is called lies
//! between what is not, all of the program ends up in memory; an idle hulld is mostly that. The
//! script names functions by patterns, so it stays true enough while the code changes. What it
//! leaves out still works: it lies elsewhere.
#![forbid(unsafe_code)]

mod day;
mod patterns;
mod sections;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, anyhow, ensure};
use hull_integration::{engine, write_program};

use crate::sections::Section;

const USAGE: &str = "\
usage: layout MAP SCRIPT
  Lives an ordinary day with the hulld that HULL_HULLD names, of which MAP is the linker's map,
  and writes which of its functions were called as a linker script.";

/// What hulld is run by: this program, which traces it.
const TRACE: &str = "--trace";
/// The day, in a process of its own, whose HULL_HULLD is the traced one.
const DAY: &str = "--day";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [TRACE, map, hits, program, args @ ..] => {
            read(map).and_then(|sections| trace::trace(&sections, program, args, Path::new(hits)))
        }
        [DAY] => {
            day::live();
            Ok(())
        }
        [map, script] if !map.starts_with('-') => layout(map, script),
        _ => Err(anyhow!(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("layout: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(map: &str) -> Result<Vec<Section>> {
    let text = fs::read(map).with_context(|| format!("read {map}"))?;
    Ok(sections::of(&String::from_utf8_lossy(&text)))
}

fn layout(map: &str, script: &str) -> Result<()> {
    let sections = read(map)?;
    let program = engine::program("HULL_HULLD", "hulld");
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name).display().to_string();
    let (hulld, hits) = (path("hulld"), path("hits"));
    let own = std::env::current_exe()?;
    let words = format!("{} {TRACE} {map} {hits} {program}", own.display());
    write_program(&hulld, format!("#!/bin/sh\nexec {words} \"$@\"\n"));
    let lived = Command::new(&own).arg(DAY).env("HULL_HULLD", &hulld).status()?;
    ensure!(lived.success(), "the day ended early");
    let hits = fs::read_to_string(&hits).context("nothing was called")?;
    let address = |line: &str| u64::from_str_radix(line, 16);
    let called: BTreeSet<u64> = hits.lines().map(address).collect::<Result<_, _>>()?;
    println!("{} of {} functions are called", called.len(), sections.len());
    Ok(fs::write(script, text_of(&patterns::of(&sections, &called)))?)
}

/// The script extends the linker's own. musl's functions call each other too much to be parted.
fn text_of(patterns: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = String::from(
        "/* What hulld calls on an ordinary day, side by side, so that little else comes into\n   \
         memory with it. What is left out, or named in vain, only lies elsewhere.\n   \
         Made by `make layout`. */\n\
         SECTIONS\n{\n  .text.called :\n  {\n    *libc.a:*(.text .text.*)\n",
    );
    for (file, names) in patterns {
        let names: Vec<String> = names.iter().map(|name| format!(".text.{name}")).collect();
        text += &format!("    {file}({})\n", names.join("\n      "));
    }
    text + "  }\n}\nINSERT BEFORE .text;\n"
}
