//! `hull system df`.

use std::{
    io::{IsTerminal as _, stdout},
    time::SystemTime,
};

use anyhow::{Result, bail};
use hull_specs_api::v1::{
    DiskUsageRequest, DiskUsageResponse, ListContainersRequest, ListImagesRequest,
    disk_usage_response::Item,
};
use hull_specs_docker::units;

use crate::{
    args::system::DfArgs,
    connect::Manager,
    container,
    failure::refused,
    format::{List, Value},
    image,
    terminal::output::print,
};

const COLUMNS: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
const HEADINGS: &[(&str, &str)] = &[
    ("TotalCount", "TOTAL"),
    ("ID", "CONTAINER ID"),
    ("CreatedSince", "CREATED"),
    ("RunningFor", "CREATED"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// Prints what is used of the disk, and what could be freed.
pub(crate) async fn usage(manager: &Manager, args: &DfArgs) -> Result<u8> {
    let list = List::new(args.format.as_deref(), COLUMNS, HEADINGS, stdout().is_terminal())?;
    if args.verbose && args.format.is_some() {
        bail!("system df takes --verbose or --format, not both");
    }
    let answer = manager.system().disk_usage(DiskUsageRequest {}).await;
    let answer = answer.map_err(refused)?.into_inner();
    let text =
        if args.verbose { verbose(manager, &answer).await? } else { list.render(&rows(&answer))? };
    print(&text)?;
    Ok(0)
}

fn rows(of: &DiskUsageResponse) -> [Value; 4] {
    let images = of.images.unwrap_or_default();
    let row = |kind: &str, total: u64, active: u64, size: u64, free: u64, percent: bool| {
        let mut reclaimable = units::decimal(free);
        if percent && size > 0 {
            reclaimable = format!("{reclaimable} ({}%)", u128::from(free) * 100 / u128::from(size));
        }
        Value::row([
            ("Type", kind.to_owned()),
            ("TotalCount", total.to_string()),
            ("Active", active.to_string()),
            ("Size", units::decimal(size)),
            ("Reclaimable", reclaimable),
        ])
    };
    let items = |kind: &str, items: &[Item]| {
        let size = |used: bool| -> u64 {
            items.iter().filter(|item| !used || item.in_use).map(|item| item.size_bytes).sum()
        };
        let active = items.iter().filter(|item| item.in_use).count();
        row(kind, items.len() as u64, active as u64, size(false), size(false) - size(true), true)
    };
    [
        row(
            "Images",
            images.count.into(),
            images.active.into(),
            images.size_bytes,
            images.reclaimable_bytes,
            true,
        ),
        items("Containers", &of.containers),
        items("Local Volumes", &of.volumes),
        // Blobs are the images', compressed: none is there for itself.
        row("Content", 0, 0, of.content_bytes, 0, false),
    ]
}

async fn verbose(manager: &Manager, of: &DiskUsageResponse) -> Result<String> {
    let now = SystemTime::now();
    let terminal = stdout().is_terminal();
    let request = ListImagesRequest { all: true, filters: Vec::new() };
    let images = manager.images().list(request).await.map_err(refused)?.into_inner().images;
    let rows: Vec<_> =
        images.iter().flat_map(|of| image::list::rows(of, false, false, now)).collect();
    let columns = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
    let headings = &[("ID", "IMAGE ID"), ("CreatedSince", "CREATED"), HEADINGS[5], HEADINGS[6]];
    let mut text = String::from("Images space usage:\n\n");
    text += &List::new(None, columns, headings, terminal)?.render(&rows)?;
    let request =
        ListContainersRequest { all: true, size: true, ..ListContainersRequest::default() };
    let answer = manager.containers().list(request).await.map_err(refused)?.into_inner();
    let rows: Vec<_> =
        answer.containers.iter().map(|of| container::list::row(of, false, now)).collect();
    let columns = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    text += "\nContainers space usage:\n\n";
    text += &List::new(None, columns, HEADINGS, terminal)?.render(&rows)?;
    let rows: Vec<_> = of
        .volumes
        .iter()
        .map(|item| {
            Value::row([
                ("Name", item.name.clone()),
                ("InUse", item.in_use.to_string()),
                ("Size", units::decimal(item.size_bytes)),
            ])
        })
        .collect();
    let headings = &[("Name", "VOLUME NAME"), ("InUse", "IN USE")];
    text += "\nLocal Volumes space usage:\n\n";
    text +=
        &List::new(None, "{{.Name}}\t{{.InUse}}\t{{.Size}}", headings, terminal)?.render(&rows)?;
    text += &format!("\nContent (compressed blobs): {}\n", units::decimal(of.content_bytes));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use hull_specs_api::v1::disk_usage_response::Images;

    use super::*;

    #[test]
    fn the_table_is_dockers() {
        let of = DiskUsageResponse {
            images: Some(Images {
                count: 1,
                active: 1,
                size_bytes: 1_982_319,
                reclaimable_bytes: 0,
            }),
            volumes: vec![
                Item { size_bytes: 30, in_use: true, ..Item::default() },
                Item { size_bytes: 10, ..Item::default() },
            ],
            ..DiskUsageResponse::default()
        };
        let list = List::new(None, COLUMNS, HEADINGS, true).unwrap();
        assert_eq!(
            list.render(&rows(&of)).unwrap(),
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          1         1         1.982MB   0B (0%)\n\
             Containers      0         0         0B        0B\n\
             Local Volumes   2         1         40B       10B (25%)\n\
             Content         0         0         0B        0B\n"
        );
    }
}
