//! Which containers there are, and which one a text names.

use std::{collections::BTreeMap, sync::Arc};

use hull_manager_core::{Error, Result, name::is_id_prefix};

/// By id and by name. A name may be taken before its container is there.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    by_id: BTreeMap<String, Arc<T>>,
    /// Name to id.
    names: BTreeMap<String, String>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), names: BTreeMap::new() }
    }
}

impl<T> Registry<T> {
    /// Takes a name for a container that is to be.
    pub(crate) fn reserve(&mut self, name: &str, id: &str) -> Result<()> {
        if let Some(owner) = self.names.get(name) {
            return Err(Error::already_exists(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        self.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Whether a container of this id is being created.
    pub(crate) fn is_reserved(&self, id: &str) -> bool {
        self.names.values().any(|owner| owner == id)
    }

    /// Gives a name back, if it is still this container's.
    pub(crate) fn release(&mut self, name: &str, id: &str) {
        if self.names.get(name).is_some_and(|owner| owner == id) {
            self.names.remove(name);
        }
    }

    pub(crate) fn insert(&mut self, id: &str, container: Arc<T>) {
        self.by_id.insert(id.to_owned(), container);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.by_id.remove(id);
        self.names.retain(|_, owner| owner != id);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.by_id.values()
    }

    /// The container of a full id, a name (with or without `/`), or a unique start of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<T>> {
        let missing = || Error::not_found(format!("No such container: {text}"));
        if text.is_empty() {
            return Err(Error::invalid("a container's name or id is missing"));
        }
        if let Some(container) = self.by_id.get(text) {
            return Ok(Arc::clone(container));
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(container) = self.names.get(name).and_then(|id| self.by_id.get(id)) {
            return Ok(Arc::clone(container));
        }
        if !is_id_prefix(text) {
            return Err(missing());
        }
        let mut found =
            self.by_id.range(text.to_owned()..).take_while(|(id, _)| id.starts_with(text));
        match (found.next(), found.next()) {
            (Some((_, container)), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("multiple IDs found with provided prefix: {text}")))
            }
            (None, _) => Err(missing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry<&'static str> {
        let mut registry = Registry::default();
        for (id, name) in [("abc1", "one"), ("abd2", "abc"), ("ff03", "three")] {
            registry.reserve(name, id).unwrap();
            registry.insert(id, Arc::new(id));
        }
        registry
    }

    #[test]
    fn ids_come_before_names_and_names_before_prefixes() {
        let registry = registry();
        for (text, id) in
            [("abc1", "abc1"), ("abc", "abd2"), ("/one", "abc1"), ("f", "ff03"), ("abd", "abd2")]
        {
            assert_eq!(*registry.find(text).unwrap(), id, "{text}");
        }
        for (text, message) in [
            ("ab", "multiple IDs found with provided prefix: ab"),
            ("x", "No such container: x"),
            ("fff", "No such container: fff"),
            ("../one", "No such container: ../one"),
        ] {
            assert_eq!(registry.find(text).unwrap_err().message(), message);
        }
        assert!(registry.find("").is_err());
    }

    #[test]
    fn a_name_is_taken_once_and_free_after_its_container() {
        let mut registry = registry();
        let error = registry.reserve("one", "new").unwrap_err();
        assert_eq!(
            error.message(),
            "Conflict. The container name \"/one\" is already in use by container \"abc1\". \
             You have to remove (or rename) that container to be able to reuse that name."
        );
        registry.release("one", "other");
        assert!(registry.reserve("one", "new").is_err());
        registry.remove("abc1");
        registry.reserve("one", "new").unwrap();
        assert!(registry.find("one").is_err(), "not there yet");
    }
}
