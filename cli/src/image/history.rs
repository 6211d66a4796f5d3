//! `hull history`.

use std::{
    io::{IsTerminal as _, stdout},
    time::SystemTime,
};

use anyhow::Result;
use hull_specs_api::v1::{ImageHistoryEntry, ImageHistoryRequest};
use hull_specs_docker::{time, units};

use crate::{
    args::image::HistoryArgs,
    connect::Manager,
    failure::refused,
    format::{List, Value, text},
    terminal::output::print,
};

const COLUMNS: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const PLAIN: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
];

/// Lists the steps that made an image.
pub(crate) async fn history(manager: &Manager, args: &HistoryArgs) -> Result<u8> {
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let columns = if args.human { COLUMNS } else { PLAIN };
    let list = List::new(format, columns, HEADINGS, stdout().is_terminal())?;
    let request = ImageHistoryRequest {
        image: args.image.clone(),
        platform: args.platform.clone().unwrap_or_default(),
    };
    let answer = manager.images().history(request).await.map_err(refused)?.into_inner();
    let now = SystemTime::now();
    let rows: Vec<_> = answer.entries.iter().map(|entry| row(entry, args, now)).collect();
    print(&list.render(&rows)?)?;
    Ok(0)
}

fn row(entry: &ImageHistoryEntry, args: &HistoryArgs, now: SystemTime) -> Value {
    let by = entry.created_by.replace('\t', " ");
    let id = match entry.image_id.as_str() {
        "" => "<missing>".to_owned(),
        id if args.no_trunc => id.to_owned(),
        id => text::short_id(id).to_owned(),
    };
    let age = units::span(time::age_seconds(entry.created.as_ref(), now));
    let since = if entry.created.is_some() { format!("{age} ago") } else { "N/A".to_owned() };
    Value::row([
        ("ID", id),
        ("CreatedSince", since),
        ("CreatedAt", time::seconds(entry.created.as_ref())),
        ("CreatedBy", if args.no_trunc { by } else { text::ellipsis(&by, 45) }),
        (
            "Size",
            if args.human {
                units::decimal_with(entry.size_bytes, 3)
            } else {
                entry.size_bytes.to_string()
            },
        ),
        ("Comment", entry.comment.clone()),
    ])
}
