//! What happens to the files when the current one is full.
//!
//! The plan needs no lock against readers and none against a kill: after each of its steps the
//! files are such that the next plan goes on, removes nothing else, and keeps their order. For
//! that it moves only the files below the first free number, and removes the oldest only if
//! no number is free.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Mode of a log's files, as dockerd's.
pub(super) const FILE_MODE: u32 = 0o640;

/// One of a log's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Current,
    /// What will be the current one.
    New,
    Rotated {
        number: u32,
        gzip: bool,
    },
}

impl Name {
    /// Its path, where the current one is `file`.
    pub(super) fn path(self, file: &Path) -> PathBuf {
        match self {
            Self::Current => file.to_owned(),
            Self::New => with_suffix(file, ".new"),
            Self::Rotated { number, gzip: false } => with_suffix(file, &format!(".{number}")),
            Self::Rotated { number, gzip: true } => with_suffix(file, &format!(".{number}.gz")),
        }
    }
}

/// `file` with `suffix` at the end of its name.
pub(super) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(suffix);
    name.into()
}

/// Which rotated files there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// Whether there is a current file.
    current: bool,
    /// For each number from 1: whether the file is there, and whether with `.gz`.
    rotated: Vec<(bool, bool)>,
}

impl Present {
    /// Looks for the files of a log that may have `max_files`.
    pub(super) fn look(file: &Path, max_files: u32) -> Self {
        let is_there = |name: Name| name.path(file).symlink_metadata().is_ok();
        let number = |number| {
            let there = |gzip| is_there(Name::Rotated { number, gzip });
            (there(false), there(true))
        };
        Self { current: is_there(Name::Current), rotated: (1..max_files).map(number).collect() }
    }

    /// The names to read, newest first, without copies.
    pub(super) fn readable(&self) -> Vec<Name> {
        let rotated = (1..).zip(&self.rotated).filter_map(|(number, there)| match there {
            (false, false) => None,
            (plain, _) => Some(Name::Rotated { number, gzip: !plain }),
        });
        self.current.then_some(Name::Current).into_iter().chain(rotated).collect()
    }
}

/// A change of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes [`Name::New`], empty.
    Create,
    Remove(Name),
    /// Gives the first file the second name, which is free or replaced.
    Rename(Name, Name),
}

/// The steps that make an empty current file and number the others anew.
pub(super) fn plan(present: &Present) -> Vec<Step> {
    // The new file comes first: if it can't be made, nothing has changed.
    let mut steps = vec![Step::Create];
    if present.current && !present.rotated.is_empty() {
        let rotated = |number, gzip| Name::Rotated { number, gzip };
        for (number, there) in (1..).zip(&present.rotated) {
            if *there == (true, true) {
                steps.push(Step::Remove(rotated(number, true)));
            }
        }
        let mut numbers = (1..).zip(&present.rotated);
        let free = match numbers.find(|(_, there)| **there == (false, false)) {
            Some((number, _)) => number,
            None => {
                let (last, (plain, _)) =
                    (1..).zip(&present.rotated).last().unwrap_or((1, &(true, true)));
                steps.push(Step::Remove(rotated(last, !plain)));
                last
            }
        };
        for (number, (plain, _)) in (1..free).zip(&present.rotated).rev() {
            steps.push(Step::Rename(rotated(number, !plain), rotated(number + 1, !plain)));
        }
        steps.push(Step::Rename(Name::Current, rotated(1, false)));
    }
    // With a limit of one file this replaces the current one, so that there always is one.
    steps.push(Step::Rename(Name::New, Name::Current));
    steps
}

/// Rotates the files, and returns the new current one; `None` if `locked`, and a compression is
/// about to name its result just now.
pub(super) fn rotate(file: &Path, max_files: u32, locked: bool) -> Result<Option<File>> {
    let directory = if locked {
        let directory = open_directory(file)?;
        match directory.try_lock() {
            Ok(()) => Some(directory),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(error).context("lock the log's directory");
            }
        }
    } else {
        None
    };
    let mut created = None;
    for step in plan(&Present::look(file, max_files)) {
        if let Err(error) = apply(file, step, &mut created) {
            remove(&Name::New.path(file))?;
            return Err(error);
        }
    }
    drop(directory);
    created.map(Some).context("the plan makes no file")
}

/// The log's directory: what renames of rotated files are locked by.
pub(super) fn open_directory(file: &Path) -> Result<File> {
    let directory = file.parent().context("a log needs a directory")?;
    File::open(directory).with_context(|| format!("open {}", directory.display()))
}

/// Takes one step; [`Step::Create`] fills `created`.
pub(super) fn apply(file: &Path, step: Step, created: &mut Option<File>) -> Result<()> {
    match step {
        Step::Create => {
            let path = Name::New.path(file);
            remove(&path)?;
            *created = Some(open(&path, true)?);
            Ok(())
        }
        Step::Remove(name) => remove(&name.path(file)),
        Step::Rename(from, to) => {
            let (from, to) = (from.path(file), to.path(file));
            fs::rename(&from, &to).with_context(|| format!("rename {}", from.display()))
        }
    }
}

/// Opens a log file for appending, and for reading what is there; makes it if need be.
pub(super) fn open(path: &Path, exclusive: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK the open of a FIFO would wait; it changes nothing for a file.
    options.read(true).append(true).create(true).create_new(exclusive).mode(FILE_MODE);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path).with_context(|| format!("open {}", path.display()))
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn text(steps: &[Step]) -> String {
        let name = |name: Name| name.path(Path::new("L")).display().to_string();
        let step = |step: &Step| match *step {
            Step::Create => "create".to_owned(),
            Step::Remove(what) => format!("remove {}", name(what)),
            Step::Rename(from, to) => format!("{}>{}", name(from), name(to)),
        };
        steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_free_number_is_used_and_the_oldest_goes_only_if_none_is_free() {
        let (none, plain, gzip, both) =
            ((false, false), (true, false), (false, true), (true, true));
        for (current, rotated, expected) in [
            (true, vec![], "create L.new>L"),
            (false, vec![], "create L.new>L"),
            (false, vec![plain, plain], "create L.new>L"),
            (true, vec![none, none], "create L>L.1 L.new>L"),
            (true, vec![plain, none], "create L.1>L.2 L>L.1 L.new>L"),
            (true, vec![none, plain], "create L>L.1 L.new>L"),
            (true, vec![plain, gzip, none, gzip], "create L.2.gz>L.3.gz L.1>L.2 L>L.1 L.new>L"),
            (true, vec![gzip, plain], "create remove L.2 L.1.gz>L.2.gz L>L.1 L.new>L"),
            (true, vec![plain, gzip], "create remove L.2.gz L.1>L.2 L>L.1 L.new>L"),
            (true, vec![both, none], "create remove L.1.gz L.1>L.2 L>L.1 L.new>L"),
            (true, vec![both], "create remove L.1.gz remove L.1 L>L.1 L.new>L"),
        ] {
            assert_eq!(text(&plan(&Present { current, rotated })), expected);
        }
    }

    /// The plan on a model of a directory: which content has which name.
    fn simulate(files: &mut BTreeMap<String, u32>, steps: &[Step], content: u32) {
        let name = |name: Name| name.path(Path::new("L")).display().to_string();
        for step in steps {
            match *step {
                Step::Create => drop(files.insert(name(Name::New), content)),
                Step::Remove(what) => drop(files.remove(&name(what))),
                Step::Rename(from, to) => {
                    let content = files.remove(&name(from)).expect("what is renamed exists");
                    files.insert(name(to), content);
                }
            }
        }
    }

    fn look(files: &BTreeMap<String, u32>, max_files: u32) -> Present {
        let there = |number, gzip| {
            files.contains_key(
                &Name::Rotated { number, gzip }.path(Path::new("L")).display().to_string(),
            )
        };
        Present {
            current: files.contains_key("L"),
            rotated: (1..max_files)
                .map(|number| (there(number, false), there(number, true)))
                .collect(),
        }
    }

    /// Kills the rotation after every number of steps, then at every step of the one that
    /// follows: the contents stay in order, and no more than the oldest is gone.
    #[test]
    fn a_rotation_killed_at_any_step_loses_and_reorders_nothing() {
        for max_files in 2..6 {
            let full: BTreeMap<String, u32> = (0..max_files)
                .map(|at| if at == 0 { ("L".to_owned(), 0) } else { (format!("L.{at}"), at) })
                .collect();
            let steps = plan(&look(&full, max_files));
            for first_kill in 0..=steps.len() {
                for second_kill in 0.. {
                    let mut files = full.clone();
                    simulate(&mut files, &steps[..first_kill], 100);
                    // The next open makes the current file, if it is missing.
                    files.remove("L.new");
                    files.entry("L".to_owned()).or_insert(100);
                    let again = plan(&look(&files, max_files));
                    if second_kill > again.len() {
                        break;
                    }
                    simulate(&mut files, &again[..second_kill], 101);
                    files.remove("L.new");
                    let rank = |content: u32| {
                        if content >= 100 { 99 - i64::from(content) } else { i64::from(content) }
                    };
                    let mut order: Vec<i64> =
                        files.get("L").into_iter().map(|c| rank(*c)).collect();
                    order.extend(
                        (1..max_files)
                            .filter_map(|n| files.get(&format!("L.{n}")))
                            .map(|c| rank(*c)),
                    );
                    assert!(order.is_sorted(), "{files:?}");
                    let lost = (0..i64::from(max_files)).filter(|old| !order.contains(old)).count();
                    // The last step but one has moved everything.
                    let rotated = usize::from(first_kill + 1 >= steps.len()) + 1;
                    assert!(lost <= rotated, "{files:?} after {first_kill} and {second_kill}");
                }
            }
        }
    }
}
