//! `hull network audit`: who can reach what, port by port, and why.

use std::io::{IsTerminal as _, stdout};

use anyhow::Result;
use hull_specs_api::v1::{AuditNetworksRequest, Reach};

use crate::{
    args::network::AuditArgs,
    connect::Manager,
    failure::refused,
    format::{List, Value},
    report,
    terminal::output::print,
};

const COLUMNS: &str =
    "{{.From}}\t{{.To}}\t{{.Port}}\t{{.Container}}\t{{.Network}}\t{{.Verdict}}\t{{.Why}}";

pub(super) async fn audit(manager: &Manager, args: AuditArgs) -> Result<u8> {
    let list = List::new(args.format.as_deref(), COLUMNS, &[], stdout().is_terminal())?;
    let request = AuditNetworksRequest { network: args.network.unwrap_or_default() };
    let answer = manager.networks().audit(request).await.map_err(refused)?.into_inner();
    let rows: Vec<_> = answer.reaches.iter().map(row).collect();
    print(&list.render(&rows)?)?;
    for note in &answer.notes {
        report::line(&format!("NOTE: {note}"));
    }
    Ok(0)
}

fn row(of: &Reach) -> Value {
    let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
    let number = |port: u32| if port == 0 { "all".to_owned() } else { port.to_string() };
    let mut port = format!("{}/{}", number(of.port), or(&of.protocol, "all"));
    if of.container_port != 0 && of.container_port != of.port {
        port.push_str(&format!("->{}", of.container_port));
    }
    Value::row([
        ("Container", or(&of.container, "all")),
        ("ContainerID", of.container_id.clone()),
        ("From", of.from.clone()),
        ("Network", of.network.clone()),
        ("Port", port),
        ("To", or(&of.address, "all")),
        ("Verdict", verdict(of).to_owned()),
        ("Why", of.why.clone()),
    ])
}

fn verdict(of: &Reach) -> &'static str {
    match (of.host_decides, of.allowed) {
        (true, _) => "host decides",
        (false, true) => "yes",
        (false, false) => "no",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_the_managers_or_the_hosts() {
        let said = |host_decides, allowed| {
            verdict(&Reach { host_decides, allowed, ..Reach::default() }).to_owned()
        };
        assert_eq!(
            [said(false, true), said(false, false), said(true, false), said(true, true)],
            ["yes", "no", "host decides", "host decides"]
        );
    }

    #[test]
    fn a_reach_is_a_row() {
        let reach = Reach {
            from: "anywhere".into(),
            network: "bridge".into(),
            container: "web".into(),
            address: "0.0.0.0".into(),
            port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            allowed: true,
            why: "published".into(),
            ..Reach::default()
        };
        let rest = Reach { from: "anywhere".into(), network: "bridge".into(), ..Reach::default() };
        let list = List::new(None, COLUMNS, &[], true).unwrap();
        assert_eq!(
            list.render(&[row(&reach), row(&rest)]).unwrap(),
            "FROM       TO        PORT           CONTAINER   NETWORK   VERDICT   WHY\n\
             anywhere   0.0.0.0   8080/tcp->80   web         bridge    yes       published\n\
             anywhere   all       all/all        all         bridge    no        \n"
        );
    }
}
