//! `hull ps`.

use std::{
    io::{IsTerminal as _, stdout},
    time::SystemTime,
};

use anyhow::Result;
use hull_specs_api::v1::{Container, ListContainersRequest, mount::Type};
use hull_specs_docker::{network_settings, ports, status, time, units};

use crate::{
    args::container::PsArgs,
    connect::Manager,
    failure::refused,
    format::{List, Value, list::chosen, text},
    options::keyvalue,
    terminal::output::print,
};

const COLUMNS: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("LocalVolumes", "LOCAL VOLUMES"),
];

/// docker's old form; the size only where it is asked for.
const RAW: &[(&str, &str)] = &[
    ("container_id", "ID"),
    ("image", "Image"),
    ("command", "Command"),
    ("created_at", "CreatedAt"),
    ("state", "State"),
    ("status", "Status"),
    ("names", "Names"),
    ("labels", "Labels"),
    ("ports", "Ports"),
    ("size", "Size"),
];

/// Lists containers.
pub(crate) async fn list(manager: &Manager, args: &PsArgs) -> Result<u8> {
    let columns = if args.size { format!("{COLUMNS}\t{{{{.Size}}}}") } else { COLUMNS.to_owned() };
    let shown = RAW.len() - usize::from(!args.size);
    let fields = RAW.get(..shown).unwrap_or_default();
    let format = chosen(args.format.as_deref(), args.quiet, fields);
    let list = List::new(format.as_deref(), &columns, HEADINGS, stdout().is_terminal())?;
    let limit = if args.latest { 1 } else { u32::try_from(args.last).unwrap_or(0) };
    let request = ListContainersRequest {
        all: args.all || limit > 0,
        limit,
        // Sizes take a walk over the containers' layers.
        size: args.size || (!args.quiet && args.format.is_some() && list.uses("Size")),
        filters: keyvalue::filters(&args.filter),
    };
    let answer = manager.containers().list(request).await.map_err(refused)?.into_inner();
    let now = SystemTime::now();
    let rows: Vec<_> = answer.containers.iter().map(|of| row(of, args.no_trunc, now)).collect();
    print(&list.render(&rows)?)?;
    Ok(0)
}

/// A container as templates see it.
pub(crate) fn row(of: &Container, whole: bool, now: SystemTime) -> Value {
    let command = command(&of.args);
    let command = if whole { command } else { text::ellipsis(&command, 20) };
    let state = of.state.clone().unwrap_or_default();
    let mounts: Vec<_> = of
        .mounts
        .iter()
        // Of --tmpfs.
        .filter(|mount| mount.r#type() != Type::Tmpfs)
        .map(|mount| {
            let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
            if whole { name.clone() } else { text::ellipsis(name, 15) }
        })
        .collect();
    let volumes = of.mounts.iter().filter(|mount| mount.r#type() == Type::Volume).count();
    let mut labels: Vec<_> = of.labels.iter().collect();
    labels.sort();
    let list: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let age = units::span(time::age_seconds(of.created.as_ref(), now));
    let mut row = Value::row([
        ("ID", if whole { of.id.clone() } else { text::short_id(&of.id).to_owned() }),
        ("Image", image(of, whole)),
        ("Command", text::quote(&command)),
        ("CreatedAt", time::table(of.created.as_ref())),
        ("RunningFor", format!("{age} ago")),
        ("Ports", ports::column(of)),
        ("Names", of.name.clone()),
        ("Status", status::sentence(&state, now)),
        ("State", status::word(state.status()).to_owned()),
        ("Size", size(of)),
        ("Labels", list.join(",")),
        ("Mounts", mounts.join(",")),
        ("LocalVolumes", volumes.to_string()),
        ("Networks", network_settings::names(of).join(",")),
    ]);
    row.push_labels(&of.labels);
    row
}

/// The words with blanks between. As for docker, those that have blanks stand in quotation marks,
/// the program's name never does, and quotation marks within are left alone.
fn command(args: &[String]) -> String {
    let quoted = |(at, word): (usize, &String)| match word.contains(' ') && at > 0 {
        true => format!("'{word}'"),
        false => word.clone(),
    };
    args.iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

fn image(of: &Container, whole: bool) -> String {
    match of.image.strip_prefix("sha256:") {
        Some(id) if !whole => text::short_id(id).to_owned(),
        _ if of.image.is_empty() => "<no image>".to_owned(),
        _ => of.image.clone(),
    }
}

fn size(of: &Container) -> String {
    let own = units::decimal_with(of.size_rw_bytes.unwrap_or_default(), 3);
    match of.size_root_bytes {
        Some(all) if all > 0 => format!("{own} (virtual {})", units::decimal_with(all, 3)),
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use hull_specs_api::v1::{ContainerState, MountPoint, Status};
    use prost_types::Timestamp;

    use super::*;

    fn container() -> Container {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        Container {
            id: "38b97d4188720e06cd5164e46065e53ff83a72407e770adbd0a9fb461848d888".into(),
            name: "one".into(),
            image: "busybox".into(),
            created: at(1_795_280_446),
            args: ["sh", "-c", "touch /new; echo hi; sleep 1000"].map(Into::into).to_vec(),
            state: Some(ContainerState {
                status: Status::Exited.into(),
                exit_code: 3,
                finished: at(1_795_280_446),
                ..ContainerState::default()
            }),
            mounts: vec![MountPoint {
                r#type: Type::Volume.into(),
                name: "vol1".into(),
                ..MountPoint::default()
            }],
            labels: [("a", "b"), ("c.d", "e")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..Container::default()
        }
    }

    #[test]
    fn commands_are_quoted_as_docker_quotes() {
        for (args, text) in [
            (vec!["sh", "-c", "echo 'a b' \"c\"; sleep 1"], "sh -c 'echo 'a b' \"c\"; sleep 1'"),
            (vec!["a b", "it's", "", "\"q\"", "a\nb", "$x"], "a b it's  \"q\" a\nb $x"),
            (vec![], ""),
        ] {
            let args: Vec<_> = args.into_iter().map(str::to_owned).collect();
            assert_eq!(command(&args), text);
        }
        let of = Container { args: vec!["a b".into(), "\"q\" c".into()], ..container() };
        let row = row(&of, true, UNIX_EPOCH);
        assert_eq!(row.field("Command"), Some(&Value::Text("\"a b '\\\"q\\\" c'\"".into())));
    }

    #[test]
    fn rows_are_those_of_docker() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_280_447);
        let rows = [row(&container(), false, now)];
        let print = |format: Option<&str>| {
            List::new(format, COLUMNS, HEADINGS, true).unwrap().render(&rows).unwrap()
        };
        assert_eq!(
            print(None),
            "CONTAINER ID   IMAGE     COMMAND                  CREATED        STATUS                    PORTS     NAMES\n\
             38b97d418872   busybox   \"sh -c 'touch /new; \u{2026}\"   1 second ago   Exited (3) 1 second ago             one\n"
        );
        assert_eq!(
            print(Some("json")),
            "{\"Command\":\"\\\"sh -c 'touch /new; \u{2026}\\\"\",\"CreatedAt\":\"2026-11-21 17:00:46 +0000 UTC\",\"ID\":\"38b97d418872\",\"Image\":\"busybox\",\"Labels\":\"a=b,c.d=e\",\"LocalVolumes\":\"1\",\"Mounts\":\"vol1\",\"Names\":\"one\",\"Networks\":\"bridge\",\"Ports\":\"\",\"RunningFor\":\"1 second ago\",\"Size\":\"0B\",\"State\":\"exited\",\"Status\":\"Exited (3) 1 second ago\"}\n"
        );
        assert_eq!(
            print(Some("table {{.ID}}\\t{{.Names}}\\t{{.Label \"a\"}}")),
            "CONTAINER ID   NAMES     a\n38b97d418872   one       b\n"
        );
    }
}
