//! `hull images`.

use std::{
    io::{IsTerminal as _, stdout},
    time::SystemTime,
};

use anyhow::Result;
use hull_specs_api::v1::{ImageSummary, ListImagesRequest};
use hull_specs_docker::{
    image::{familiar, repository_and_tag},
    time, units,
};

use crate::{
    args::image::ListArgs,
    connect::Manager,
    failure::refused,
    format::{List, Value, list::chosen, text},
    options::keyvalue,
    terminal::output::print,
};

const COLUMNS: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// docker's old form.
const RAW: [(&str, &str); 6] = [
    ("repository", "Repository"),
    ("tag", "Tag"),
    ("digest", "Digest"),
    ("image_id", "ID"),
    ("created_at", "CreatedAt"),
    ("virtual_size", "Size"),
];

/// Lists images.
pub(crate) async fn list(manager: &Manager, args: &ListArgs) -> Result<u8> {
    let columns = if args.digests { WITH_DIGESTS } else { COLUMNS };
    let mut raw = RAW.to_vec();
    if args.quiet {
        raw.retain(|(_, field)| *field == "ID");
    } else if !args.digests {
        raw.retain(|(_, field)| *field != "Digest");
    }
    let format = chosen(args.format.as_deref(), args.quiet, &raw);
    let list = List::new(format.as_deref(), columns, HEADINGS, stdout().is_terminal())?;
    let mut filters = args.filter.clone();
    filters.extend(args.reference.clone().map(|name| ("reference".to_owned(), name)));
    let request = ListImagesRequest { all: args.all, filters: keyvalue::filters(&filters) };
    let answer = manager.images().list(request).await.map_err(refused)?.into_inner();
    let digests = args.digests || list.uses("Digest");
    let now = SystemTime::now();
    let mut rows: Vec<_> =
        answer.images.iter().flat_map(|of| rows(of, args.no_trunc, digests, now)).collect();
    if args.quiet {
        rows.dedup_by(|a, b| a.field("ID") == b.field("ID"));
    }
    print(&list.render(&rows)?)?;
    Ok(0)
}

/// A row for each name: of a tag, of a digest without a tag, or of neither.
pub(crate) fn rows(of: &ImageSummary, whole: bool, digests: bool, now: SystemTime) -> Vec<Value> {
    let none = || "<none>".to_owned();
    let digest_of = |repository: &str| {
        of.repo_digests
            .iter()
            .map(|name| familiar(name))
            .find_map(|name| {
                name.split_once('@')
                    .filter(|(name, _)| *name == repository)
                    .map(|(_, digest)| digest.to_owned())
            })
            .unwrap_or_else(none)
    };
    let mut names: Vec<(String, String, String)> = of
        .references
        .iter()
        .map(|reference| {
            let (repository, tag) = repository_and_tag(reference);
            let digest = digest_of(&repository);
            (repository, tag, digest)
        })
        .collect();
    if names.is_empty() {
        names.extend(of.repo_digests.iter().filter(|_| digests).filter_map(|name| {
            let name = familiar(name);
            name.split_once('@').map(|(name, digest)| (name.to_owned(), none(), digest.to_owned()))
        }));
    }
    if names.is_empty() {
        let name = of.repo_digests.first().map(|name| familiar(name));
        let name = name.as_deref().and_then(|name| name.split_once('@'));
        names.push((name.map_or_else(none, |(name, _)| name.to_owned()), none(), none()));
    }
    let id = if whole { of.id.clone() } else { text::short_id(&of.id).to_owned() };
    let age = units::span(time::age_seconds(of.created.as_ref(), now));
    let size = units::decimal_with(of.size_bytes, 3);
    names
        .into_iter()
        .map(|(repository, tag, digest)| {
            Value::row([
                ("ID", id.clone()),
                ("Repository", repository),
                ("Tag", tag),
                ("Digest", digest),
                ("CreatedSince", format!("{age} ago")),
                ("CreatedAt", time::table(of.created.as_ref())),
                ("Size", size.clone()),
                ("VirtualSize", units::decimal(of.size_bytes)),
                ("Containers", of.containers.to_string()),
                ("SharedSize", units::decimal(of.shared_bytes)),
                ("UniqueSize", units::decimal(of.size_bytes.saturating_sub(of.shared_bytes))),
            ])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_table_is_dockers() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_280_448);
        let of = ImageSummary {
            id: "sha256:0826b1a22be6e736335206979bac5ff394c44728c251307ad7389dfd65eb0e18".into(),
            references: vec!["docker.io/library/busybox:latest".into()],
            created: Some(prost_types::Timestamp { seconds: 1_795_280_414, nanos: 0 }),
            size_bytes: 1_982_319,
            ..ImageSummary::default()
        };
        let render = |columns, rows: &[Value]| {
            List::new(None, columns, HEADINGS, true).unwrap().render(rows).unwrap()
        };
        assert_eq!(
            render(COLUMNS, &rows(&of, false, false, now)),
            "REPOSITORY   TAG       IMAGE ID       CREATED          SIZE\n\
             busybox      latest    0826b1a22be6   34 seconds ago   1.98MB\n"
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        let of = ImageSummary {
            references: Vec::new(),
            repo_digests: vec![format!("docker.io/library/busybox@{digest}")],
            ..of
        };
        let table = render(WITH_DIGESTS, &rows(&of, false, true, now));
        assert!(
            table
                .lines()
                .nth(1)
                .unwrap()
                .starts_with(&format!("busybox      <none>    {digest}   0826b1a22be6"))
        );
    }
}
