//! Commands that tell something of one container: `top`, `diff`, `port`, `why`.

use std::io::{IsTerminal as _, stdout};

use anyhow::{Result, anyhow, bail};
use hull_specs_api::v1::{
    Container, DiffRequest, InspectContainerRequest, TopRequest, TopResponse, WhyRequest,
    WhyResponse, change::Kind,
};
use hull_specs_docker::{ports, units};
use serde_json::json;

use crate::{
    args::container::{NameArgs, PortArgs, TopArgs, WhyArgs},
    connect::Manager,
    failure::refused,
    format::{List, Value, tabwriter, text},
    terminal::output::print,
};

fn shown(value: String) -> String {
    if stdout().is_terminal() { text::escape(&value) } else { value }
}

/// `top`.
pub(crate) async fn top(manager: &Manager, args: TopArgs) -> Result<u8> {
    let Some((container, ps_args)) = args.words.split_first() else { bail!("no container") };
    let request = TopRequest { container: container.clone(), ps_args: ps_args.to_vec() };
    let answer = manager.containers().top(request).await.map_err(refused)?.into_inner();
    print(&processes(&answer))?;
    Ok(0)
}

fn processes(answer: &TopResponse) -> String {
    let cell = |word: &String| shown(word.clone()).replace(['\n', '\t'], " ");
    let line = |words: &[String]| words.iter().map(cell).collect::<Vec<_>>().join("\t");
    let mut lines = line(&answer.titles);
    for process in &answer.processes {
        lines.push('\n');
        lines.push_str(&line(&process.words));
    }
    lines.push('\n');
    tabwriter::align(&lines, 20, 3)
}

/// `diff`.
pub(crate) async fn diff(manager: &Manager, args: NameArgs) -> Result<u8> {
    let request = DiffRequest { container: args.container };
    let answer = manager.containers().diff(request).await.map_err(refused)?.into_inner();
    let mut lines = String::new();
    for change in answer.changes {
        let kind = match change.kind() {
            Kind::Modified => 'C',
            Kind::Added => 'A',
            Kind::Deleted => 'D',
        };
        lines.push_str(&format!("{kind} {}\n", shown(change.path)));
    }
    print(&lines)?;
    Ok(0)
}

/// `port`.
pub(crate) async fn port(manager: &Manager, args: PortArgs) -> Result<u8> {
    let request = InspectContainerRequest { container: args.container.clone(), size: false };
    let answer = manager.containers().inspect(request).await.map_err(refused)?.into_inner();
    let lines = published(&answer.container.unwrap_or_default(), args.port.as_deref());
    print(&lines.map_err(|why| anyhow!("{why} for {}", args.container))?)?;
    Ok(0)
}

/// The addresses of one port, or all ports with theirs.
fn published(of: &Container, wanted: Option<&str>) -> Result<String, String> {
    let mut lines = String::new();
    let Some(wanted) = wanted else {
        for port in ports::sorted(of) {
            let container_port = format!("{}/{}", port.container_port, port.protocol);
            lines.push_str(&format!("{container_port} -> {}\n", ports::host(port)));
        }
        return Ok(lines);
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let Ok(number) = number.parse::<u16>() else {
        return Err(format!("invalid port ({wanted})"));
    };
    for port in ports::sorted(of) {
        if port.container_port == u32::from(number) && port.protocol == protocol {
            lines.push_str(&format!("{}\n", ports::host(port)));
        }
    }
    if lines.is_empty() {
        return Err(format!("no public port '{number}/{protocol}' published"));
    }
    Ok(lines)
}

/// `why`.
pub(crate) async fn why(manager: &Manager, args: WhyArgs) -> Result<u8> {
    let request = WhyRequest { container: args.container };
    let answer = manager.containers().why(request).await.map_err(refused)?.into_inner();
    let text = match &args.format {
        None => shown(reasons(&answer)),
        Some(format) => {
            let row = Value::of(&json!({
                "Verdict": answer.verdict,
                "Facts": answer.facts,
                "Advice": answer.advice,
                "Output": answer.output,
                "ExitCode": answer.state.as_ref().map(|state| state.exit_code),
                "PeakMemory": answer.peak_memory_bytes,
            }))?;
            List::new(Some(format), "", &[], stdout().is_terminal())?.render(&[row])?
        }
    };
    print(&text)?;
    Ok(0)
}

fn reasons(answer: &WhyResponse) -> String {
    let mut lines = format!("{}\n", answer.verdict);
    let mut paragraph = |title: &str, items: &[String]| {
        if !items.is_empty() {
            lines.push_str(&format!("\n{title}\n"));
            lines.extend(items.iter().map(|item| format!("  {}\n", item.trim_end())));
        }
    };
    paragraph("What is known:", &facts(answer));
    paragraph("What helps:", &answer.advice);
    paragraph("Its last output:", &answer.output);
    lines
}

fn facts(answer: &WhyResponse) -> Vec<String> {
    let mut facts = answer.facts.clone();
    let seconds = answer.run_time.and_then(|time| u64::try_from(time.seconds).ok());
    facts.extend(
        seconds.map(|seconds| format!("it ran for {}", units::span(seconds).to_lowercase())),
    );
    facts.extend(
        answer
            .peak_memory_bytes
            .map(|bytes| format!("at most it used {} of memory", units::binary(bytes))),
    );
    facts
}

#[cfg(test)]
mod tests {
    use hull_specs_api::v1::Words;

    use super::*;

    #[test]
    fn processes_are_a_table_of_docker() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let answer = TopResponse {
            titles: words("PID COMMAND"),
            processes: vec![Words { words: words("767 sleep") }],
        };
        assert_eq!(processes(&answer), "PID                 COMMAND\n767                 sleep\n");
    }

    #[test]
    fn published_ports_are_told_as_docker_tells_them() {
        use hull_specs_api::v1::PublishedPort;
        let port = |host_ip: &str, host_port, container_port| PublishedPort {
            host_ip: host_ip.into(),
            host_port,
            container_port,
            protocol: "tcp".into(),
            ..PublishedPort::default()
        };
        let of = Container {
            published: vec![port("::", 8080, 80), port("0.0.0.0", 8080, 80), port("::1", 9, 9)],
            ..Container::default()
        };
        for (wanted, text) in [
            (None, Ok("9/tcp -> [::1]:9\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n")),
            (Some("80"), Ok("0.0.0.0:8080\n[::]:8080\n")),
            (Some("9/tcp"), Ok("[::1]:9\n")),
            (Some("80/udp"), Err("no public port '80/udp' published")),
            (Some("x"), Err("invalid port (x)")),
        ] {
            let found = published(&of, wanted);
            assert_eq!(found.as_deref().map_err(String::as_str), text, "{wanted:?}");
        }
        assert_eq!(published(&Container::default(), None).as_deref(), Ok(""));
    }

    #[test]
    fn reasons_are_told_in_paragraphs() {
        let answer = WhyResponse {
            verdict: "killed by SIGKILL: out of memory (limit 64 MiB)".into(),
            advice: vec!["give it more memory".into()],
            peak_memory_bytes: Some(64 << 20),
            ..WhyResponse::default()
        };
        assert_eq!(
            reasons(&answer),
            "killed by SIGKILL: out of memory (limit 64 MiB)\n\nWhat is known:\n  at most it used 64MiB of memory\n\nWhat helps:\n  give it more memory\n"
        );
    }
}
