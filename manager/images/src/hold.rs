//! Layers that somebody is about to use.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

use hull_manager_core::Result;
use hull_specs_image::Digest;

use crate::Images;

/// How often each chain id is held.
pub(crate) type Holds = HashMap<Digest, usize>;

/// Keeps layers from being removed while it lives, also such that are not there yet.
pub struct Hold {
    images: Images,
    chains: Vec<Digest>,
    /// They may be of no image when this ends: then they go.
    fresh: bool,
}

impl Images {
    /// Holds layers that are there.
    pub(crate) fn hold(&self, chains: &[Digest]) -> Hold {
        self.new_hold(chains, false)
    }

    /// Holds layers of an image that is being made.
    pub(crate) fn hold_fresh(&self, chains: &[Digest]) -> Hold {
        self.new_hold(chains, true)
    }

    fn new_hold(&self, chains: &[Digest], fresh: bool) -> Hold {
        let mut holds = self.holds();
        for chain in chains {
            *holds.entry(*chain).or_default() += 1;
        }
        Hold { images: self.clone(), chains: chains.to_vec(), fresh }
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.shared.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `remove` unless somebody holds the layer; nobody begins to hold it meanwhile.
    pub(crate) fn unless_held(
        &self,
        chain: &Digest,
        remove: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        let holds = self.holds();
        if holds.contains_key(chain) { Ok(false) } else { remove() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        {
            let mut holds = self.images.holds();
            for chain in &self.chains {
                match holds.get_mut(chain) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(holds.remove(chain)),
                }
            }
        }
        if self.fresh {
            for chain in self.chains.iter().rev() {
                if let Err(error) = self.images.remove_layer(chain) {
                    tracing::warn!(%chain, %error, "a layer of no image stays");
                }
            }
        }
    }
}
