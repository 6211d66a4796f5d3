//! `hull system df`.

use std::{
    io::{IsTerminal as _, stdout},
    time::SystemTime,
};

use anyhow::Result;
use hull_specs_api::v1::{
    DiskUsageRequest, DiskUsageResponse, ListContainersRequest, ListImagesRequest,
    ListVolumesRequest, disk_usage_response::Item,
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
    volume,
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
    let answer = manager.system().disk_usage(DiskUsageRequest {}).await;
    let answer = answer.map_err(refused)?.into_inner();
    let text = match (args.verbose, args.format.as_deref()) {
        (false, _) => list.render(&rows(&answer))?,
        (true, None | Some("" | "table")) => Whole::ask(manager, &answer, false).await?.tables()?,
        (true, Some(_)) => list.render(&[Whole::ask(manager, &answer, true).await?.document()])?,
    };
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

/// What takes part of the disk, one by one.
struct Whole {
    images: Vec<Value>,
    containers: Vec<Value>,
    volumes: Vec<Value>,
    content_bytes: u64,
}

impl Whole {
    /// Asks for all of it; ids are not shortened in documents.
    async fn ask(manager: &Manager, of: &DiskUsageResponse, whole: bool) -> Result<Self> {
        let now = SystemTime::now();
        let request = ListImagesRequest { all: true, filters: Vec::new() };
        let images = manager.images().list(request).await.map_err(refused)?.into_inner().images;
        let request =
            ListContainersRequest { all: true, size: true, ..ListContainersRequest::default() };
        let mut containers =
            manager.containers().list(request).await.map_err(refused)?.into_inner().containers;
        // The images' part is told with them.
        containers.iter_mut().for_each(|container| container.size_root_bytes = None);
        let request = ListVolumesRequest::default();
        let volumes = manager.volumes().list(request).await.map_err(refused)?.into_inner().volumes;
        Ok(Self {
            images: images.iter().flat_map(|of| image::list::rows(of, whole, false, now)).collect(),
            containers: containers.iter().map(|of| container::list::row(of, whole, now)).collect(),
            volumes: volumes
                .iter()
                .map(|volume| {
                    let item = of.volumes.iter().find(|item| item.name == volume.name);
                    let bytes = item.map_or(0, |item| item.size_bytes);
                    volume::used_row(volume, bytes)
                })
                .collect(),
            content_bytes: of.content_bytes,
        })
    }

    fn tables(&self) -> Result<String> {
        let terminal = stdout().is_terminal();
        let columns = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
        let headings = &[("ID", "IMAGE ID"), ("CreatedSince", "CREATED"), HEADINGS[5], HEADINGS[6]];
        let mut text = String::from("Images space usage:\n\n");
        text += &List::new(None, columns, headings, terminal)?.render(&self.images)?;
        let columns = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
        text += "\nContainers space usage:\n\n";
        text += &List::new(None, columns, HEADINGS, terminal)?.render(&self.containers)?;
        let headings = &[("Name", "VOLUME NAME")];
        let columns = "{{.Name}}\t{{.Links}}\t{{.Size}}";
        text += "\nLocal Volumes space usage:\n\n";
        text += &List::new(None, columns, headings, terminal)?.render(&self.volumes)?;
        text += &format!("\nContent (compressed blobs): {}\n", units::decimal(self.content_bytes));
        Ok(text)
    }

    fn document(self) -> Value {
        let list = |name: &str, rows| (name.to_owned(), Value::List(rows));
        Value::Object(vec![
            list("Images", self.images),
            list("Containers", self.containers),
            list("Volumes", self.volumes),
            // There is no builder that would keep one.
            list("BuildCache", Vec::new()),
        ])
    }
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
