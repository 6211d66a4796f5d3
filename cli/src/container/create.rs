//! `hull create`, and the creation that `run` begins with.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_specs_api::v1::{ContainerOptions, CreateContainerRequest};

use crate::{
    args::options::ContainerArgs,
    connect::Manager,
    failure::{of_start, refused},
    image::pull,
    options, report,
    terminal::output::print,
};

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    Always,
    Missing,
    Never,
}

impl Policy {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "always" => Ok(Self::Always),
            "missing" | "" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            other => bail!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ),
        }
    }
}

/// `create`.
pub(crate) async fn create(manager: &Manager, args: &ContainerArgs) -> Result<u8> {
    let options = lower(args).map_err(of_start)?;
    // Docker's 125 for what the engine refuses is that of `run` alone.
    let id = container(manager, args, options).await?;
    print(&format!("{id}\n"))?;
    Ok(0)
}

/// The options as the manager takes them.
pub(crate) fn lower(args: &ContainerArgs) -> Result<ContainerOptions> {
    let here = std::env::current_dir().context("the working directory")?;
    let mut options = options::container::lower(args, &here)?;
    if !args.attach.is_empty() && !args.attach.iter().any(|stream| stream == "stdin") {
        options.stdin_once = false;
    }
    Ok(options)
}

/// Makes the container, with its image from a registry if it must be: the id.
pub(crate) async fn container(
    manager: &Manager,
    args: &ContainerArgs,
    options: ContainerOptions,
) -> Result<String> {
    let policy = Policy::parse(&args.pull)?;
    let cidfile = args.cidfile.as_deref().map(reserve).transpose()?;
    let created = ask(manager, args, options, policy).await;
    let id = match (created, &cidfile) {
        (Ok(id), Some((path, file))) => {
            let mut file = file;
            file.write_all(id.as_bytes()).with_context(|| format!("write {}", path.display()))?;
            id
        }
        (Err(error), Some((path, _))) => {
            // An empty file would be in the way of the next attempt.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        (created, None) => created?,
    };
    Ok(id)
}

async fn ask(
    manager: &Manager,
    args: &ContainerArgs,
    options: ContainerOptions,
    policy: Policy,
) -> Result<String> {
    let (image, platform) = (options.image.clone(), options.platform.clone());
    if policy == Policy::Always {
        pull::for_container(manager, &image, &platform, args.quiet).await?;
    }
    let request = CreateContainerRequest { options: Some(options) };
    let mut client = manager.containers();
    let response = match client.create(request.clone()).await {
        Err(status) if policy == Policy::Missing && no_image(&status) => {
            report::line(&format!(
                "Unable to find image '{}' locally",
                hull_specs_docker::image::familiar(&image)
            ));
            pull::for_container(manager, &image, &platform, args.quiet).await?;
            client.create(request).await
        }
        response => response,
    };
    let response = response.map_err(refused)?.into_inner();
    for warning in &response.warnings {
        report::line(&format!("WARNING: {warning}"));
    }
    Ok(response.id)
}

/// Whether it is the image that is missing, and not another thing that was named.
fn no_image(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::NotFound && status.message().contains("No such image")
}

/// Makes the file for the id, which must not be there.
fn reserve(path: &Path) -> Result<(&Path, std::fs::File)> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    match file {
        Ok(file) => Ok((path, file)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(anyhow!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        )),
        Err(error) => Err(error)
            .with_context(|| format!("failed to create the container ID file {}", path.display())),
    }
}
