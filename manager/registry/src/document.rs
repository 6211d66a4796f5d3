//! Manifests and indexes as they come from a stranger: one meaning or none (R15).
//!
//! CVE-2021-41190 is about documents that are a manifest to one reader and an index to another.
//! So: the type that the transport names, the type that the document names and its shape must
//! agree; keys that differ only in case (Go's reader takes them for the same) or are there twice
//! are refused; and what a descriptor says of a document must be true of it. Pure.

use std::collections::BTreeSet;

use hull_manager_core::{Error, Result};
use hull_specs_image::{
    Descriptor, Index, Manifest, Platform, config::MAX_CONFIG_BYTES, document::MAX_MANIFEST_BYTES,
    media_type,
};
use serde::{
    Deserialize,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// The most layers of an image.
const MAX_LAYERS: usize = 512;

/// The most manifests of an index.
const MAX_MANIFESTS: usize = 1024;

/// What registries are asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and never kept in a list")]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

impl Document {
    /// Reads a document that somebody called `media_type` (a registry's Content-Type or a
    /// descriptor; empty if nobody did). Also gives its type, which is never empty.
    ///
    /// # Errors
    /// One sentence on what is wrong with it. Schema 1 is [`hull_manager_core::ErrorKind::Unimplemented`].
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<(Self, String)> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(refuse(format!("is larger than {MAX_MANIFEST_BYTES} bytes")));
        }
        let outline: Outline =
            serde_json::from_slice(bytes).map_err(|cause| refuse("is not one").because(cause))?;
        if media_type::DOCKER_SCHEMA1.contains(&media_type)
            || media_type::DOCKER_SCHEMA1.contains(&outline.media_type.as_str())
            || outline.schema_version == Some(1)
            || outline.has("fsLayers")
        {
            return Err(Error::unimplemented(
                "the image has a manifest of Docker's schema 1, which nobody should use any more: \
                 push it again with a current tool",
            ));
        }
        if outline.schema_version != Some(2) {
            return Err(refuse("has no schemaVersion 2"));
        }
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        // Registries that serve plain JSON leave it to the document.
        let named =
            if matches!(media_type, "application/json" | "text/plain") { "" } else { media_type };
        let own = outline.media_type.as_str();
        if !named.is_empty() && !own.is_empty() && named != own {
            return Err(refuse(format!("calls itself {own:?}, but came as {named:?}")));
        }
        let kind = if own.is_empty() { named } else { own };
        let lists = outline.has("manifests");
        let images = outline.has("layers") || outline.has("config");
        match (media_type::is_index(kind), media_type::is_manifest(kind)) {
            (true, _) if images || !lists => {
                Err(refuse("is called an index, but is shaped otherwise"))
            }
            (_, true) if lists || !images => {
                Err(refuse("is called an image's manifest, but is shaped otherwise"))
            }
            (true, _) => Ok((Self::Index(index(bytes)?), kind.to_owned())),
            (_, true) => Ok((Self::Manifest(manifest(bytes)?), kind.to_owned())),
            _ if kind.is_empty() => Err(refuse("has no media type")),
            _ => Err(refuse(format!("is of the unknown type {kind:?}"))),
        }
    }
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the manifest {why}"))
}

fn index(bytes: &[u8]) -> Result<Index> {
    let index: Index =
        serde_json::from_slice(bytes).map_err(|cause| refuse("is not an index").because(cause))?;
    if index.manifests.len() > MAX_MANIFESTS {
        return Err(refuse(format!("lists more than {MAX_MANIFESTS} manifests")));
    }
    if let Some(large) = index.manifests.iter().find(|entry| entry.size > MAX_MANIFEST_BYTES) {
        return Err(refuse(format!("lists {} of {} bytes", large.digest, large.size)));
    }
    Ok(index)
}

fn manifest(bytes: &[u8]) -> Result<Manifest> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|cause| refuse("is not one of an image").because(cause))?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(refuse(format!("has more than {MAX_LAYERS} layers")));
    }
    Ok(manifest)
}

/// Whether a manifest is one of an image that can be run: its configuration and layers are of
/// types that we know, and of sensible sizes.
///
/// # Errors
/// One sentence on what it is instead.
pub fn check_image(manifest: &Manifest) -> Result<()> {
    let config = &manifest.config;
    if !matches!(config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG) {
        return Err(refuse(format!(
            "is not an image's: its configuration is of type {:?}",
            config.media_type
        )));
    }
    if config.size > MAX_CONFIG_BYTES {
        return Err(refuse(format!("has a configuration of {} bytes", config.size)));
    }
    for layer in &manifest.layers {
        if media_type::layer_compression(&layer.media_type).is_none() {
            return Err(refuse(format!("has a layer of the unknown type {:?}", layer.media_type)));
        }
    }
    let mut total: u64 = config.size;
    for layer in &manifest.layers {
        total = total.checked_add(layer.size).ok_or_else(|| refuse("has layers without end"))?;
    }
    // The same digest with two sizes would be two claims about one thing.
    let sizes: BTreeSet<_> =
        manifest.layers.iter().chain([config]).map(|blob| (blob.digest, blob.size)).collect();
    let digests: BTreeSet<_> = sizes.iter().map(|(digest, _)| digest).collect();
    if digests.len() != sizes.len() {
        return Err(refuse("gives one blob two sizes"));
    }
    Ok(())
}

/// The manifests of an index that run on `platform`, the best first: its own variant, then any
/// variant that runs there; of equals the first. Where no entry says what it is for and there
/// is only one, that one.
#[must_use]
pub fn choose<'a>(index: &'a Index, platform: &Platform) -> Vec<&'a Descriptor> {
    let wanted = platform.normalized();
    let usable = |entry: &&Descriptor| {
        media_type::is_manifest(&entry.media_type) || media_type::is_index(&entry.media_type)
    };
    let mut chosen: Vec<(bool, &Descriptor)> = index
        .manifests
        .iter()
        .filter(usable)
        .filter_map(|entry| {
            let offered = entry.platform.as_ref()?.normalized();
            wanted.accepts(&offered).then_some((offered.variant != wanted.variant, entry))
        })
        .collect();
    chosen.sort_by_key(|(other_variant, _)| *other_variant);
    if chosen.is_empty()
        && let [only] = index.manifests.as_slice()
        && only.platform.is_none()
        && usable(&only)
    {
        return vec![only];
    }
    chosen.into_iter().map(|(_, entry)| entry).collect()
}

/// The keys of a document that decide what it is.
struct Outline {
    keys: BTreeSet<String>,
    media_type: String,
    schema_version: Option<u64>,
}

impl Outline {
    fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }
}

/// Keys that mean something to a reader.
const MEANINGFUL: [&str; 12] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
    "history",
    "signatures",
    "architecture",
];

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Outline;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
                use serde::de::Error as _;
                let mut outline = Outline {
                    keys: BTreeSet::new(),
                    media_type: String::new(),
                    schema_version: None,
                };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "mediaType" => outline.media_type = map.next_value()?,
                        "schemaVersion" => outline.schema_version = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                    if MEANINGFUL.iter().any(|name| *name != key && name.eq_ignore_ascii_case(&key))
                    {
                        return Err(A::Error::custom(format!(
                            "the key {key:?} is written otherwise"
                        )));
                    }
                    if MEANINGFUL.contains(&key.as_str()) && !outline.keys.insert(key) {
                        return Err(A::Error::custom("a key is there twice"));
                    }
                }
                Ok(outline)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use hull_manager_core::ErrorKind;
    use hull_specs_image::Digest;

    use super::*;

    fn descriptor(media_type: &str) -> String {
        serde_json::to_string(&Descriptor::of(media_type, b"x")).unwrap()
    }

    fn image(media_type: &str, more: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{media_type}"config":{},"layers":[{}]{more}}}"#,
            descriptor(media_type::CONFIG),
            descriptor(media_type::LAYER_GZIP),
        )
    }

    fn list(media_type: &str, more: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{media_type}"manifests":[{}]{more}}}"#,
            descriptor(media_type::MANIFEST)
        )
    }

    const OCI: &str = r#""mediaType":"application/vnd.oci.image.manifest.v1+json","#;
    const OCI_INDEX: &str = r#""mediaType":"application/vnd.oci.image.index.v1+json","#;

    #[test]
    fn documents_are_what_all_say_they_are() {
        for (came_as, text, expected) in [
            (media_type::MANIFEST, image(OCI, ""), media_type::MANIFEST),
            (media_type::MANIFEST, image("", ""), media_type::MANIFEST),
            ("", image(OCI, ""), media_type::MANIFEST),
            ("application/json; charset=utf-8", image(OCI, ""), media_type::MANIFEST),
            (
                media_type::DOCKER_MANIFEST,
                image("", r#","x":{"layers":1}"#),
                media_type::DOCKER_MANIFEST,
            ),
            (media_type::INDEX, list(OCI_INDEX, ""), media_type::INDEX),
            (media_type::INDEX, list("", ""), media_type::INDEX),
        ] {
            assert_eq!(Document::parse(came_as, text.as_bytes()).unwrap().1, expected, "{text}");
        }
    }

    #[test]
    fn manifest_confusions_are_refused() {
        let digest = Digest::of(b"x").to_string();
        let both = format!(r#","manifests":[{}]"#, descriptor(media_type::MANIFEST));
        for (came_as, text, word) in [
            // A manifest and an index at once.
            (media_type::MANIFEST, image(OCI, &both), "shaped otherwise"),
            (media_type::INDEX, image(OCI_INDEX, &both), "shaped otherwise"),
            (media_type::INDEX, list(OCI_INDEX, r#","layers":[]"#), "shaped otherwise"),
            (media_type::INDEX, list("", r#","config":null"#), "shaped otherwise"),
            // Called one, shaped as the other.
            (media_type::INDEX, image("", ""), "shaped otherwise"),
            (media_type::MANIFEST, list("", ""), "shaped otherwise"),
            // Two names.
            (media_type::INDEX, image(OCI, ""), "came as"),
            (media_type::DOCKER_MANIFEST, image(OCI, ""), "came as"),
            // No name.
            ("", image("", ""), "no media type"),
            ("application/json", list("", ""), "no media type"),
            ("text/html", image("", ""), "unknown type"),
            // Keys twice, and keys that are the same to readers of Go.
            (media_type::MANIFEST, image(OCI, r#","layers":[]"#), "twice"),
            (media_type::MANIFEST, image(OCI, r#","Layers":[]"#), "written otherwise"),
            (media_type::MANIFEST, image(OCI, r#","MANIFESTS":[]"#), "written otherwise"),
            (media_type::MANIFEST, image(OCI, r#","mediatype":"x""#), "written otherwise"),
            (media_type::MANIFEST, image("", r#","config":{}"#), "twice"),
            // Not the version, not JSON, more than one document.
            (media_type::MANIFEST, image(OCI, "").replace(":2,", ":3,"), "schemaVersion"),
            (media_type::MANIFEST, image(OCI, "").replace(":2,", ":\"2\","), "not one"),
            (media_type::MANIFEST, image(OCI, "") + "{}", "not one"),
            (media_type::MANIFEST, format!("\u{feff}{}", image(OCI, "")), "not one"),
            (media_type::MANIFEST, "[]".into(), "not one"),
            // Descriptors that can't be.
            (media_type::MANIFEST, image(OCI, "").replace("\"size\":1", "\"size\":-1"), "image"),
            (media_type::MANIFEST, image(OCI, "").replace("\"size\":1", "\"size\":1e3"), "image"),
            (media_type::MANIFEST, image(OCI, "").replace(&digest, "sha256:../.."), "image"),
            (media_type::INDEX, list("", "").replace("\"size\":1", "\"size\":5000000"), "bytes"),
        ] {
            let error = Document::parse(came_as, text.as_bytes()).map(drop).unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
        let large = vec![b' '; usize::try_from(MAX_MANIFEST_BYTES).unwrap() + 1];
        assert!(Document::parse("", &large).unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn schema_1_is_refused_in_one_sentence() {
        for (came_as, text) in [
            (media_type::DOCKER_SCHEMA1[0], r#"{"schemaVersion":1}"#),
            ("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#),
            (media_type::DOCKER_MANIFEST, r#"{"schemaVersion":2,"fsLayers":[]}"#),
        ] {
            let error = Document::parse(came_as, text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unimplemented, "{text}");
            assert!(error.to_string().contains("schema 1"));
        }
    }

    /// A mutated document is read or refused, and what is read is what it is called (R24).
    #[test]
    fn mutated_documents_do_no_harm() {
        let both = [image(OCI, ""), list(OCI_INDEX, "")].map(String::into_bytes);
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let mut read = 0;
        for round in 0..20_000 {
            let mut bytes = both[round % 2].clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len().max(1));
                match random(4) {
                    _ if bytes.is_empty() => {}
                    0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"\"{}[],:0"[random(8)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let named = [media_type::MANIFEST, media_type::INDEX][round % 2];
            if let Ok((document, kind)) = Document::parse(named, &bytes) {
                read += 1;
                assert_eq!(kind, named);
                assert_eq!(matches!(document, Document::Index(_)), media_type::is_index(named));
                if let Document::Manifest(manifest) = document {
                    drop(check_image(&manifest));
                }
            }
        }
        assert!(read > 100, "{read}");
    }

    #[test]
    fn only_images_are_images() {
        let parse = |text: &str| match Document::parse(media_type::MANIFEST, text.as_bytes()) {
            Ok((Document::Manifest(manifest), _)) => manifest,
            other => panic!("{other:?}"),
        };
        let text = image(OCI, "");
        // One blob as configuration and layer is odd, but consistent.
        check_image(&parse(&text)).unwrap();
        for (from, to, word) in [
            (media_type::CONFIG, "application/vnd.cncf.helm.config.v1+json", "not an image's"),
            (media_type::CONFIG, media_type::MANIFEST, "not an image's"),
            (media_type::LAYER_GZIP, media_type::INDEX, "layer"),
            (media_type::LAYER_GZIP, "", "layer"),
            ("\"size\":1}]", "\"size\":2}]", "two sizes"),
            ("\"size\":1}]", "\"size\":18446744073709551615}]", "without end"),
            ("\"size\":1},\"layers", "\"size\":90000000},\"layers", "configuration of"),
        ] {
            let error = check_image(&parse(&text.replace(from, to))).unwrap_err();
            assert!(error.to_string().contains(word), "{to}: {error}");
        }
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let entry = |name: &str, platform: Option<&str>| Descriptor {
            platform: platform.map(|text| text.parse().unwrap()),
            ..Descriptor::of(media_type::MANIFEST, name.as_bytes())
        };
        let mut index = Index {
            schema_version: 2,
            media_type: media_type::INDEX.into(),
            manifests: vec![
                entry("unknown", Some("unknown/unknown")),
                entry("arm", Some("linux/arm/v6")),
                entry("any", Some("linux/amd64")),
                entry("v3", Some("linux/amd64/v3")),
                entry("none", None),
            ],
            annotations: Default::default(),
        };
        let names = |index: &Index, platform: &str| -> Vec<Digest> {
            choose(index, &platform.parse().unwrap()).iter().map(|entry| entry.digest).collect()
        };
        let digests = |names: &[&str]| -> Vec<Digest> {
            names.iter().map(|name| Digest::of(name.as_bytes())).collect()
        };
        assert_eq!(names(&index, "linux/amd64/v3"), digests(&["v3", "any"]));
        assert_eq!(names(&index, "linux/amd64"), digests(&["any"]));
        assert_eq!(names(&index, "linux/arm/v6"), digests(&["arm"]));
        assert_eq!(names(&index, "linux/s390x"), digests(&[]));
        index.manifests[3].media_type = "application/x".into();
        assert_eq!(names(&index, "linux/amd64/v3"), digests(&["any"]));
        index.manifests.drain(..4);
        assert_eq!(names(&index, "linux/s390x"), digests(&["none"]));
    }
}
