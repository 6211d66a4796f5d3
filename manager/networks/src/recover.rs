//! After a start: what was left is taken away, what should be there is made.

use std::collections::{BTreeSet, HashMap};

use hull_manager_core::Result;

use crate::{Inner, catalog};

impl Inner {
    /// Plugins are not waited for: what is theirs to take away is [`Inner::collect`]'s.
    pub(crate) fn recover(&self, live: &[String]) -> Result<()> {
        let live: BTreeSet<_> = live.iter().map(String::as_str).collect();
        let aside = self.state().catalog.aside()?;
        for (definition, file) in aside {
            let removed = definition.map_or(Ok(()), |network| self.unmake(&network));
            match removed {
                Ok(()) => catalog::forget(&file)?,
                Err(error) => tracing::warn!(file = %file.display(), %error, "not removed"),
            }
        }
        let mut gone: BTreeSet<String> = self.host.namespaces.ids()?.into_iter().collect();
        gone.extend(self.records.sandboxes()?.into_iter().map(|sandbox| sandbox.container));
        gone.retain(|id| !live.contains(id.as_str()));
        gone.extend(self.records.leaving()?);
        for container in &gone {
            if self.is_by_plugins(&self.records.of_container(container)?) {
                self.records.set_leaving(container)?;
            } else if let Err(error) = self.detach(container) {
                tracing::warn!(%container, %error, "not disconnected");
            }
        }
        self.remember_last()?;
        self.ensure_default()?;
        let all: Vec<_> = self.state().catalog.all().cloned().collect();
        for known in all {
            if let Err(error) = self.establish(&known.definition) {
                tracing::warn!(network = %known.definition.name, %error, "not there");
            }
        }
        self.replace_rules()
    }

    /// After that: plugins take away what they have for containers that are none any more, each
    /// network's beside the others'.
    pub(crate) fn collect(&self) -> Result<()> {
        for container in self.records.leaving()? {
            let _turn = self.turn(&container);
            // It may have started again meanwhile.
            if self.records.is_leaving(&container)?
                && let Err(error) = self.detach(&container)
            {
                tracing::warn!(%container, %error, "not disconnected");
            }
        }
        self.collect_by_plugins()
    }

    /// The highest address of each network counts as the last one that was given out: so those
    /// that were given back lately rest.
    fn remember_last(&self) -> Result<()> {
        let mut last = HashMap::new();
        for endpoint in self.records.all()? {
            for net in endpoint.addresses() {
                let key = (endpoint.network.clone(), net.addr().is_ipv4());
                let highest = last.entry(key).or_insert(net.addr());
                *highest = (*highest).max(net.addr());
            }
        }
        self.state().last = last;
        Ok(())
    }
}
