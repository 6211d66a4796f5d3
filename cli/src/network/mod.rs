//! Commands on networks.

mod audit;

use std::io::{IsTerminal as _, stdout};

use anyhow::{Result, anyhow, bail};
use hull_specs_api::v1::{
    ConnectNetworkRequest, CreateNetworkRequest, DisconnectNetworkRequest, EndpointOptions, Ipam,
    ListNetworksRequest, Network, PruneNetworksRequest, RemoveNetworkRequest,
};
use hull_specs_docker::time;

use crate::{
    args::network::{Command, ConnectArgs, CreateArgs, ListArgs, PruneArgs},
    connect::Manager,
    container::{
        inspect::{self, Ask, Kind},
        prune::list as paragraph,
    },
    each::each,
    failure::refused,
    format::{List, Value, list::chosen, order, text},
    options::keyvalue,
    prompt, report,
    terminal::output::print,
};

const COLUMNS: &str = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
const HEADINGS: &[(&str, &str)] = &[("ID", "NETWORK ID"), ("CreatedAt", "CREATED AT")];

/// Carries out a command: its exit code.
pub(crate) async fn command(manager: &Manager, command: Command) -> Result<u8> {
    match command {
        Command::Audit(args) => audit::audit(manager, args).await,
        Command::Connect(args) => connect(manager, args).await,
        Command::Create(args) => create(manager, args).await,
        Command::Disconnect(args) => {
            let request = DisconnectNetworkRequest {
                network: args.network,
                container: args.container,
                force: args.force,
            };
            manager.networks().disconnect(request).await.map_err(refused)?;
            Ok(0)
        }
        Command::Inspect(args) => {
            let traffic = args.verbose;
            let ask = Ask { kinds: &[Kind::Network], size: false, platform: "", traffic };
            inspect::documents(manager, &ask, &args.networks, args.format.as_deref()).await
        }
        Command::Ls(args) => list(manager, &args).await,
        Command::Prune(args) => prune(manager, args).await,
        Command::Rm(args) => {
            let force = args.force;
            each(&args.networks, |network| async move {
                let request = RemoveNetworkRequest { network: network.clone(), force };
                manager.networks().remove(request).await.map_err(refused)?;
                Ok(network)
            })
            .await
        }
    }
}

async fn create(manager: &Manager, args: CreateArgs) -> Result<u8> {
    let pools = args.pools().map_err(|why| anyhow!(why))?;
    if args.ingress {
        bail!("--ingress is an option of swarms, which hull does not have");
    }
    if args.config_only && args.scope.is_some() {
        bail!("--config-only and --scope conflict: a configuration has no scope");
    }
    let request = CreateNetworkRequest {
        name: args.network,
        driver: args.driver,
        options: keyvalue::map(&args.opt),
        labels: keyvalue::map(&args.label),
        internal: args.internal,
        attachable: args.attachable,
        ipv4: args.ipv4,
        ipv6: args.ipv6,
        ipam: Some(Ipam {
            driver: args.ipam_driver,
            options: keyvalue::map(&args.ipam_opt),
            pools,
        }),
        config_only: args.config_only,
        config_from: args.config_from.unwrap_or_default(),
    };
    let answer = manager.networks().create(request).await.map_err(refused)?.into_inner();
    for warning in &answer.warnings {
        report::line(&format!("WARNING: {warning}"));
    }
    print(&format!("{}\n", answer.id))?;
    Ok(0)
}

async fn connect(manager: &Manager, args: ConnectArgs) -> Result<u8> {
    let endpoint = EndpointOptions {
        network: args.network,
        aliases: args.alias,
        links: args.link,
        ipv4_address: args.ip.unwrap_or_default(),
        ipv6_address: args.ip6.unwrap_or_default(),
        link_local_addresses: args.link_local_ip,
        mac_address: String::new(),
        driver_options: keyvalue::map(&args.driver_opt),
        gateway_priority: args.gw_priority,
    };
    let request = ConnectNetworkRequest { container: args.container, endpoint: Some(endpoint) };
    manager.networks().connect(request).await.map_err(refused)?;
    Ok(0)
}

async fn list(manager: &Manager, args: &ListArgs) -> Result<u8> {
    let raw = [("network_id", "ID"), ("name", "Name"), ("driver", "Driver"), ("scope", "Scope")];
    let format = chosen(args.format.as_deref(), args.quiet, &raw);
    let list = List::new(format.as_deref(), COLUMNS, HEADINGS, stdout().is_terminal())?;
    let request = ListNetworksRequest { filters: keyvalue::filters(&args.filter) };
    let answer = manager.networks().list(request).await.map_err(refused)?.into_inner();
    let mut networks = answer.networks;
    networks.sort_by(|a, b| order::natural(&a.name, &b.name));
    let rows: Vec<_> = networks.iter().map(|of| row(of, args.no_trunc)).collect();
    print(&list.render(&rows)?)?;
    Ok(0)
}

fn row(of: &Network, whole: bool) -> Value {
    let mut labels: Vec<_> = of.labels.iter().collect();
    labels.sort();
    let list: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut row = Value::row([
        ("CreatedAt", time::table(of.created.as_ref())),
        ("Driver", of.driver.clone()),
        ("ID", if whole { of.id.clone() } else { text::short_id(&of.id).to_owned() }),
        ("IPv4", of.ipv4.to_string()),
        ("IPv6", of.ipv6.to_string()),
        ("Internal", of.internal.to_string()),
        ("Labels", list.join(",")),
        ("Name", of.name.clone()),
        ("Scope", of.scope.clone()),
    ]);
    row.push_labels(&of.labels);
    row
}

async fn prune(manager: &Manager, args: PruneArgs) -> Result<u8> {
    let warning = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] ";
    if !args.force && !prompt::confirm(warning)? {
        return Ok(0);
    }
    print(&pruned(manager, &args.filter).await?)?;
    Ok(0)
}

/// Prunes: what is told.
pub(crate) async fn pruned(manager: &Manager, filter: &[(String, String)]) -> Result<String> {
    let request = PruneNetworksRequest { filters: keyvalue::filters(filter) };
    let answer = manager.networks().prune(request).await.map_err(refused)?.into_inner();
    Ok(paragraph("Deleted Networks:", &answer.removed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_docker() {
        let network = Network {
            id: "38b97d4188720e06cd5164e46065e53ff83a72407e770adbd0a9fb461848d888".into(),
            name: "web".into(),
            driver: "bridge".into(),
            scope: "local".into(),
            ipv4: true,
            created: Some(prost_types::Timestamp { seconds: 1_795_280_446, nanos: 0 }),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Network::default()
        };
        assert_eq!(
            row(&network, false).json(),
            r#"{"CreatedAt":"2026-11-21 17:00:46 +0000 UTC","Driver":"bridge","ID":"38b97d418872","IPv4":"true","IPv6":"false","Internal":"false","Labels":"a=b","Name":"web","Scope":"local"}"#
        );
        let list = List::new(None, COLUMNS, HEADINGS, true).unwrap();
        assert_eq!(
            list.render(&[row(&network, false)]).unwrap(),
            "NETWORK ID     NAME      DRIVER    SCOPE\n38b97d418872   web       bridge    local\n"
        );
    }
}
