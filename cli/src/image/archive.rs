//! `hull load`, `save` and `import`.

use std::{
    fs::File,
    io::{IsTerminal as _, Read, stdin},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use hull_specs_api::v1::{
    ImportOptions, ImportRequest, LoadRequest, LoadedImage, SaveRequest, import_request,
    import_response, load_response, save_request::Format, save_response,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    args::image::{ImportArgs, LoadArgs, SaveArgs},
    connect::Manager,
    failure::refused,
    progress::Progress,
    terminal::output::print,
    transfer::{Target, upload},
};

fn source(path: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    match path {
        Some(path) => {
            Ok(Box::new(File::open(path).with_context(|| format!("open {}", path.display()))?))
        }
        None => Ok(Box::new(stdin())),
    }
}

/// `load`.
pub(crate) async fn load(manager: &Manager, args: &LoadArgs) -> Result<u8> {
    if args.input.is_none() && stdin().is_terminal() {
        bail!("requested load from stdin, but stdin is empty");
    }
    let platform = args.platform.clone().unwrap_or_default();
    let first = LoadRequest { chunk: Vec::new(), platform };
    let (chunks, mut failed) = upload(source(args.input.as_deref())?, Some(first), |chunk| {
        LoadRequest { chunk, platform: String::new() }
    });
    let events = manager.images().load(ReceiverStream::new(chunks)).await;
    let mut events = events.map_err(refused)?.into_inner();
    let mut progress = if args.quiet { Progress::new(true) } else { Progress::on_terminal() };
    let mut loaded = Vec::new();
    loop {
        match events.message().await {
            Ok(None) => break,
            Ok(Some(event)) => match event.event {
                Some(load_response::Event::Progress(step)) => progress.step(&step),
                Some(load_response::Event::Loaded(image)) => loaded.push(image),
                None => {}
            },
            // Our own reading's failure is the cause, if there was one.
            Err(status) => {
                if let Ok(error) = failed.try_recv() {
                    return Err(error).context("read the archive");
                }
                return Err(refused(status));
            }
        }
    }
    progress.finish();
    for image in &loaded {
        print(&told(image))?;
    }
    Ok(0)
}

fn told(image: &LoadedImage) -> String {
    if image.reference.is_empty() {
        format!("Loaded image ID: {}\n", image.image_id)
    } else {
        format!("Loaded image: {}\n", hull_specs_docker::image::familiar(&image.reference))
    }
}

/// `save`.
pub(crate) async fn save(manager: &Manager, args: SaveArgs) -> Result<u8> {
    Target::refuse_terminal(args.output.as_deref(), "-o")?;
    let request = SaveRequest {
        images: args.images,
        format: match args.format.as_str() {
            "oci-archive" => Format::OciArchive,
            _ => Format::DockerArchive,
        }
        .into(),
        platform: args.platform.unwrap_or_default(),
    };
    let mut events = manager.images().save(request).await.map_err(refused)?.into_inner();
    let mut progress = Progress::on_terminal();
    let mut target: Option<Target> = None;
    while let Some(event) = events.message().await.map_err(refused)? {
        match event.event {
            Some(save_response::Event::Progress(step)) => progress.step(&step),
            Some(save_response::Event::Chunk(chunk)) => match &mut target {
                Some(target) => target.write(&chunk)?,
                // The file is made when there is something to write: a failure leaves none.
                None => target.insert(Target::open(args.output.as_deref())?).write(&chunk)?,
            },
            None => {}
        }
    }
    progress.finish();
    target.context("the manager saved nothing")?.finish()?;
    Ok(0)
}

/// `import`.
pub(crate) async fn import(manager: &Manager, args: &ImportArgs) -> Result<u8> {
    let is_url = ["http://", "https://"].iter().any(|scheme| args.source.starts_with(scheme));
    let source: Box<dyn Read + Send> = match args.source.as_str() {
        // The manager fetches it.
        _ if is_url => Box::new(std::io::empty()),
        "-" => Box::new(stdin()),
        path => source(Some(Path::new(path)))?,
    };
    let options = ImportOptions {
        reference: args.reference.clone().unwrap_or_default(),
        message: args.message.clone().unwrap_or_default(),
        changes: args.change.clone(),
        platform: args.platform.clone().unwrap_or_default(),
        url: if is_url { args.source.clone() } else { String::new() },
    };
    let first = ImportRequest { part: Some(import_request::Part::Options(options)) };
    let (chunks, mut failed) = upload(source, Some(first), |chunk| ImportRequest {
        part: Some(import_request::Part::Chunk(chunk)),
    });
    let events = manager.images().import(ReceiverStream::new(chunks)).await;
    let mut events = events.map_err(refused)?.into_inner();
    let mut progress = Progress::on_terminal();
    let mut imported = None;
    while let Some(event) = events.message().await.map_err(refused)? {
        match event.event {
            Some(import_response::Event::Progress(step)) => progress.step(&step),
            Some(import_response::Event::Imported(image)) => imported = Some(image),
            None => {}
        }
    }
    progress.finish();
    if let Ok(error) = failed.try_recv() {
        return Err(error).context("read the archive");
    }
    print(&format!("{}\n", imported.context("the manager imported nothing")?.image_id))?;
    Ok(0)
}
