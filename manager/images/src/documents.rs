//! Configurations as they come from strangers.

use hull_manager_core::{Error, Result};
use hull_specs_image::{ImageConfig, Manifest};

/// Parses the configuration of this manifest's image.
pub(crate) fn config(manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfig> {
    let config = parse_config(bytes)?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(refuse(format!(
            "it has {} layers, the manifest {}",
            config.rootfs.diff_ids.len(),
            manifest.layers.len()
        )));
    }
    Ok(config)
}

/// Parses a configuration.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<ImageConfig> {
    let config: ImageConfig =
        serde_json::from_slice(bytes).map_err(|cause| refuse(cause.to_string()))?;
    if config.rootfs.kind != "layers" {
        return Err(refuse("its rootfs is not made of layers".into()));
    }
    let layers = config.history.iter().filter(|step| !step.empty_layer).count();
    if layers > config.rootfs.diff_ids.len() {
        return Err(refuse("too many non-empty layers in History section".into()));
    }
    Ok(config)
}

fn refuse(why: String) -> Error {
    Error::invalid(format!("the image's configuration is refused: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_contradicts_itself_or_its_manifest_is_refused() {
        let layers = r#"{"architecture":"a","os":"linux","rootfs":{"type":"layers"}"#;
        assert!(parse_config(format!("{layers}}}").as_bytes()).is_ok());
        for (json, why) in [
            (String::new(), "EOF"),
            (layers.replace("layers", "x") + "}", "not made of layers"),
            (format!(r#"{layers},"history":[{{}}]}}"#), "too many non-empty layers"),
        ] {
            let error = parse_config(json.as_bytes()).unwrap_err();
            assert!(error.message().contains(why), "{json}: {error}");
        }
        let digest = hull_specs_image::Digest::of(b"");
        let manifest = serde_json::from_str(&format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},
                 "layers":[{{"digest":"{digest}","size":1}}]}}"#
        ));
        let error = config(&manifest.unwrap(), format!("{layers}}}").as_bytes()).unwrap_err();
        assert!(error.message().contains("it has 0 layers, the manifest 1"), "{error}");
    }
}
