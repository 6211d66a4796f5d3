//! From what a person types to an image.

use std::sync::Arc;

use hull_manager_core::{Error, Result, name};
use hull_specs_image::{Digest, Platform, Reference, config::MAX_CONFIG_BYTES};

use crate::{Image, Images, documents, records::Record};

/// What a text that names an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The image, by a reference.
    Reference(Reference, Digest),
    /// The image, by its id or the beginning of it.
    Id(Digest),
}

impl Named {
    pub(crate) fn id(&self) -> Digest {
        match self {
            Self::Reference(_, id) | Self::Id(id) => *id,
        }
    }
}

/// A reference as it is kept: with a digest, the tag says nothing.
pub(crate) fn canonical(reference: Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest),
        None => reference,
    }
}

/// A reference in a request.
pub(crate) fn parse(text: &str) -> Result<Reference> {
    text.parse().map(canonical).map_err(Error::invalid)
}

/// Whether a reference is typed with a tag or a digest.
pub(crate) fn has_tag(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

impl Images {
    /// What `text` names: a reference goes before the beginning of an id, as docker has it.
    pub(crate) fn find(&self, text: &str) -> Result<Named> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(digest) = format!("sha256:{hex}").parse::<Digest>()
            && self.records.get(&digest)?.is_some()
        {
            return Ok(Named::Id(digest));
        }
        let reference = text.parse::<Reference>().map(canonical);
        if let Ok(reference) = &reference
            && let Some(id) = self.records.named(reference)?
        {
            return Ok(Named::Reference(reference.clone(), id));
        }
        if name::is_id_prefix(hex)
            && let [only] = self.records.with_prefix(hex)?.as_slice()
        {
            return Ok(Named::Id(*only));
        }
        match reference {
            Ok(reference) => Err(no_such(&reference.familiar())),
            Err(_) if name::is_id_prefix(hex) => Err(no_such(text)),
            Err(cause) => Err(Error::invalid(cause)),
        }
    }

    /// The image that a text names, for a platform.
    pub(crate) fn record(&self, text: &str, platform: &str) -> Result<Record> {
        let id = self.find(text)?.id();
        let record = self.records.get(&id)?.ok_or_else(|| no_such(text))?;
        if !platform.is_empty() {
            let wanted: Platform = platform.parse().map_err(Error::invalid)?;
            let (config, _) = self.config(&id)?;
            if !wanted.accepts(&config.platform()) {
                return Err(Error::not_found(format!(
                    "image with reference {text} was found but its platform ({}) does not match the specified platform ({wanted})",
                    config.platform()
                )));
            }
        }
        Ok(record)
    }

    /// An image's configuration, parsed and as it is.
    pub(crate) fn config(&self, id: &Digest) -> Result<(hull_specs_image::ImageConfig, Vec<u8>)> {
        let bytes = self.content.read(id, MAX_CONFIG_BYTES)?;
        Ok((documents::parse_config(&bytes)?, bytes))
    }

    pub(crate) fn resolve_now(&self, text: &str, platform: &str) -> Result<Image> {
        let record = self.record(text, platform)?;
        let (config, bytes) = self.config(&record.id)?;
        let chains = config.rootfs.chain_ids();
        let hold = self.hold(&chains);
        let references = self.records.references(&record.id)?;
        Ok(Image {
            id: record.id,
            chain_id: chains.last().copied(),
            config: Arc::new(config),
            config_json: bytes.into(),
            references: references
                .iter()
                .filter(|reference| reference.tag().is_some())
                .map(ToString::to_string)
                .collect(),
            hold: Arc::new(hold),
        })
    }
}

pub(crate) fn no_such(what: &str) -> Error {
    Error::not_found(format!("No such image: {}", what.escape_default()))
}
