//! `hull search`.

use std::io::{IsTerminal as _, stdout};

use anyhow::Result;
use hull_specs_api::v1::{SearchRequest, SearchResult};

use super::login::credentials_for;
use crate::{
    args::image::SearchArgs,
    connect::Manager,
    failure::refused,
    format::{List, Value, text},
    options::keyvalue,
    terminal::output::print,
};

const COLUMNS: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const HEADINGS: &[(&str, &str)] = &[("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")];
/// What docker asks for where nothing is said.
const DEFAULT_LIMIT: u32 = 25;

/// Asks a registry for repositories.
pub(crate) async fn search(manager: &Manager, args: &SearchArgs) -> Result<u8> {
    let list = List::new(args.format.as_deref(), COLUMNS, HEADINGS, stdout().is_terminal())?;
    let request = SearchRequest {
        term: args.term.clone(),
        limit: if args.limit == 0 { DEFAULT_LIMIT } else { args.limit },
        filters: keyvalue::filters(&args.filter),
        credentials: credentials_for(manager, registry(&args.term))?,
    };
    let answer = manager.images().search(request).await.map_err(refused)?.into_inner();
    let rows: Vec<_> = answer.results.iter().map(|of| row(of, args.no_trunc)).collect();
    print(&list.render(&rows)?)?;
    Ok(0)
}

/// The registry that a term names.
fn registry(term: &str) -> &str {
    match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => hull_specs_image::reference::DEFAULT_DOMAIN,
    }
}

fn row(of: &SearchResult, whole: bool) -> Value {
    let description = of.description.replace(['\n', '\r'], " ");
    Value::row([
        ("Name", of.name.clone()),
        ("Description", if whole { description } else { text::ellipsis(&description, 45) }),
        ("StarCount", of.stars.to_string()),
        // Registries have given up to say so.
        ("IsAutomated", String::new()),
        ("IsOfficial", if of.official { "[OK]" } else { "" }.to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_names_its_registry() {
        for (term, host) in
            [("a", "docker.io"), ("a/b", "docker.io"), ("localhost:5000/a", "localhost:5000")]
        {
            assert_eq!(registry(term), host);
        }
    }
}
