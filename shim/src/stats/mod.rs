//! Reading what cgroups count, as containerd's `Metrics`.
//!
//! The fields, and which of them are there when a controller is not, are those that
//! containerd/cgroups' `Stat` fills, so that every consumer of containerd's metrics finds what
//! it knows. Text comes from the kernel alone, but a kernel adds lines: what a parser does not
//! know, it passes over, and nothing of it can fail or be slow for more than [`LIMIT_BYTES`].

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, Result};

pub(crate) mod v1;
pub(crate) mod v2;

/// The most that is read of one file. The largest are lists with a few lines a block device.
const LIMIT_BYTES: u64 = 1 << 20;

/// The text of a file; `None` where this kernel or this cgroup does not have it, the cgroup
/// has been removed, or the kernel was told not to count (pressure).
fn text(path: &Path) -> Result<Option<String>> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error).with_context(|| format!("read {}", path.display())),
        },
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(LIMIT_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The number that a file holds. What has no limit (`max`) is the largest number.
pub(crate) fn number(dir: &Path, name: &str) -> Result<Option<u64>> {
    let path = dir.join(name);
    let Some(text) = text(&path)? else { return Ok(None) };
    let number = if text.trim() == "max" { Some(u64::MAX) } else { parse_number(text.trim()) };
    number.with_context(|| format!("{} holds {:?}, not a number", path.display(), text)).map(Some)
}

/// A count. Counters that are summed up per processor can be below 0 for a moment.
fn parse_number(text: &str) -> Option<u64> {
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => text.parse::<i64>().ok().map(|_| 0),
    }
}

/// Lines of "key value". What is absent is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keyed<'a>(pub(crate) &'a str);

impl Keyed<'_> {
    pub(crate) fn get(self, key: &str) -> u64 {
        let value = self.0.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            if name == key { parse_number(value.trim()) } else { None }
        });
        value.unwrap_or(0)
    }
}

/// One device's line of rdma.current or rdma.max: "mlx4_0 hca_handle=2 hca_object=max".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rdma<'a> {
    device: &'a str,
    handles: u32,
    objects: u32,
}

fn rdma(text: &str) -> impl Iterator<Item = Rdma<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let mut entry = Rdma { device: words.next()?, handles: 0, objects: 0 };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = if value == "max" { u32::MAX } else { value.parse().unwrap_or(0) };
            match key {
                "hca_handle" => entry.handles = value,
                "hca_object" => entry.objects = value,
                _ => {}
            }
        }
        Some(entry)
    })
}

/// The sizes of huge pages that this machine has, as hugetlb's files are named.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| huge_page_size(name)).collect()
}

/// "hugepages-2048kB" is "2MB".
fn huge_page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..1_048_576 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    })
}

#[cfg(test)]
mod tests;
