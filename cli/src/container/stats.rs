//! `hull stats`.

use std::io::{IsTerminal as _, stdout};

use anyhow::Result;
use hull_specs_api::v1::{ContainerStats, InterfaceStats, StatsRequest};
use hull_specs_docker::units;

use crate::{
    args::container::StatsArgs,
    connect::Manager,
    failure::refused,
    format::{List, Value, text},
    terminal::output::print,
};

const COLUMNS: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
const HEADINGS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    // Not docker's: received and sent, as NetIO.
    ("NetPackets", "NET PACKETS"),
    ("NetErrors", "NET ERRORS"),
    ("NetDrops", "NET DROPS"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
/// To the upper left, and clear from there to the end, as docker does between tables.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows what containers use, once or until interrupted.
pub(crate) async fn stats(manager: &Manager, args: StatsArgs) -> Result<u8> {
    let terminal = stdout().is_terminal();
    let list = List::new(args.format.as_deref(), COLUMNS, HEADINGS, terminal)?;
    let request = StatsRequest {
        containers: args.containers.clone(),
        stream: !args.no_stream,
        one_shot: false,
        all: args.all,
    };
    let mut answers = manager.containers().stats(request).await.map_err(refused)?.into_inner();
    while let Some(answer) = answers.message().await.map_err(refused)? {
        let rows: Vec<_> = answer
            .containers
            .iter()
            .enumerate()
            .map(|(at, of)| row(of, args.containers.get(at), args.no_trunc))
            .collect();
        let table = list.render(&rows)?;
        // Docker clears in its own formats only on terminals.
        print(&if args.no_stream || !terminal { table } else { format!("{CLEAR}{table}") })?;
        if args.no_stream {
            break;
        }
    }
    Ok(0)
}

fn row(of: &ContainerStats, asked: Option<&String>, whole: bool) -> Value {
    let id = if whole { of.id.clone() } else { text::short_id(&of.id).to_owned() };
    let pair = |a: u64, b: u64, unit: fn(u64) -> String| format!("{} / {}", unit(a), unit(b));
    let net = |of_one: fn(&InterfaceStats) -> (u64, u64)| {
        let add = |(a, b): (u64, u64), (c, d): (u64, u64)| (a + c, b + d);
        let (received, sent) = of.interfaces.iter().map(of_one).fold((0, 0), add);
        format!("{received} / {sent}")
    };
    let decimal: fn(u64) -> String = |bytes| units::decimal_with(bytes, 3);
    #[expect(clippy::cast_precision_loss, reason = "a percentage with two digits")]
    let memory_percent = if of.memory_limit_bytes == 0 {
        0.0
    } else {
        of.memory_usage_bytes as f64 / of.memory_limit_bytes as f64 * 100.0
    };
    Value::row([
        ("Container", asked.cloned().unwrap_or_else(|| id.clone())),
        ("ID", id),
        ("Name", of.name.clone()),
        ("CPUPerc", format!("{:.2}%", of.cpu_percent)),
        ("MemUsage", pair(of.memory_usage_bytes, of.memory_limit_bytes, units::binary)),
        ("MemPerc", format!("{memory_percent:.2}%")),
        ("NetDrops", net(|one| (one.received_dropped, one.sent_dropped))),
        ("NetErrors", net(|one| (one.received_errors, one.sent_errors))),
        ("NetIO", pair(of.network_received_bytes, of.network_sent_bytes, decimal)),
        ("NetPackets", net(|one| (one.received_packets, one.sent_packets))),
        ("BlockIO", pair(of.block_read_bytes, of.block_write_bytes, decimal)),
        ("PIDs", of.pids.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_dockers() {
        let of = ContainerStats {
            id: "d763af5452d7517de7cc".into(),
            name: "live".into(),
            memory_usage_bytes: 368 << 10,
            memory_limit_bytes: 25_276_510_208,
            pids: 1,
            interfaces: [1, 10]
                .map(|n| InterfaceStats {
                    received_packets: n,
                    sent_packets: 2 * n,
                    received_errors: 3 * n,
                    sent_errors: 4 * n,
                    received_dropped: 5 * n,
                    sent_dropped: 6 * n,
                    ..InterfaceStats::default()
                })
                .into(),
            ..ContainerStats::default()
        };
        let list = List::new(None, COLUMNS, HEADINGS, true).unwrap();
        assert_eq!(
            list.render(&[row(&of, None, false)]).unwrap(),
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O   BLOCK I/O   PIDS\n\
             d763af5452d7   live      0.00%     368KiB / 23.54GiB   0.00%     0B / 0B   0B / 0B     1\n"
        );
        assert_eq!(
            row(&of, None, false).json(),
            r#"{"BlockIO":"0B / 0B","CPUPerc":"0.00%","Container":"d763af5452d7","ID":"d763af5452d7","MemPerc":"0.00%","MemUsage":"368KiB / 23.54GiB","Name":"live","NetDrops":"55 / 66","NetErrors":"33 / 44","NetIO":"0B / 0B","NetPackets":"11 / 22","PIDs":"1"}"#
        );
        let columns = "table {{.Name}}\t{{.NetPackets}}\t{{.NetErrors}}\t{{.NetDrops}}";
        let list = List::new(Some(columns), COLUMNS, HEADINGS, true).unwrap();
        assert_eq!(
            list.render(&[row(&of, None, false)]).unwrap(),
            "NAME      NET PACKETS   NET ERRORS   NET DROPS\nlive      11 / 22       33 / 44      55 / 66\n"
        );
    }
}
