//! Networks that only say how others are to be made (`--config-only`, `--config-from`).

use hull_manager_core::{Error, Result, name::random_id};
use hull_specs_api::v1;

use crate::{
    Inner,
    catalog::Catalog,
    create::now,
    definition::{Definition, Driver, Families},
    ipam::Pool,
};

/// The definition of a configuration, from what a user asks.
pub(crate) fn configuration(request: &v1::CreateNetworkRequest) -> Result<Definition> {
    if !request.config_from.is_empty() {
        return Err(Error::denied(
            "a configuration network cannot depend on another configuration network".to_owned(),
        ));
    }
    if request.internal || request.attachable {
        return Err(Error::denied(
            "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.".to_owned(),
        ));
    }
    let ipam = request.ipam.clone().unwrap_or_default();
    if !matches!(ipam.driver.as_str(), "" | "default") || !ipam.options.is_empty() {
        return Err(Error::unimplemented(
            "a configuration has no other IPAM than the default one, and no options of it"
                .to_owned(),
        ));
    }
    let asked = ipam.pools.iter().filter(|pool| **pool != v1::IpamPool::default());
    Ok(Definition {
        id: random_id()?,
        name: request.name.clone(),
        created: now(),
        labels: request.labels.clone().into_iter().collect(),
        options: request.options.clone().into_iter().collect(),
        internal: false,
        attachable: false,
        config_from: String::new(),
        driver: Driver::Configuration(Families { ipv4: request.ipv4, ipv6: request.ipv6 }),
        pools: asked.map(|pool| Pool::parse(pool, false)).collect::<Result<_>>()?,
    })
}

/// A request with what its configuration says.
pub(crate) fn configured(
    request: &v1::CreateNetworkRequest,
    catalog: &Catalog,
) -> Result<v1::CreateNetworkRequest> {
    let name = &request.config_from;
    let known = catalog.by_name(name).map(|known| &*known.definition);
    let Some((from, Driver::Configuration(families))) = known.map(|known| (known, &known.driver))
    else {
        return Err(Error::not_found(format!(
            "configuration network \"{}\" does not exist",
            name.escape_debug()
        )));
    };
    let ipam = request.ipam.clone().unwrap_or_default();
    let own = request.ipv4.is_some()
        || request.ipv6.is_some()
        || !matches!(ipam.driver.as_str(), "" | "default")
        || !ipam.options.is_empty()
        || !ipam.pools.is_empty()
        || !request.labels.is_empty()
        || !request.options.is_empty();
    if own {
        return Err(Error::denied(
            "user specified configurations are not supported if the network depends on a configuration network"
                .to_owned(),
        ));
    }
    Ok(v1::CreateNetworkRequest {
        options: from.options.clone().into_iter().collect(),
        labels: from.labels.clone().into_iter().collect(),
        ipv4: families.ipv4,
        ipv6: families.ipv6,
        ipam: Some(v1::Ipam {
            pools: from.pools.iter().map(Pool::to_message).collect(),
            ..Default::default()
        }),
        ..request.clone()
    })
}

impl Inner {
    /// Whether networks have been made from this configuration.
    pub(crate) fn is_copied(&self, configuration: &Definition) -> bool {
        matches!(configuration.driver, Driver::Configuration(_))
            && self
                .state()
                .catalog
                .all()
                .any(|known| known.definition.config_from == configuration.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut v1::CreateNetworkRequest)) -> v1::CreateNetworkRequest {
        let mut request = v1::CreateNetworkRequest { name: "cfg".into(), ..Default::default() };
        change(&mut request);
        request
    }

    fn ipam(subnet: &str) -> Option<v1::Ipam> {
        let pool = v1::IpamPool { subnet: subnet.into(), ..Default::default() };
        Some(v1::Ipam { pools: vec![pool], ..Default::default() })
    }

    #[test]
    fn a_configuration_gives_what_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(directory.path()).unwrap();
        let made = configuration(&request(|r| {
            r.ipam = ipam("10.9.0.0/24");
            r.ipv6 = Some(false);
            r.labels = [("a".to_owned(), "b".to_owned())].into();
            r.options = [("com.docker.network.driver.mtu".to_owned(), "1400".to_owned())].into();
        }))
        .unwrap();
        catalog.put(made.clone()).unwrap();
        let mut again = Catalog::open(directory.path()).unwrap();
        again.refresh().unwrap();
        assert_eq!(*again.by_name("cfg").unwrap().definition, made);
        let from = |change: fn(&mut v1::CreateNetworkRequest)| {
            let mut request = request(|r| r.config_from = "cfg".into());
            change(&mut request);
            configured(&request, &again)
        };
        let whole = from(|_| {}).unwrap();
        assert_eq!(whole.ipam, ipam("10.9.0.0/24"));
        assert_eq!((whole.ipv4, whole.ipv6), (None, Some(false)));
        assert_eq!((whole.labels.len(), whole.options.len()), (1, 1));
        type Change = fn(&mut v1::CreateNetworkRequest);
        let cases: [(Change, &str); 4] = [
            (|r| r.ipam = ipam("10.8.0.0/24"), "user specified"),
            (|r| r.ipv6 = Some(true), "user specified"),
            (|r| r.labels = [("x".to_owned(), String::new())].into(), "user specified"),
            (|r| r.config_from = "nosuch".into(), "\"nosuch\" does not exist"),
        ];
        for (change, says) in cases {
            let error = from(change).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_configuration_is_of_networks_only() {
        type Change = fn(&mut v1::CreateNetworkRequest);
        let cases: [(Change, &str); 4] = [
            (|r| r.config_from = "other".into(), "cannot depend on another"),
            (|r| r.internal = true, "Network operator fields"),
            (|r| r.attachable = true, "Network operator fields"),
            (|r| r.ipam = ipam("10.9.0.1/24"), "it should be"),
        ];
        for (change, says) in cases {
            let error = configuration(&request(change)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
