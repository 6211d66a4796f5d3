//! The rules in force: kept as data, sent as differences.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, bail};
use nix::errno::Errno;

use crate::{
    conntrack,
    host::{self, HostChain, HostHook},
    legacy,
    netlink::Socket,
    nft::Family,
    rules::{Endpoint, Network, Port, Protocol, Rules},
    ruleset::{self, Elements, Situation},
};

/// How the packet filter is to behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of our tables, one of family inet and one of family bridge.
    pub table: String,
    /// Without it no rule is ever made (`iptables=false`): every call is remembered only.
    pub enabled: bool,
    /// How the host's loopback reaches published ports.
    pub loopback: Loopback,
    /// Whether published ports are held by sockets, so that no other program gets them. Not where
    /// the caller ends at once, and somebody else holds them.
    pub hold_ports: bool,
}

/// How the host's loopback reaches published ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// By the proxy (`userland-proxy=true`). It needs nothing of the host, and works for `::1`.
    #[default]
    Proxy,
    /// By translation in the kernel (`userland-proxy=false`). For 127.0.0.0/8 only, and only while
    /// `net.ipv4.conf.BRIDGE.route_localnet` is 1, which is the caller's to set.
    Translate,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: "hull".into(),
            enabled: true,
            loopback: Loopback::default(),
            hold_ports: true,
        }
    }
}

/// The packet filter of one network namespace: that of the thread that opened it. A copy is
/// another handle of the same.
///
/// A call is one transaction of tens of microseconds to some milliseconds, and blocks for it.
#[derive(Clone)]
pub struct Firewall(Arc<Inner>);

struct Inner {
    settings: Settings,
    state: Mutex<State>,
}

struct State {
    /// None if we make no rules.
    socket: Option<Socket>,
    table: String,
    rules: Rules,
    situation: Situation,
    /// Whose each published port is.
    owners: HashMap<Place, String>,
}

type Place = (Protocol, IpAddr, u16);

/// New values for parts of the rules; none is to remove. After [`State::exchange`] it holds the
/// old ones, so that a second exchange undoes the first.
#[derive(Default)]
struct Edit {
    network: Option<(String, Option<Network>)>,
    endpoints: Vec<(String, Option<Endpoint>)>,
}

impl Firewall {
    /// Opens it. Nothing is changed yet, and whatever an earlier process left stays in force
    /// until [`Firewall::replace`].
    ///
    /// # Errors
    /// When the kernel has no nftables, or without `CAP_NET_ADMIN`.
    pub fn open(settings: Settings) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let table = &settings.table;
        if !(1..=64).contains(&table.len()) || !table.bytes().all(plain) {
            bail!("invalid name {table:?} of a table of nftables");
        }
        let mut state = State {
            socket: settings.enabled.then(|| Socket::open(0)).transpose()?,
            table: table.clone(),
            rules: Rules::default(),
            situation: Situation {
                loopback_translated: settings.loopback == Loopback::Translate,
                input_closed: false,
                isolates: false,
            },
            owners: HashMap::new(),
        };
        state.look()?;
        Ok(Self(Arc::new(Inner { settings, state: Mutex::new(state) })))
    }

    /// These rules and no others, in one transaction: there is no moment without rules, and none
    /// with half of them.
    ///
    /// # Errors
    /// When the rules contradict themselves ([`Rules::check`]) or the kernel refuses; then the
    /// old ones stay in force.
    pub fn replace(&self, rules: Rules) -> Result<()> {
        rules.check()?;
        let mut state = self.state();
        state.look()?;
        let old = std::mem::replace(&mut state.rules, rules);
        state.situation.isolates = state.rules.isolates();
        if let Err(error) = state.install() {
            state.rules = old;
            state.situation.isolates = state.rules.isolates();
            return Err(error);
        }
        state.owners = state
            .rules
            .endpoints
            .values()
            .flat_map(|endpoint| {
                endpoint.ports.iter().map(|port| (place(port), endpoint.interface.clone()))
            })
            .collect();
        Ok(())
    }

    /// Adds a network, or changes it.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub fn put_network(&self, network: Network) -> Result<()> {
        network.check()?;
        let edit =
            Edit { network: Some((network.bridge.clone(), Some(network))), endpoints: vec![] };
        self.state().change(edit)
    }

    /// Removes a network with its endpoints. One that is not there is fine.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub fn remove_network(&self, bridge: &str) -> Result<()> {
        let mut state = self.state();
        let endpoints = state.rules.endpoints.values();
        let endpoints = endpoints.filter(|endpoint| endpoint.bridge == bridge);
        let endpoints = endpoints.map(|endpoint| (endpoint.interface.clone(), None)).collect();
        state.change(Edit { network: Some((bridge.to_owned(), None)), endpoints })
    }

    /// Adds an endpoint with its links and ports, or changes it, in one transaction. Flows of
    /// ports that lead elsewhere now are forgotten, so that the next packet goes the new way.
    ///
    /// # Errors
    /// When its network is not there, a port of it is another endpoint's, or the kernel refuses;
    /// then nothing has changed.
    pub fn put_endpoint(&self, endpoint: Endpoint) -> Result<()> {
        endpoint.check()?;
        let mut state = self.state();
        if !state.rules.networks.contains_key(&endpoint.bridge) {
            bail!("the bridge {} is not of a network of ours", endpoint.bridge);
        }
        for port in &endpoint.ports {
            let owner = state.owners.get(&place(port));
            if let Some(owner) = owner.filter(|owner| **owner != endpoint.interface) {
                bail!("port {port} leads to {owner} already");
            }
        }
        let endpoints = vec![(endpoint.interface.clone(), Some(endpoint))];
        state.change(Edit { network: None, endpoints })
    }

    /// Removes an endpoint with its ports. One that is not there is fine.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub fn remove_endpoint(&self, interface: &str) -> Result<()> {
        self.state().change(Edit { network: None, endpoints: vec![(interface.to_owned(), None)] })
    }

    /// What is in force.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.state().rules.clone()
    }

    /// Whether the host's own input policy decides over published ports at the moment: while
    /// another table drops what comes in by default, they are the proxy's. Packets go to a socket
    /// of the host, by way of the host's rules, which decide as they do for any service. The
    /// container sees the gateway's address then.
    #[must_use]
    pub fn is_input_closed(&self) -> bool {
        self.state().situation.input_closed
    }

    /// The host's own chains that drop what comes by unless a rule of theirs takes it, as they
    /// are now. Without rules of ours ([`Settings::enabled`])
    /// the calling thread's network namespace is asked.
    ///
    /// # Errors
    /// When the kernel has no nftables, or does not answer.
    pub fn closed_by_host(&self, at: HostHook) -> Result<Vec<HostChain>> {
        let mut state = self.state();
        let table = state.table.clone();
        let mut closed = match &mut state.socket {
            Some(socket) => host::closed(socket, &table, at)?,
            None => host::closed(&mut Socket::open(0)?, &table, at)?,
        };
        if at != HostHook::Arriving && legacy::is_closed(at)? {
            closed.push(HostChain::of_legacy(at));
        }
        Ok(closed)
    }

    /// Removes both tables.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<()> {
        let mut state = self.state();
        state.rules = Rules::default();
        state.owners.clear();
        let table = state.table.clone();
        let Some(socket) = &mut state.socket else { return Ok(()) };
        let mut batch = socket.batch(&table);
        batch.remove_table(Family::Bridge);
        batch.remove_table(Family::Inet);
        socket.commit(batch)
    }

    /// Puts the tables back as they should be.
    pub(crate) fn restore(&self) -> Result<()> {
        self.state().install()
    }

    /// Looks at the host's own rules again, and follows them: nobody tells of those by the older
    /// iptables. In the network namespace that the firewall was opened in.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn follow_the_host(&self) -> Result<()> {
        let mut state = self.state();
        let before = state.situation;
        state.look()?;
        if state.situation == before { Ok(()) } else { state.install() }
    }

    /// Whether the tables are there with all that belongs into them.
    pub(crate) fn is_intact(&self) -> Result<bool> {
        self.state().is_intact()
    }

    /// The number by which notifications name our own changes.
    pub(crate) fn port(&self) -> Result<Option<u32>> {
        self.state().socket.as_ref().map(Socket::port).transpose()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete or undone before a panic could come.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn look(&mut self) -> Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        self.situation.input_closed = legacy::is_closed(HostHook::Input)?
            || !host::closed(socket, &self.table, HostHook::Input)?.is_empty();
        Ok(())
    }

    fn install(&mut self) -> Result<()> {
        let elements = self.all_elements();
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let mut batch = socket.batch(&self.table);
        for table in ruleset::tables(self.situation) {
            batch.remove_table(table.family);
            batch.make_table(&table);
        }
        batch.add_elements(&elements);
        socket.commit(batch)
    }

    fn change(&mut self, mut edit: Edit) -> Result<()> {
        let before = self.elements(&edit);
        self.exchange(&mut edit);
        let after = self.elements(&edit);
        let subnets = if edit.network.is_some() { self.rules.check_subnets() } else { Ok(()) };
        let isolates = self.rules.isolates();
        let changes_chains = std::mem::replace(&mut self.situation.isolates, isolates) != isolates;
        let sent = subnets.and_then(|()| match changes_chains {
            true => self.install(),
            false => self.send(&before, &after),
        });
        if let Err(error) = sent {
            self.exchange(&mut edit);
            self.situation.isolates = self.rules.isolates();
            return Err(error);
        }
        self.settle(&edit);
        Ok(())
    }

    /// The elements of all that an edit touches, as the rules are now.
    fn elements(&self, edit: &Edit) -> Elements {
        let mut elements = Elements::new();
        let mut add = |endpoint: &Endpoint| {
            if let Some(network) = self.rules.networks.get(&endpoint.bridge) {
                elements.extend(ruleset::of_endpoint(endpoint, network, self.situation));
            }
        };
        if let Some((bridge, _)) = &edit.network {
            self.rules.endpoints.values().filter(|e| e.bridge == *bridge).for_each(&mut add);
        }
        for (interface, _) in &edit.endpoints {
            self.rules.endpoints.get(interface).into_iter().for_each(&mut add);
        }
        if let Some(network) =
            edit.network.as_ref().and_then(|(bridge, _)| self.rules.networks.get(bridge))
        {
            elements.extend(ruleset::of_network(network));
        }
        elements
    }

    fn all_elements(&self) -> Elements {
        let mut elements = Elements::new();
        for network in self.rules.networks.values() {
            elements.extend(ruleset::of_network(network));
        }
        for endpoint in self.rules.endpoints.values() {
            if let Some(network) = self.rules.networks.get(&endpoint.bridge) {
                elements.extend(ruleset::of_endpoint(endpoint, network, self.situation));
            }
        }
        elements
    }

    fn exchange(&mut self, edit: &mut Edit) {
        if let Some((bridge, network)) = &mut edit.network {
            let new = network.take();
            *network = self.rules.networks.remove(bridge);
            self.rules.networks.extend(new.map(|new| (bridge.clone(), new)));
        }
        for (interface, endpoint) in &mut edit.endpoints {
            let new = endpoint.take();
            *endpoint = self.rules.endpoints.remove(interface);
            self.rules.endpoints.extend(new.map(|new| (interface.clone(), new)));
        }
    }

    fn send(&mut self, before: &Elements, after: &Elements) -> Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let mut batch = socket.batch(&self.table);
        batch.remove_elements(before.difference(after));
        batch.add_elements(after.difference(before));
        let Err(error) = socket.commit(batch) else { return Ok(()) };
        // Something of ours is not there, or more than we put there: somebody flushed the
        // table, or this is the first change.
        let foreign = [Errno::ENOENT, Errno::EEXIST, Errno::EBUSY];
        match error.downcast_ref::<Errno>() {
            Some(errno) if foreign.contains(errno) => self.install(),
            _ => Err(error),
        }
    }

    /// After an edit, which holds what was before: whose the ports are, and flows to nowhere.
    fn settle(&mut self, edit: &Edit) {
        let mut lost = Vec::new();
        let mut won = Vec::new();
        for (interface, old) in &edit.endpoints {
            let new = self.rules.endpoints.get(interface);
            let old = old.as_ref().map(|old| &old.ports[..]).unwrap_or_default();
            let new = new.map(|new| &new.ports[..]).unwrap_or_default();
            lost.extend(old.iter().filter(|port| !new.contains(port)));
            for port in new.iter().filter(|port| !old.contains(port)) {
                won.push((port, interface));
            }
        }
        for port in &lost {
            self.owners.remove(&place(port));
        }
        for (port, interface) in &won {
            self.owners.insert(place(port), (*interface).clone());
        }
        let Some(socket) = &mut self.socket else { return };
        let won: Vec<_> = won.into_iter().map(|(port, _)| port).collect();
        if let Err(error) = conntrack::forget(socket, &lost, &won) {
            // The rules are right; flows from before die by their timeouts.
            tracing::warn!(error = format!("{error:#}"), "old flows of published ports remain");
        }
    }

    fn is_intact(&mut self) -> Result<bool> {
        let elements = self.all_elements();
        let Some(socket) = &mut self.socket else { return Ok(true) };
        host::is_intact(socket, &self.table, &ruleset::tables(self.situation), &elements)
    }
}

fn place(port: &Port) -> Place {
    (port.protocol, port.host_address, port.host_port)
}
