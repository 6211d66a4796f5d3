//! Questions to registries that change nothing here.

use hull_manager_core::{Error, Result, filter::Filters};
use hull_specs_api::v1;

use crate::{Images, pull::credentials};

/// The RPC.
pub(crate) async fn search(
    images: &Images,
    request: v1::SearchRequest,
) -> Result<v1::SearchResponse> {
    let filters = Filters::parse(&request.filters, &["stars", "is-official"])?;
    let stars = filters.values("stars").iter().try_fold(0, |most, text| {
        let bad = |_| Error::invalid(format!("invalid filter 'stars={}'", text.escape_default()));
        Ok::<u64, Error>(most.max(text.parse::<u64>().map_err(bad)?))
    })?;
    let official =
        filters.has("is-official").then(|| filters.flag("is-official", false)).transpose()?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let credentials = credentials(request.credentials.as_ref());
    let found = images.registry().search(&request.term, limit, &credentials).await?;
    let results = found
        .into_iter()
        .filter(|one| one.stars >= stars && official.is_none_or(|wanted| one.official == wanted))
        .map(|one| v1::SearchResult {
            name: one.name,
            description: one.description,
            stars: one.stars,
            official: one.official,
        })
        .collect();
    Ok(v1::SearchResponse { results })
}

/// The RPC.
pub(crate) async fn check_credentials(
    images: &Images,
    request: v1::CheckCredentialsRequest,
) -> Result<v1::CheckCredentialsResponse> {
    let credentials = credentials(request.credentials.as_ref());
    let token = images.registry().check_credentials(&request.registry, &credentials).await?;
    let identity_token = token.map(|token| token.expose().to_owned()).unwrap_or_default();
    Ok(v1::CheckCredentialsResponse { identity_token })
}
