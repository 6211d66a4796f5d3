//! What removing means: pure, and by docker's rules.
//!
//! A name takes references away, and the image with its last; an id takes the image away with
//! its references if they are all of one repository. Containers and images made from it are in
//! the way: running containers and children always, stopped containers unless forced.

use std::collections::BTreeMap;

use hull_manager_core::{Error, Result};
use hull_specs_image::{Digest, Reference};

use crate::{User, lookup::Named};

/// An image and what stands on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) references: Vec<Reference>,
    pub(crate) parent: Option<Digest>,
}

/// All images, and who uses them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) images: BTreeMap<Digest, Node>,
    pub(crate) users: Vec<User>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take this reference away from the image.
    Untag(Reference, Digest),
    /// Remove the image.
    Delete(Digest),
}

/// Of what is in the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Only what force does not help against.
    Hard,
    /// That and stopped containers.
    Used,
    /// That and references.
    All,
}

struct Conflict {
    used: bool,
    error: Error,
}

impl Graph {
    /// What to do, in this order; the graph is what it will be afterwards.
    pub(crate) fn remove(
        &mut self,
        named: &Named,
        typed: &str,
        force: bool,
        prune: bool,
    ) -> Result<Vec<Step>> {
        let id = named.id();
        let mut steps = Vec::new();
        let mut untagged = false;
        match named {
            Named::Reference(reference, _) => {
                let user = self.users.iter().find(|user| user.image == id);
                if let Some(user) = user.filter(|_| !force && is_single(self.references(&id))) {
                    return Err(Error::conflict(format!(
                        "conflict: unable to remove repository reference {typed:?} (must force) - container {} is using its referenced image {}",
                        short(&user.container),
                        id.short()
                    )));
                }
                self.untag(id, reference, &mut steps);
                let name = reference.name();
                let tagged = |other: &Reference| other.name() == name && other.tag().is_some();
                if reference.tag().is_some() && !self.references(&id).iter().any(tagged) {
                    for other in self.references(&id).to_vec() {
                        if other.name() == name {
                            self.untag(id, &other, &mut steps);
                        }
                    }
                }
                if !self.references(&id).is_empty() {
                    return Ok(steps);
                }
                untagged = true;
            }
            Named::Id(_) if is_single(self.references(&id)) => {
                let check = if force { Check::Hard } else { Check::Used };
                if let Some(conflict) = self.conflict(&id, check) {
                    return Err(conflict.error);
                }
                for reference in self.references(&id).to_vec() {
                    self.untag(id, &reference, &mut steps);
                }
            }
            Named::Id(_) => {}
        }
        self.delete(id, force, prune, untagged, &mut steps)?;
        Ok(steps)
    }

    fn delete(
        &mut self,
        id: Digest,
        force: bool,
        prune: bool,
        quiet: bool,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        let check = if force { Check::Hard } else { Check::All };
        if let Some(conflict) = self.conflict(&id, check) {
            // The name is gone; that the image stays is news only where nothing shows why.
            let dangling = self.references(&id).is_empty() && !self.has_children(&id);
            return if quiet && (!dangling || conflict.used) {
                Ok(())
            } else {
                Err(conflict.error)
            };
        }
        for reference in self.references(&id).to_vec() {
            self.untag(id, &reference, steps);
        }
        let parent = self.images.remove(&id).and_then(|node| node.parent);
        steps.push(Step::Delete(id));
        match parent.filter(|parent| prune && self.images.contains_key(parent)) {
            Some(parent) => self.delete(parent, false, true, true, steps),
            None => Ok(()),
        }
    }

    fn conflict(&self, id: &Digest, check: Check) -> Option<Conflict> {
        let conflict = |forcible: bool, used: bool, why: String| {
            let force = if forcible { "must be forced" } else { "cannot be forced" };
            let error = Error::conflict(format!(
                "conflict: unable to delete {} ({force}) - {why}",
                id.short()
            ));
            Some(Conflict { used, error })
        };
        if self.has_children(id) {
            return conflict(false, false, "image has dependent child images".into());
        }
        let user =
            |running| self.users.iter().find(|user| user.image == *id && user.running == running);
        if let Some(user) = user(true) {
            let container = short(&user.container);
            return conflict(
                false,
                true,
                format!("image is being used by running container {container}"),
            );
        }
        if check == Check::All && !self.references(id).is_empty() {
            return conflict(true, false, "image is referenced in multiple repositories".into());
        }
        let user = user(false).filter(|_| check != Check::Hard)?;
        let container = short(&user.container);
        conflict(true, true, format!("image is being used by stopped container {container}"))
    }

    fn has_children(&self, id: &Digest) -> bool {
        self.images.values().any(|node| node.parent == Some(*id))
    }

    /// An image without a reference from which none was made.
    pub(crate) fn is_dangling(&self, id: &Digest) -> bool {
        self.references(id).iter().all(|reference| reference.tag().is_none())
            && !self.has_children(id)
    }

    /// An image without a reference from which another was made.
    pub(crate) fn is_intermediate(&self, id: &Digest) -> bool {
        self.references(id).is_empty() && self.has_children(id)
    }

    pub(crate) fn references(&self, id: &Digest) -> &[Reference] {
        self.images.get(id).map_or(&[], |node| &node.references)
    }

    fn untag(&mut self, id: Digest, reference: &Reference, steps: &mut Vec<Step>) {
        if let Some(node) = self.images.get_mut(&id) {
            node.references.retain(|other| other != reference);
        }
        steps.push(Step::Untag(reference.clone(), id));
    }
}

/// Whether there is at most one tag, and all references are of one repository.
fn is_single(references: &[Reference]) -> bool {
    let tags = references.iter().filter(|reference| reference.tag().is_some()).count();
    let mut names = references.iter().map(Reference::name);
    let first = names.next();
    tags <= 1 && names.all(|name| Some(name) == first)
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests;
