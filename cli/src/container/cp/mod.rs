//! `hull cp`: a tar goes from here to there. Both ends of it that are ours are the archive
//! worker's, never a path that an archive names.

mod plan;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_manager_archive::{
    Options, Owners, Whiteouts,
    worker::{self, Files, Job, Packing},
};
use hull_runtime_sys::process;
use hull_specs_api::v1::{
    CopyInOpen, CopyInRequest, CopyOutRequest, PathStat, StatPathRequest, copy_in_request,
    copy_out_response::Part,
};
use tokio_stream::wrappers::ReceiverStream;

use plan::{End, Unpacking, component, end, is_content, is_dir, packing, unpacking};

use crate::{
    args::container::CpArgs,
    connect::Manager,
    failure::{is_not_found, refused},
    transfer::{Target, upload},
};

/// Copies.
pub(crate) async fn copy(manager: &Manager, args: &CpArgs) -> Result<u8> {
    match (end(&args.source), end(&args.target)) {
        (End::There(..), End::There(..)) => bail!("copying between containers is not supported"),
        (End::There(container, path), target) => {
            out(manager, args, &container, &path, target).await
        }
        (source, End::There(container, path)) => {
            into(manager, args, source, &container, &path).await
        }
        _ => bail!("must specify at least one container source"),
    }?;
    Ok(0)
}

async fn out(
    manager: &Manager,
    args: &CpArgs,
    container: &str,
    path: &str,
    target: End,
) -> Result<()> {
    let request = CopyOutRequest {
        container: container.to_owned(),
        // With the slash: a directory is meant.
        path: path.strip_suffix("/.").map_or(path.to_owned(), |path| format!("{path}/")),
        follow_link: args.follow_link,
    };
    let mut parts = manager.containers().copy_out(request).await.map_err(refused)?.into_inner();
    let first = parts.message().await.map_err(refused)?.and_then(|part| part.part);
    let Some(Part::Stat(stat)) = first else { bail!("the manager sent no file") };
    let End::Here(target) = target else {
        let mut stdout = Target::open(None)?;
        while let Some(part) = parts.message().await.map_err(refused)? {
            if let Some(Part::Chunk(chunk)) = part.part {
                stdout.write(&chunk)?;
            }
        }
        return stdout.finish();
    };
    let plan = unpacking(&stat, is_content(path), &target)?;
    let options = Options {
        whiteouts: Whiteouts::Keep,
        owners: if args.archive {
            Owners::Archive
        } else {
            Owners::Are(process::effective_uid(), process::effective_gid())
        },
        ..Options::default()
    };
    let stage = plan.stage()?;
    let root = directory(stage.path())?;
    let files = Files { root: root.as_fd(), base: None, input: None, output: None };
    let mut worker = worker::spawn(&Job::Unpack { options }, files)?;
    let mut input = worker.input.take().context("the worker takes no archive")?;
    let mut broken = false;
    while let Some(part) = parts.message().await.map_err(refused)? {
        if let Some(Part::Chunk(chunk)) = part.part
            && let Err(error) = input.write_all(&chunk)
        {
            // The worker has ended: it says why.
            broken = error.kind() == io::ErrorKind::BrokenPipe;
            if broken {
                break;
            }
            return Err(error.into());
        }
    }
    drop(input);
    worker.finish()?;
    if broken {
        bail!("the archive did not end where it should");
    }
    plan.settle(stage, options)
}

/// Where it is unpacked at first.
#[derive(Debug)]
enum Stage {
    Target(PathBuf),
    /// A directory of ours, taken away when this is dropped.
    Own(PathBuf),
}

impl Stage {
    fn path(&self) -> &Path {
        match self {
            Self::Target(path) | Self::Own(path) => path,
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Self::Own(path) = self {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Unpacking {
    fn stage(&self) -> Result<Stage> {
        let beside = match self {
            Self::Beneath(target) => return Ok(Stage::Target(target.clone())),
            Self::As(target, _) => parent(target),
            Self::Content(target, _) => target.clone(),
        };
        let path = beside.join(format!(".hull-cp-{}", process_id()));
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .with_context(|| format!("invalid output path: {}", beside.display()))?;
        Ok(Stage::Own(path))
    }

    fn settle(&self, stage: Stage, options: Options) -> Result<()> {
        match self {
            Self::Beneath(_) => Ok(()),
            Self::As(target, name) => fs::rename(stage.path().join(component(name)?), target)
                .with_context(|| format!("write {}", target.display())),
            Self::Content(target, name) => {
                let from = directory(&stage.path().join(component(name)?))?;
                let job = Job::Pack {
                    at: b".".to_vec(),
                    name: Vec::new(),
                    follow: false,
                    packing: Packing::Plain,
                };
                let (reader, writer) = io::pipe()?;
                let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
                let packing = worker::spawn(
                    &job,
                    Files {
                        root: from.as_fd(),
                        base: None,
                        input: None,
                        output: Some(writer.as_fd()),
                    },
                )?;
                drop(writer);
                let to = directory(target)?;
                let unpacking = worker::spawn(
                    &Job::Unpack { options },
                    Files {
                        root: to.as_fd(),
                        base: None,
                        input: Some(reader.as_fd()),
                        output: None,
                    },
                )?;
                drop(reader);
                unpacking.finish()?;
                packing.finish()?;
                Ok(())
            }
        }
    }
}

fn process_id() -> u32 {
    std::process::id()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    }
}

fn directory(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

async fn into(
    manager: &Manager,
    args: &CpArgs,
    source: End,
    container: &str,
    path: &str,
) -> Result<()> {
    let there = stat(manager, container, path).await?;
    let open = |path: String| CopyInOpen {
        container: container.to_owned(),
        path,
        no_overwrite_dir_non_dir: true,
    };
    let End::Here(source) = source else {
        if there.as_ref().is_none_or(|there| !is_dir(there)) {
            bail!("destination \"{container}:{path}\" must be a directory");
        }
        return send(manager, Box::new(io::stdin()), open(path.to_owned())).await;
    };
    let text = source.to_str().context("the source is not UTF-8")?.to_owned();
    let here = fs::symlink_metadata(&source)
        .map_err(|_| anyhow!("lstat {}: no such file or directory", source.display()))?;
    let (real, here) = if args.follow_link || is_content(&text) || text.ends_with('/') {
        let real = fs::canonicalize(&source).with_context(|| format!("open {text}"))?;
        let here = fs::metadata(&real).with_context(|| format!("lstat {text}"))?;
        (real, here)
    } else {
        (parent_real(&source)?.join(source.file_name().context("the source has no name")?), here)
    };
    let own_name = source
        .file_name()
        .or_else(|| real.file_name())
        .map(|name| name.to_string_lossy().into_owned());
    let (at, name) = packing(
        here.is_dir(),
        is_content(&text),
        &own_name.unwrap_or_default(),
        path,
        there.as_ref(),
    )?;
    let root = directory(&parent(&real))?;
    let job = Job::Pack {
        at: real.file_name().map_or_else(
            || b".".to_vec(),
            |name| std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec(),
        ),
        name: name.into_bytes(),
        follow: false,
        packing: Packing::Plain,
    };
    let files = Files { root: root.as_fd(), base: None, input: None, output: None };
    let mut worker = worker::spawn(&job, files)?;
    let output = worker.output.take().context("the worker gives no archive")?;
    send(manager, Box::new(output), open(at)).await?;
    worker.finish()?;
    Ok(())
}

fn parent_real(path: &Path) -> Result<PathBuf> {
    let parent = parent(path);
    fs::canonicalize(&parent).with_context(|| format!("open {}", parent.display()))
}

/// A path in the container, through one link at its end.
async fn stat(manager: &Manager, container: &str, path: &str) -> Result<Option<PathStat>> {
    let mut path = path.to_owned();
    for _ in 0..2 {
        let request = StatPathRequest { container: container.to_owned(), path: path.clone() };
        match manager.containers().stat_path(request).await.map_err(refused) {
            Ok(answer) => {
                let stat = answer.into_inner();
                if stat.link_target.is_empty() {
                    return Ok(Some(stat));
                }
                path = if stat.link_target.starts_with('/') {
                    stat.link_target
                } else {
                    format!(
                        "{}/{}",
                        path.rsplit_once('/').map_or("", |(parent, _)| parent),
                        stat.link_target
                    )
                };
            }
            Err(error)
                if is_not_found(&error) && !error.to_string().contains("No such container") =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn send(manager: &Manager, source: Box<dyn io::Read + Send>, open: CopyInOpen) -> Result<()> {
    let first = CopyInRequest { part: Some(copy_in_request::Part::Open(open)) };
    let (chunks, mut failed) = upload(source, Some(first), |chunk| CopyInRequest {
        part: Some(copy_in_request::Part::Chunk(chunk)),
    });
    manager.containers().copy_in(ReceiverStream::new(chunks)).await.map_err(refused)?;
    if let Ok(error) = failed.try_recv() {
        return Err(error).context("read the source");
    }
    Ok(())
}
