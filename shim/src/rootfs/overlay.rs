//! Overlays whose options do not fit the page that mount(2) takes: images with many layers.
//!
//! Kernel 6.7 takes the layers one by one (`lowerdir+`). Before it, names are made short: the
//! layers' common directory becomes the current one for the call.

use std::{
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys::{
    self as sys,
    fd::{AT_FDCWD, is_unwritable, openat},
    mount::{self, Attributes, Classic, VALUE_LIMIT_BYTES},
    path::c_path,
    process::change_directory,
};

use super::{DATA_LIMIT_BYTES, id_map::IdMap};

const LOWER: &str = "lowerdir=";

/// Where the kernel works for an overlay that is to be written to.
pub(super) fn work_directory<'a>(kind: &str, how: Classic, data: &'a str) -> Option<&'a Path> {
    let writable = kind == "overlay" && !how.attributes.contains(Attributes::READ_ONLY);
    let work = || data.split(',').find_map(|word| word.strip_prefix("workdir="));
    writable.then(work).flatten().map(Path::new)
}

/// Where the kernel can't make its own directory in `work`, it mounts the overlay read-only and
/// says nothing: mostly the disk is full.
pub(super) fn ensure_writable(mounted: impl AsFd, work: &Path) -> Result<()> {
    if !is_unwritable(mounted)? {
        return Ok(());
    }
    let place = work.join("room");
    std::fs::create_dir(&place)
        .and_then(|()| std::fs::remove_dir(&place))
        .with_context(|| place.display().to_string())?;
    bail!("the kernel mounts it read-only")
}

/// Mounts an overlay of options, joined by commas, that are too long.
pub(super) fn mount(source: &str, target: BorrowedFd<'_>, how: Classic, data: &str) -> Result<()> {
    let short = short_names(data);
    if let Some(parameters) = one_by_one(how, data) {
        match mount_parameters(source, target, how, &parameters) {
            // A kernel that does not know `lowerdir+`.
            Err(error) if error.errno() == libc::EINVAL && short.is_some() => {}
            result => return Ok(result?),
        }
    }
    let (dir, data) = short.ok_or_else(|| {
        anyhow!("the options of the overlay are too long for this kernel: {} bytes", data.len())
    })?;
    mount_from(&dir, source, target, how, &data)
}

/// Mounts an overlay whose files have other ids than on the disk. The directories are not mapped
/// one by one: what they all are in is, as a mount that is attached nowhere.
pub(super) fn mount_mapped(
    source: &str,
    target: BorrowedFd<'_>,
    how: Classic,
    data: &str,
    id_map: &IdMap,
) -> Result<()> {
    const CANNOT: &str = "an overlay of these options can't be id-mapped";
    let (directory, data) = beneath_one(data).context(CANNOT)?;
    let mapped = mount::copy_at(&directory, false)?;
    id_map.apply(&mapped)?;
    let data = data.replace(PLACE, &format!("/proc/self/fd/{}", mapped.as_raw_fd()));
    let parameters = one_by_one(how, &data).context(CANNOT)?;
    let mounted = id_map.as_root(|| mount_parameters(source, target, how, &parameters))?;
    mounted.map_err(|error| match error.errno() {
        libc::EINVAL => anyhow::Error::new(error).context(
            "lay an overlay on id-mapped directories (Linux 6.15, and a file system that can)",
        ),
        _ => error.into(),
    })
}

/// Stands for a directory until it has a name. No path contains it.
const PLACE: &str = "\0";

/// The lowest directory that all of an overlay's are in, and the options with [`PLACE`] for it.
fn beneath_one(data: &str) -> Option<(PathBuf, String)> {
    let is_path = |key: &str| matches!(key, "lowerdir" | "upperdir" | "workdir");
    let words: Vec<(&str, Option<&str>)> = data
        .split(',')
        .map(|word| word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value))))
        .collect();
    let paths: Vec<&Path> = words
        .iter()
        .filter(|(key, _)| is_path(key))
        .flat_map(|(_, value)| value.unwrap_or_default().split(':'))
        .map(Path::new)
        .collect();
    let mut common = paths.first()?.parent()?;
    while !paths.iter().all(|path| path.starts_with(common) && *path != common) {
        common = common.parent()?;
    }
    if !common.is_absolute() {
        return None;
    }
    let placed = |path: &str| {
        let name = Path::new(path).strip_prefix(common).ok()?.to_str()?;
        Some(format!("{PLACE}/{name}"))
    };
    let words: Option<Vec<String>> = words
        .iter()
        .map(|(key, value)| match value {
            Some(value) if is_path(key) => {
                let paths: Option<Vec<_>> = value.split(':').map(placed).collect();
                Some(format!("{key}={}", paths?.join(":")))
            }
            Some(value) => Some(format!("{key}={value}")),
            None => Some((*key).to_owned()),
        })
        .collect();
    Some((common.to_owned(), words?.join(",")))
}

/// The parameters of fsconfig(2), layers one by one. `None` where it cannot say the same: a
/// backslash or a quotation mark is undone by mount(2)'s way of reading alone, and values have
/// a limit.
fn one_by_one(how: Classic, data: &str) -> Option<Vec<(&str, Option<&str>)>> {
    if data.contains(['\\', '"'])
        || how != (Classic { attributes: how.attributes, ..Classic::default() })
    {
        return None;
    }
    let mut parameters = Vec::new();
    for word in data.split(',').filter(|word| !word.is_empty()) {
        if let Some(layers) = word.strip_prefix(LOWER) {
            parameters.extend(layers.split(':').map(|layer| ("lowerdir+", Some(layer))));
        } else {
            let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
            parameters.push((key, value));
        }
    }
    let fits = |(_, value): &(&str, Option<&str>)| {
        // An empty layer stands before one that holds data only ("a::b").
        value.is_none_or(|value| !value.is_empty() && value.len() < VALUE_LIMIT_BYTES)
    };
    parameters.iter().all(fits).then_some(parameters)
}

fn mount_parameters(
    source: &str,
    target: BorrowedFd<'_>,
    how: Classic,
    parameters: &[(&str, Option<&str>)],
) -> sys::Result<()> {
    let overlay = mount::Context::open("overlay")?;
    if !source.is_empty() {
        overlay.set("source", source)?;
    }
    if how.attributes.contains(Attributes::READ_ONLY) {
        overlay.set_flag("ro")?;
    }
    for (key, value) in parameters {
        match value {
            Some(value) => overlay.set(key, value)?,
            None => overlay.set_flag(key)?,
        }
    }
    overlay.create()?;
    mount::attach(overlay.mount(how.attributes)?, target)
}

/// The directory that all layers are in, and the options with the layers named from there.
/// `None` where the result would still be too long, or mean something else.
fn short_names(data: &str) -> Option<(PathBuf, String)> {
    if data.contains(['\\', '"']) {
        return None;
    }
    let words: Vec<_> = data.split(',').collect();
    let layers = words.iter().find_map(|word| word.strip_prefix(LOWER))?;
    let layers: Vec<_> = layers.split(':').map(Path::new).collect();
    let mut common = layers.first()?.parent()?;
    while !layers.iter().all(|layer| layer.starts_with(common)) {
        common = common.parent()?;
    }
    let names: Option<Vec<_>> =
        layers.iter().map(|layer| layer.strip_prefix(common).ok()?.to_str()).collect();
    // What is relative already begins elsewhere; the common directory itself has no name.
    let relative = |word: &&str| {
        ["upperdir=", "workdir="]
            .iter()
            .any(|key| word.strip_prefix(key).is_some_and(|path| !path.starts_with('/')))
    };
    let names = names?;
    if !common.is_absolute() || names.contains(&"") || words.iter().any(relative) {
        return None;
    }
    let short = format!("{LOWER}{}", names.join(":"));
    let words: Vec<_> = words
        .iter()
        .map(|word| if word.starts_with(LOWER) { short.as_str() } else { *word })
        .collect();
    let data = words.join(",");
    (data.len() <= DATA_LIMIT_BYTES).then(|| (common.to_owned(), data))
}

fn mount_from(
    dir: &Path,
    source: &str,
    target: BorrowedFd<'_>,
    how: Classic,
    data: &str,
) -> Result<()> {
    let here = openat(AT_FDCWD, c".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    change_directory(openat(AT_FDCWD, &c_path(dir)?, libc::O_PATH | libc::O_DIRECTORY, 0)?)?;
    let mounted = mount::mount_on(target, source, "overlay", how, data);
    change_directory(here).context("return to the working directory")?;
    Ok(mounted?)
}

#[cfg(test)]
mod tests;
