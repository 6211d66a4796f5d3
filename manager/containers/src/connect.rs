//! `network connect` and `disconnect`: which networks a container is in, now and at its starts.

use std::sync::Arc;

use hull_manager_core::{Error, Result};
use hull_manager_spec as spec;
use hull_specs_api::v1;

use crate::{
    Containers, handle::Request, network::Attached, owner::Owner, prepare, record::Record,
};

/// The network that a mode names; "bridge" where it says nothing.
fn first(options: &v1::ContainerOptions) -> &str {
    known(&options.network_mode)
}

fn known(network: &str) -> &str {
    if matches!(network, "" | "default") { "bridge" } else { network }
}

/// Refuses for modes that have no networks of their own.
fn check(options: &v1::ContainerOptions, network: &str) -> Result<()> {
    let mode = first(options);
    if spec::container_of(mode).is_some() {
        return Err(Error::conflict(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    if mode == "host" || network == "host" {
        return Err(Error::conflict(
            "container cannot be disconnected from host network or connected to host network",
        ));
    }
    if mode == "none" || network == "none" {
        return Err(Error::conflict(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    Ok(())
}

/// The options with one more network.
fn with(options: &mut v1::ContainerOptions, endpoint: &v1::EndpointOptions) -> Result<()> {
    let name = &endpoint.network;
    let known = options.networks.iter().any(|other| known(&other.network) == name);
    if !options.left_network && first(options) == name || known {
        return Err(Error::denied(format!(
            "endpoint with name {} already exists in network {name}",
            options.name
        )));
    }
    options.networks.push(endpoint.clone());
    Ok(())
}

/// The names of networks that a container has and should not, and those that it should have and
/// has not. One without any has none of its own, or has lost its last, and gets it at its start.
fn difference(
    has: &[v1::Endpoint],
    options: &v1::ContainerOptions,
) -> (Vec<String>, Vec<v1::EndpointOptions>) {
    if has.is_empty() {
        return Default::default();
    }
    let is = |at: &v1::Endpoint, text: &str| {
        let text = known(text);
        at.network == text || at.network_id.starts_with(text)
    };
    let mut wanted = options.networks.clone();
    if !wanted.iter().any(|endpoint| known(&endpoint.network) == first(options)) {
        let network = first(options).to_owned();
        wanted.insert(0, v1::EndpointOptions { network, ..Default::default() });
    }
    let more = has.iter().filter(|at| !wanted.iter().any(|endpoint| is(at, &endpoint.network)));
    let more = more.map(|at| at.network.clone()).collect();
    wanted.retain(|endpoint| !has.iter().any(|at| is(at, &endpoint.network)));
    (more, wanted)
}

/// The options without a network. The first one's place is taken by the next; if there is none,
/// the container is in no network, also after its next start.
fn without(options: &mut v1::ContainerOptions, name: &str) -> bool {
    let is_first = !options.left_network && first(options) == name;
    let before = options.networks.len();
    options.networks.retain(|endpoint| known(&endpoint.network) != name);
    if is_first {
        match options.networks.first() {
            Some(next) => options.network_mode.clone_from(&next.network),
            None => options.left_network = true,
        }
    }
    is_first || options.networks.len() < before
}

/// The lines of `/etc/hosts` with the new ones in place of the old: what the container has
/// written there itself stays.
fn replaced(text: &str, old: &[String], new: &[String]) -> String {
    let mut old: Vec<&str> = old.iter().map(String::as_str).collect();
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        match old.iter().position(|ours| *ours == line) {
            Some(at) => {
                old.remove(at);
            }
            None => lines.push(line),
        }
    }
    lines.extend(new.iter().map(String::as_str));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

impl Owner {
    pub(crate) async fn connect(&mut self, mut endpoint: v1::EndpointOptions) -> Result<()> {
        let record = self.record();
        endpoint.network = self.inner.parts.network.name_of(&endpoint.network).await?;
        check(&record.effective, &endpoint.network)?;
        let mut changed = Record::clone(&record);
        with(&mut changed.effective, &endpoint)?;
        self.inner.parts.network.accept(&changed.effective)?;
        if let Some(options) = &mut changed.container.options {
            options.networks.push(endpoint.clone());
        }
        if self.handle.now().is_live() {
            let attached = self.inner.parts.network.connect(&self.handle.id, &endpoint).await?;
            self.has(attached).await;
        }
        self.inner.records.update(&changed)?;
        self.handle.set_record(changed);
        Ok(())
    }

    pub(crate) async fn disconnect(&mut self, network: &str, force: bool) -> Result<()> {
        let record = self.record();
        let name = match self.inner.parts.network.name_of(network).await {
            // By force also one that is gone.
            Err(_) if force => network.to_owned(),
            name => name?,
        };
        check(&record.effective, &name)?;
        let mut changed = Record::clone(&record);
        if !without(&mut changed.effective, &name) {
            return Err(Error::denied(format!(
                "container {} is not connected to network {name}",
                self.handle.id
            )));
        }
        if let Some(options) = &mut changed.container.options {
            without(options, &name);
        }
        if self.handle.now().is_live() {
            match self.inner.parts.network.disconnect(&self.handle.id, &name).await {
                Ok(attached) => self.has(attached).await,
                Err(error) if force => {
                    tracing::warn!(container = %self.handle.id, %error, "disconnected by force");
                }
                Err(error) => return Err(error),
            }
        }
        self.inner.records.update(&changed)?;
        self.handle.set_record(changed);
        Ok(())
    }

    /// Of a container that outlived the manager: what an interrupted connect has made goes, and
    /// what an interrupted disconnect has taken comes back. Whoever asked has had no answer.
    pub(crate) async fn complete(&mut self, mut attached: Attached) -> Attached {
        let record = self.record();
        let (more, missing) = difference(&attached.endpoints, &record.effective);
        for network in more {
            match self.inner.parts.network.disconnect(&self.handle.id, &network).await {
                Ok(left) => attached = left,
                Err(error) => {
                    tracing::warn!(container = %self.handle.id, %error, "not disconnected");
                }
            }
        }
        for endpoint in missing {
            match self.inner.parts.network.connect(&self.handle.id, &endpoint).await {
                Ok(whole) => attached = whole,
                Err(error) => {
                    tracing::warn!(container = %self.handle.id, %error, "not connected again");
                }
            }
        }
        attached
    }

    /// Notes what a running container has now, and brings its files up to date.
    async fn has(&self, attached: Attached) {
        let before = self.handle.attached();
        let (new, resolv_conf) = (attached.hosts.clone(), attached.resolv_conf.clone());
        self.handle.set_attached(Some(attached));
        let old = before.as_ref().map(|before| before.hosts.clone()).unwrap_or_default();
        let same = before.is_some_and(|before| before.resolv_conf == resolv_conf);
        let directory = self.inner.directory(&self.handle.id);
        let write = move || -> std::io::Result<()> {
            let path = directory.join(prepare::HOSTS);
            let text = std::fs::read_to_string(&path)?;
            // In place: it is mounted in the container.
            std::fs::write(&path, replaced(&text, &old, &new))?;
            if !same {
                std::fs::write(directory.join(prepare::RESOLV_CONF), resolv_conf)?;
            }
            Ok(())
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(container = %self.handle.id, %error, "its files are not up to date");
        }
    }
}

impl Containers {
    /// As in networks.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn connect(
        &self,
        request: v1::ConnectNetworkRequest,
    ) -> Result<v1::ConnectNetworkResponse> {
        let endpoint = request.endpoint.filter(|endpoint| !endpoint.network.is_empty());
        let endpoint = endpoint.ok_or_else(|| Error::invalid("the network is missing"))?;
        let handle = self.find(&request.container)?;
        handle.order(Request::Connect(Box::new(endpoint)), &request.container).await?;
        Ok(v1::ConnectNetworkResponse {})
    }

    /// As in networks.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn disconnect(
        &self,
        request: v1::DisconnectNetworkRequest,
    ) -> Result<v1::DisconnectNetworkResponse> {
        let handle = self.find(&request.container)?;
        let disconnect = Request::Disconnect { network: request.network, force: request.force };
        handle.order(disconnect, &request.container).await?;
        Ok(v1::DisconnectNetworkResponse {})
    }
}

/// Names and ids of the networks that a container is in; if it does not run: names of those that
/// it will be in.
pub(crate) fn networks<'a>(
    container: &'a v1::Container,
    effective: &'a v1::ContainerOptions,
) -> Vec<&'a str> {
    if container.endpoints.is_empty() {
        let others = effective.networks.iter().map(|endpoint| known(&endpoint.network));
        let first = (!effective.left_network).then(|| first(effective));
        return first.into_iter().chain(others).collect();
    }
    let endpoints = container.endpoints.iter();
    endpoints.flat_map(|at| [at.network.as_str(), at.network_id.as_str()]).collect()
}

/// What a container has that runs.
pub(crate) fn fill(container: &mut v1::Container, attached: Option<&Arc<Attached>>) {
    if let Some(attached) = attached {
        container.endpoints.clone_from(&attached.endpoints);
        container.published.clone_from(&attached.published);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(network: &str) -> v1::EndpointOptions {
        v1::EndpointOptions { network: network.into(), ..Default::default() }
    }

    fn options(mode: &str, networks: &[&str]) -> v1::ContainerOptions {
        v1::ContainerOptions {
            name: "c".into(),
            network_mode: mode.into(),
            networks: networks.iter().map(|name| endpoint(name)).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn one_network_more_and_one_less() {
        for (mode, networks, add, works) in [
            ("", &[][..], "web", true),
            ("", &[], "bridge", false),
            ("", &["default"], "bridge", false),
            ("a", &["b"], "b", false),
            ("a", &["b"], "bridge", true),
        ] {
            assert_eq!(
                with(&mut options(mode, networks), &endpoint(add)).is_ok(),
                works,
                "{mode} {add}"
            );
        }
        for (mode, networks, remove, works, left) in [
            ("", &[][..], "bridge", true, ""),
            ("", &["default", "web"], "bridge", true, "web"),
            ("a", &["b", "c"], "a", true, "b"),
            ("a", &["b"], "b", true, "a"),
            ("a", &["b"], "c", false, "a"),
        ] {
            let mut options = options(mode, networks);
            assert_eq!(without(&mut options, remove), works, "{mode} {remove}");
            assert_eq!(options.network_mode, left, "{mode} {remove}");
        }
        let mut options = options("a", &[]);
        assert!(without(&mut options, "a") && !without(&mut options, "a"));
        with(&mut options, &endpoint("a")).unwrap();
        with(&mut options, &endpoint("a")).unwrap_err();
        assert!(without(&mut options, "a") && options.networks.is_empty());
    }

    #[test]
    fn what_was_interrupted_is_what_differs() {
        let at = |name: &str| v1::Endpoint {
            network: name.into(),
            network_id: format!("{name}0123"),
            ..Default::default()
        };
        for (has, mode, networks, more, missing) in [
            (&["bridge"][..], "", &[][..], &[][..], &[][..]),
            (&["bridge", "db"], "", &["default"], &["db"], &[]),
            (&["web"], "web012", &["db"], &[], &["db"]),
            (&["db"], "web", &["db"], &[], &["web"]),
            (&[], "web", &["db"], &[], &[]),
        ] {
            let has: Vec<_> = has.iter().map(|name| at(name)).collect();
            let (found, lost) = difference(&has, &options(mode, networks));
            let lost: Vec<_> = lost.into_iter().map(|endpoint| endpoint.network).collect();
            assert_eq!((&found[..], &lost[..]), (&words(more)[..], &words(missing)[..]), "{mode}");
        }
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn modes_without_networks_of_their_own_are_refused() {
        for (mode, network, works) in [
            ("", "web", true),
            ("container:x", "web", false),
            ("host", "web", false),
            ("web", "host", false),
            ("none", "web", false),
            ("web", "none", false),
        ] {
            assert_eq!(check(&options(mode, &[]), network).is_ok(), works, "{mode} {network}");
        }
    }

    #[test]
    fn what_a_container_wrote_itself_stays() {
        let ours = |list: &[&str]| list.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let text = "127.0.0.1\tlocalhost\n172.17.0.2\tc\n# mine\n172.17.0.2\tc\n";
        assert_eq!(
            replaced(text, &ours(&["172.17.0.2\tc"]), &ours(&["172.17.0.2\tc", "10.0.0.2\tc"])),
            "127.0.0.1\tlocalhost\n# mine\n172.17.0.2\tc\n172.17.0.2\tc\n10.0.0.2\tc\n"
        );
    }
}
