//! hull, the command line, with docker's grammar.
#![forbid(unsafe_code)]

mod args;
mod format;
mod options;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let _ = args::parse::parse(&words);
}
