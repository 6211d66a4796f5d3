//! Making an image that is whole visible.

use hull_manager_content::Lease;
use hull_manager_core::{Error, Result};
use hull_specs_image::{Descriptor, Digest, ImageConfig, Reference};

use crate::{
    Hold, Images,
    layer::Unpacked,
    load::oci,
    records::{LayerBlob, LayerRecord, NewImage},
};

/// One layer of an image that is being made.
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    /// As it is in the content store and in the manifest.
    pub(crate) blob: Descriptor,
    /// Nothing where the layer is there already.
    pub(crate) unpacked: Option<Unpacked>,
}

/// An image whose blobs and layers are there, and which no row names yet.
pub(crate) struct Prepared {
    pub(crate) image: NewImage,
    /// Until a row does.
    pub(crate) _lease: Lease,
    pub(crate) _hold: Hold,
}

impl Images {
    /// Puts layers into the snapshotter, the lowest first.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of an image")]
    pub(crate) fn prepare(
        &self,
        id: Digest,
        config: &ImageConfig,
        manifest: Descriptor,
        parent: Option<Digest>,
        layers: Vec<Layer>,
        lease: Lease,
        hold: Hold,
    ) -> Result<Prepared> {
        let chains = config.rootfs.chain_ids();
        if chains.len() != layers.len() {
            return Err(Error::internal("layers and chain ids do not agree"));
        }
        let (mut rows, mut blobs) = (Vec::new(), Vec::new());
        let mut below: Option<Digest> = None;
        for ((chain, layer), wanted) in chains.into_iter().zip(layers).zip(&config.rootfs.diff_ids)
        {
            if layer.diff_id != *wanted {
                return Err(Error::corrupt(format!(
                    "layer {} unpacks to {}, the image says {wanted}",
                    layer.blob.digest, layer.diff_id
                )));
            }
            let unpacked_bytes = match layer.unpacked {
                Some(unpacked) => {
                    let bytes = unpacked.bytes;
                    unpacked.commit(&chain, below.as_ref())?;
                    bytes
                }
                None => match self.records.layer_bytes(&chain)? {
                    Some(bytes) => bytes,
                    None => self.snapshots.layer_usage(&chain)?.bytes,
                },
            };
            rows.push(LayerRecord { chain, blob: layer.blob.digest, unpacked_bytes });
            blobs.push(LayerBlob { diff_id: layer.diff_id, blob: layer.blob });
            below = Some(chain);
        }
        let image = NewImage { id, manifest, parent, layers: rows, blobs };
        Ok(Prepared { image, _lease: lease, _hold: hold })
    }

    /// Writes the rows: from now on the image is there. Images that had a reference before it,
    /// with that.
    pub(crate) fn install(
        &self,
        prepared: &Prepared,
        references: &[Reference],
    ) -> Result<Vec<(Reference, Digest)>> {
        let _one = self.changes();
        let moved = self.records.put(&prepared.image, references)?;
        self.records.sync()?;
        self.write_index()?;
        Ok(moved)
    }

    /// Makes an image of a configuration and layers that are there: its id.
    pub(crate) fn make(
        &self,
        config: &ImageConfig,
        parent: Option<Digest>,
        layers: Vec<Layer>,
        lease: Lease,
        references: &[Reference],
    ) -> Result<Digest> {
        let bytes = serde_json::to_vec(config)
            .map_err(|cause| Error::internal("write the configuration").because(cause))?;
        let id = self.content.add(&bytes, &lease)?;
        let blobs: Vec<Descriptor> = layers.iter().map(|layer| layer.blob.clone()).collect();
        let (manifest, manifest_bytes) = oci::manifest(&bytes, &blobs)?;
        self.content.add(&manifest_bytes, &lease)?;
        let hold = self.hold_fresh(&config.rootfs.chain_ids());
        let prepared = self.prepare(id, config, manifest, parent, layers, lease, hold)?;
        self.install(&prepared, references)?;
        Ok(id)
    }
}
