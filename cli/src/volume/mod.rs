//! Commands on volumes.

use std::io::{IsTerminal as _, stdout};

use anyhow::{Result, bail};
use hull_specs_api::v1::{
    CreateVolumeRequest, Filter, ListVolumesRequest, PruneVolumesRequest, RemoveVolumeRequest,
    Volume,
};
use hull_specs_docker::units;

use crate::{
    args::volume::{Command, CreateArgs, ListArgs, PruneArgs},
    connect::Manager,
    container::{
        inspect::{self, Ask, Kind},
        prune::list as paragraph,
    },
    each::each,
    failure::refused,
    format::{List, Value, list::chosen, order},
    options::keyvalue,
    prompt,
    terminal::output::print,
};

const COLUMNS: &str = "{{.Driver}}\t{{.Name}}";
const HEADINGS: &[(&str, &str)] = &[("Name", "VOLUME NAME")];

/// Carries out a command: its exit code.
pub(crate) async fn command(manager: &Manager, command: Command) -> Result<u8> {
    match command {
        Command::Create(args) => create(manager, args).await,
        Command::Inspect(args) => {
            let ask = Ask { kinds: &[Kind::Volume], size: false, platform: "", traffic: false };
            inspect::documents(manager, &ask, &args.volumes, args.format.as_deref()).await
        }
        Command::Ls(args) => list(manager, &args).await,
        Command::Prune(args) => prune(manager, args).await,
        Command::Rm(args) => {
            let force = args.force;
            each(&args.volumes, |name| async move {
                let request = RemoveVolumeRequest { name: name.clone(), force };
                manager.volumes().remove(request).await.map_err(refused)?;
                Ok(name)
            })
            .await
        }
    }
}

async fn create(manager: &Manager, args: CreateArgs) -> Result<u8> {
    let name = match (args.name, args.volume) {
        (Some(_), Some(_)) => {
            bail!(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
            );
        }
        (name, volume) => name.or(volume).unwrap_or_default(),
    };
    let request = CreateVolumeRequest {
        name,
        driver: args.driver,
        labels: keyvalue::map(&args.label),
        options: keyvalue::map(&args.opt),
    };
    let volume = manager.volumes().create(request).await.map_err(refused)?.into_inner();
    print(&format!("{}\n", volume.name))?;
    Ok(0)
}

async fn list(manager: &Manager, args: &ListArgs) -> Result<u8> {
    let raw = [("name", "Name"), ("driver", "Driver")];
    let format = chosen(args.format.as_deref(), args.quiet, &raw);
    let list = List::new(format.as_deref(), COLUMNS, HEADINGS, stdout().is_terminal())?;
    let request = ListVolumesRequest { filters: keyvalue::filters(&args.filter) };
    let answer = manager.volumes().list(request).await.map_err(refused)?.into_inner();
    let mut volumes = answer.volumes;
    volumes.sort_by(|a, b| order::natural(&a.name, &b.name));
    let rows: Vec<_> = volumes.iter().map(row).collect();
    print(&list.render(&rows)?)?;
    Ok(0)
}

/// A volume with its size and the containers that use it.
pub(crate) fn used_row(of: &Volume, bytes: u64) -> Value {
    described(of, of.containers.len().to_string(), units::decimal(bytes))
}

fn row(of: &Volume) -> Value {
    described(of, "N/A".to_owned(), "N/A".to_owned())
}

fn described(of: &Volume, links: String, size: String) -> Value {
    let mut labels: Vec<_> =
        of.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    let unknown = || "N/A".to_owned();
    let mut row = Value::row([
        ("Availability", unknown()),
        ("Driver", of.driver.clone()),
        ("Group", unknown()),
        ("Labels", labels.join(",")),
        ("Links", links),
        ("Mountpoint", of.mountpoint.clone()),
        ("Name", of.name.clone()),
        ("Scope", "local".to_owned()),
        ("Size", size),
        ("Status", unknown()),
    ]);
    row.push_labels(&of.labels);
    row
}

async fn prune(manager: &Manager, args: PruneArgs) -> Result<u8> {
    let what = if args.all { "all local volumes" } else { "anonymous local volumes" };
    let warning = format!(
        "WARNING! This will remove {what} not used by at least one container.\nAre you sure you want to continue? [y/N] "
    );
    if !args.force && !prompt::confirm(&warning)? {
        return Ok(0);
    }
    let (text, reclaimed) = pruned(manager, args.all, &args.filter).await?;
    print(&format!("{text}Total reclaimed space: {}\n", units::decimal(reclaimed)))?;
    Ok(0)
}

/// Prunes: what is told, and the bytes that became free.
pub(crate) async fn pruned(
    manager: &Manager,
    all: bool,
    filter: &[(String, String)],
) -> Result<(String, u64)> {
    let mut filters = keyvalue::filters(filter);
    if all {
        filters.push(Filter { key: "all".to_owned(), values: vec!["true".to_owned()] });
    }
    let answer = manager.volumes().prune(PruneVolumesRequest { filters }).await.map_err(refused)?;
    let answer = answer.into_inner();
    Ok((paragraph("Deleted Volumes:", &answer.removed), answer.reclaimed_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_docker() {
        let volume = Volume {
            name: "vol1".into(),
            driver: "local".into(),
            mountpoint: "/m".into(),
            ..Volume::default()
        };
        assert_eq!(
            row(&volume).json(),
            r#"{"Availability":"N/A","Driver":"local","Group":"N/A","Labels":"","Links":"N/A","Mountpoint":"/m","Name":"vol1","Scope":"local","Size":"N/A","Status":"N/A"}"#
        );
        let list = List::new(None, COLUMNS, HEADINGS, true).unwrap();
        assert_eq!(
            list.render(&[row(&volume)]).unwrap(),
            "DRIVER    VOLUME NAME\nlocal     vol1\n"
        );
    }
}
