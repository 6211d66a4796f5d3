//! The definitions in their directory: one file a network, any file of a user's too.
//!
//! | killed in … after … | left | `open` |
//! | --- | --- | --- |
//! | create, the file | a network without its bridge | a network: `ensure` makes the bridge |
//! | remove, its rename into `.removed` | a bridge, and a file out of sight | removes both |

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind::NotFound,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use hull_manager_core::{
    Error, Result,
    error::IoContext as _,
    files::{private_directory, write_atomic},
    name::is_id_prefix,
};

use crate::definition::{Definition, Driver};

const REMOVED: &str = ".removed";
const EXTENSION: &str = "conflist";

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A network that is known.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) definition: Arc<Definition>,
    pub(crate) file: PathBuf,
}

/// All that are known, by name.
pub(crate) struct Catalog {
    root: PathBuf,
    known: BTreeMap<String, Known>,
    /// When the directory was read: what changes in it later changes its time.
    read: Option<SystemTime>,
}

impl Catalog {
    /// Of the directory `root`, which is made.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        private_directory(root, 0o700)?;
        private_directory(&root.join(REMOVED), 0o700)?;
        let mut catalog = Self { root: root.to_owned(), known: BTreeMap::new(), read: None };
        catalog.refresh()?;
        Ok(catalog)
    }

    /// Takes up files that a user has put there or taken away since. What cannot be read is
    /// reported in the log and is no network.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        let about = || self.root.display();
        let changed = fs::metadata(&self.root).and_then(|m| m.modified()).about(about())?;
        // A change within the clock's resolution of the reading is not seen in the time.
        let settled = changed.elapsed().is_ok_and(|age| age.as_millis() > 50);
        if self.read == Some(changed) && settled {
            return Ok(());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.root).about(about())? {
            let path = entry.about(about())?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push(path);
            }
        }
        files.sort();
        self.known.retain(|_, known| {
            // Ours are removed by request only: somebody must remove the bridge.
            files.contains(&known.file) || !matches!(known.definition.driver, Driver::Plugins(_))
        });
        for file in files {
            if self.known.values().any(|known| known.file == file) {
                continue;
            }
            match read(&file) {
                Ok(definition) => self.take_up(definition, file),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "not a network");
                }
            }
        }
        self.read = Some(changed);
        Ok(())
    }

    fn take_up(&mut self, definition: Definition, file: PathBuf) {
        if let Some(other) = self.known.get(&definition.name) {
            tracing::warn!(
                file = %file.display(),
                other = %other.file.display(),
                "a second network of the same name is ignored"
            );
            return;
        }
        let known = Known { definition: Arc::new(definition), file };
        self.known.insert(known.definition.name.clone(), known);
    }

    /// By name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Known> {
        self.known.get(name)
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Known> {
        self.known.values().find(|known| known.definition.id == id)
    }

    /// One by its id, its name, or the beginning of its id.
    pub(crate) fn find(&self, text: &str) -> Result<Known> {
        if let Some(known) = self.by_id(text).or_else(|| self.by_name(text)) {
            return Ok(known.clone());
        }
        let mut found = self
            .known
            .values()
            .filter(|known| is_id_prefix(text) && known.definition.id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(known), None) => Ok(known.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "network {text} is ambiguous (2 matches found based on ID prefix)"
            ))),
            _ => Err(Error::not_found(format!("network {} not found", text.escape_debug()))),
        }
    }

    /// Writes a definition, in place of one of the same name.
    pub(crate) fn put(&mut self, definition: Definition) -> Result<Arc<Definition>> {
        let file = self.root.join(format!("{}.{EXTENSION}", definition.name));
        write_atomic(&file, &definition.to_list()?, 0o600)?;
        self.sync()?;
        let definition = Arc::new(definition);
        let known = Known { definition: Arc::clone(&definition), file };
        self.known.insert(definition.name.clone(), known);
        Ok(definition)
    }

    /// Forgets one; its file goes out of sight until `forget` is told that nothing is left.
    pub(crate) fn set_aside(&mut self, known: &Known) -> Result<PathBuf> {
        let aside = self.root.join(REMOVED).join(&known.definition.id);
        match fs::rename(&known.file, &aside) {
            Err(error) if error.kind() != NotFound => {
                return Err(error).about(known.file.display());
            }
            _ => {}
        }
        self.sync()?;
        self.known.remove(&known.definition.name);
        Ok(aside)
    }

    fn sync(&self) -> Result<()> {
        let directory = fs::File::open(&self.root).about(self.root.display())?;
        directory.sync_all().about(self.root.display())
    }

    /// Those that were being removed, with their files.
    pub(crate) fn aside(&self) -> Result<Vec<(Option<Definition>, PathBuf)>> {
        let root = self.root.join(REMOVED);
        let entries = fs::read_dir(&root).about(root.display())?;
        entries
            .map(|entry| {
                let file = entry.about(root.display())?.path();
                Ok((read(&file).ok(), file))
            })
            .collect()
    }
}

/// After all that it speaks of is gone.
pub(crate) fn forget(aside: &Path) -> Result<()> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != NotFound => Err(error).about(aside.display()),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> Result<Definition> {
    let metadata = fs::metadata(file).about(file.display())?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(Error::invalid("it is no file of at most 1 MiB".to_owned()));
    }
    // With the plugins that are in files of their own.
    let list = hull_manager_cni::read_list(file)?;
    let content = serde_json::to_vec(&list).map_err(anyhow::Error::new)?;
    Definition::from_list(&content, metadata.modified().about(file.display())?)
}
