//! The values of options, in docker's syntax and docker's words: pure parsers, and the lowering
//! of all options of `run` and `create` into one message.

pub(crate) mod blkio;
pub(crate) mod container;
pub(crate) mod csv;
pub(crate) mod device;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod gpus;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod keyvalue;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod platform;
pub(crate) mod publish;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod size;
pub(crate) mod subnet;
pub(crate) mod timestamp;
pub(crate) mod ulimit;
pub(crate) mod volume;

/// Go's strconv.ParseBool, which docker's flags are read with.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}
