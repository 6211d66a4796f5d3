//! Importing: an image of one layer from the tar of a root file system.

use std::{io::Read, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use hull_manager_content::Lease;
use hull_manager_core::{Error, Result};
use hull_specs_api::v1::{self, import_request::Part, progress::Phase};
use hull_specs_image::{Descriptor, History, ImageConfig, Platform, Reference, RootFs};
use hull_specs_oci::time::rfc3339_nano;
use tokio::sync::mpsc::Sender;

use crate::{
    Images, changes,
    install::Layer,
    layer::{self, Unpack},
    lookup, outer,
    progress::{Meter, Report},
    pull::platform,
};

/// What is read at once.
const PIECE: usize = 256 << 10;

/// The RPC.
pub(crate) async fn import(
    images: &Images,
    mut requests: impl Stream<Item = Result<v1::ImportRequest>> + Send + Unpin,
    answers: Sender<v1::ImportResponse>,
) -> Result<()> {
    let first = requests.next().await.transpose()?.and_then(|request| request.part);
    let Some(Part::Options(options)) = first else {
        return Err(Error::invalid("the first message has no options"));
    };
    let reference = new_reference(&options.reference)?;
    let platform = platform(&options.platform)?;
    // Before anything is moved.
    changes::parse(&options.changes)?;
    let report: Report = {
        let answers = answers.clone();
        // What a slow client does not take at once is left out.
        Arc::new(move |told| {
            let event = Some(v1::import_response::Event::Progress(told));
            drop(answers.try_send(v1::ImportResponse { event }));
        })
    };
    let (chunks, total) = if options.url.is_empty() {
        let chunks = requests.map(|request| match request?.part {
            Some(Part::Chunk(chunk)) => Ok(Bytes::from(chunk)),
            _ => Err(Error::invalid("a message has no chunk")),
        });
        (chunks.boxed(), 0)
    } else {
        let file = images.registry().download(&options.url).await?;
        let size = file.size().unwrap_or_default();
        let pieces = stream::try_unfold(file, |mut file| async move {
            Ok::<_, Error>(file.next().await?.map(|piece| (piece, file)))
        });
        (pieces.boxed(), size)
    };
    let (chunks, passing) = outer::pass(chunks);
    let name = reference.as_ref().map(ToString::to_string).unwrap_or_default();
    let making = images.blocking(move |images| {
        let meter = Meter::new(&report, "archive", total);
        let lease = images.content.lease();
        let layer = read(images, chunks, &lease, meter)?;
        let config = config(&options, platform, &layer)?;
        images.make(&config, None, vec![layer], lease, reference.as_slice())
    });
    let id = outer::while_passing(making, passing).await?;
    images.event(&id, &id.to_string(), "import");
    let imported = v1::LoadedImage { reference: name, image_id: id.to_string() };
    let event = Some(v1::import_response::Event::Imported(imported));
    let gone = |_| Error::cancelled("the client went away");
    answers.send(v1::ImportResponse { event }).await.map_err(gone)
}

/// The reference that a new image shall have.
pub(crate) fn new_reference(text: &str) -> Result<Option<Reference>> {
    if text.is_empty() {
        return Ok(None);
    }
    let reference = lookup::parse(text)?;
    match reference.digest() {
        None => Ok(Some(reference)),
        Some(_) => Err(Error::invalid("cannot import digest reference")),
    }
}

fn config(options: &v1::ImportOptions, platform: Platform, layer: &Layer) -> Result<ImageConfig> {
    let now = rfc3339_nano(SystemTime::now());
    let message = match options.message.as_str() {
        "" if options.url.is_empty() => "Imported from -".to_owned(),
        "" => format!("Imported from {}", options.url),
        message => message.to_owned(),
    };
    Ok(ImageConfig {
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: changes::parse(&options.changes)?,
        created: Some(now.clone()),
        comment: message.clone(),
        history: vec![History { created: Some(now), comment: message, ..History::default() }],
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![layer.diff_id] },
        ..ImageConfig::default()
    })
}

/// A layer from a stream: into the content store as it comes, and unpacked.
pub(crate) fn read(
    images: &Images,
    mut input: impl Read,
    lease: &Lease,
    mut meter: Meter,
) -> Result<Layer> {
    let mut blob = images.content.create()?;
    let mut unpack: Option<Unpack> = None;
    let mut piece = vec![0; PIECE];
    let (mut filled, mut total) = (0, 0);
    let mut kind = layer::kind_of(&[])?;
    loop {
        let count = match input.read(piece.get_mut(filled..).unwrap_or_default()) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(outer::refused(anyhow::Error::new(error))),
        };
        filled += count;
        // The first bytes say how it is compressed.
        if unpack.is_none() && filled < 8 && count > 0 {
            continue;
        }
        let read = piece.get(..filled).unwrap_or_default();
        if unpack.is_none() {
            kind = layer::kind_of(read)?;
        }
        let unpacking = match &mut unpack {
            Some(unpacking) => unpacking,
            none => none.insert(Unpack::begin(images)?),
        };
        blob.write(read)?;
        unpacking.write(read)?;
        total += filled as u64;
        filled = 0;
        meter.tell(Phase::Reading, total);
        if count == 0 {
            break;
        }
    }
    let unpacked = unpack.ok_or_else(|| Error::internal("nothing was unpacked"))?.finish()?;
    let (digest, size) = blob.finish(lease)?;
    meter.tell(Phase::Complete, total);
    let blob = Descriptor::new(kind, digest, size);
    Ok(Layer { diff_id: unpacked.diff_id, blob, unpacked: Some(unpacked) })
}
