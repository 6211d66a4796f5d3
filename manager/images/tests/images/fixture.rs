//! A manager's images in a directory of their own, and images that are made here.

use std::{
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream;
use hull_manager_archive::{
    compression::{Compression, Compressor},
    tar::{Entry, Kind, Time, Writer},
};
use hull_manager_content::Content;
use hull_manager_core::{Journal, Result, Store};
use hull_manager_images::{Images, Parts};
use hull_manager_registry::{Registry, Settings};
use hull_manager_snapshots::Snapshotter;
use hull_specs_api::v1;
use hull_specs_image::{Digest, History, ImageConfig, RootFs};
use tokio::{runtime::Runtime, sync::mpsc};

pub(crate) struct Manager {
    pub(crate) images: Images,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) content: Content,
    pub(crate) journal: Journal,
    /// Before the directory: what still runs on it could make files there while it is removed.
    pub(crate) runtime: Runtime,
    pub(crate) directory: tempfile::TempDir,
}

impl Manager {
    pub(crate) fn new() -> Self {
        Self::with(settings())
    }

    /// With other words of the operator about registries.
    pub(crate) fn with(settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (images, snapshots, content, journal) = open(directory.path(), settings);
        Self { images, snapshots, content, journal, directory, runtime }
    }

    /// As after SIGKILL: another one in the same directory.
    pub(crate) fn again(self) -> Self {
        let Self { directory, runtime, .. } = self;
        let (images, snapshots, content, journal) = open(directory.path(), settings());
        Self { images, snapshots, content, journal, directory, runtime }
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Result<Vec<v1::LoadedImage>> {
        let requests: Vec<_> = archive
            .chunks(100_000)
            .map(|chunk| Ok(v1::LoadRequest { chunk: chunk.to_vec(), platform: String::new() }))
            .collect();
        let answers = self.answers(|answers| self.images.load(stream::iter(requests), answers))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer.event {
                Some(v1::load_response::Event::Loaded(loaded)) => Some(loaded),
                _ => None,
            })
            .collect())
    }

    /// Collects what an operation answers.
    pub(crate) fn answers<T: Send, F: Future<Output = Result<()>> + Send>(
        &self,
        work: impl FnOnce(mpsc::Sender<T>) -> F,
    ) -> Result<Vec<T>> {
        let (sender, mut receiver) = mpsc::channel(64);
        self.run(async {
            let collect = async {
                let mut all = Vec::new();
                while let Some(one) = receiver.recv().await {
                    all.push(one);
                }
                all
            };
            let (done, all) = futures_util::future::join(work(sender), collect).await;
            done.map(|()| all)
        })
    }

    pub(crate) fn save(&self, names: &[&str], format: v1::save_request::Format) -> Result<Vec<u8>> {
        let request = v1::SaveRequest {
            images: names.iter().map(|name| (*name).to_owned()).collect(),
            format: format.into(),
            platform: String::new(),
        };
        let answers = self.answers(|answers| self.images.save(request, answers))?;
        let mut bytes = Vec::new();
        for answer in answers {
            if let Some(v1::save_response::Event::Chunk(chunk)) = answer.event {
                bytes.extend(chunk);
            }
        }
        Ok(bytes)
    }

    pub(crate) fn list(&self, filters: &[(&str, &str)]) -> Result<Vec<v1::ImageSummary>> {
        let request = v1::ListImagesRequest { all: true, filters: self::filters(filters) };
        Ok(self.run(self.images.list(request))?.images)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.list(&[]).unwrap().into_iter().flat_map(|image| image.references).collect();
        names.sort();
        names
    }

    pub(crate) fn inspect(&self, image: &str) -> Result<v1::InspectImageResponse> {
        let request = v1::InspectImageRequest { image: image.into(), platform: String::new() };
        self.run(self.images.inspect(request))
    }

    pub(crate) fn tag(&self, image: &str, reference: &str) -> Result<()> {
        let request = v1::TagImageRequest { image: image.into(), reference: reference.into() };
        self.run(self.images.tag(request)).map(drop)
    }

    /// What was removed: `-reference` or `!digest`.
    pub(crate) fn remove(&self, image: &str, force: bool) -> Result<Vec<String>> {
        let request = v1::RemoveImageRequest { image: image.into(), force, no_prune: false };
        Ok(told(self.run(self.images.remove(request))?.removed))
    }

    /// Nothing is left of images: no layer, nothing staged, no blob after a day, no unfinished
    /// blob without a name.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.list(&[]).unwrap(), []);
        // Threads that were unpacking when another layer failed end by themselves.
        wait_for("no snapshot is left", || self.snapshots.list().unwrap().is_empty());
        self.assert_no_ingest();
        self.content.collect(|| Ok(std::collections::HashSet::new()), |_, _| true).unwrap();
        assert_eq!(self.content.list().unwrap(), []);
    }

    pub(crate) fn ingests(&self) -> Vec<(String, u64)> {
        std::fs::read_dir(self.directory.path().join("content/ingest"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
            })
            .collect()
    }

    pub(crate) fn assert_no_ingest(&self) {
        assert_eq!(self.ingests(), []);
    }

    /// The actions of images in the journal.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.journal.after(0, std::time::SystemTime::UNIX_EPOCH, 1000).unwrap();
        events.into_iter().map(|event| event.action).collect()
    }

    /// Reads a file of an image.
    pub(crate) fn read(&self, image: &str, path: &str) -> Option<Vec<u8>> {
        let chain = self.images.resolve(image, "").unwrap().chain_id.unwrap();
        let root = self.snapshots.mount_layer(&chain).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&root);
        std::fs::read(format!("/proc/self/fd/{fd}/{path}")).ok()
    }
}

/// Registries on this machine speak no TLS.
pub(crate) fn settings() -> Settings {
    Settings { insecure: vec!["127.0.0.0/8".into()], ..Settings::default() }
}

fn open(root: &Path, settings: Settings) -> (Images, Arc<dyn Snapshotter>, Content, Journal) {
    let store = Store::open(&root.join("meta.db")).unwrap();
    let journal = Journal::open(&store).unwrap();
    let content = Content::open(&root.join("content")).unwrap();
    let snapshots = hull_manager_snapshots::open(None, &root.join("snapshots"), &store).unwrap();
    let registry = Registry::new(settings).unwrap();
    let parts = Parts {
        store,
        journal: journal.clone(),
        content: content.clone(),
        snapshots: snapshots.clone(),
        registry,
    };
    (Images::open(parts).unwrap(), snapshots, content, journal)
}

pub(crate) fn told(removed: Vec<v1::RemovedImage>) -> Vec<String> {
    removed
        .into_iter()
        .filter_map(|one| one.what)
        .map(|what| match what {
            v1::removed_image::What::Untagged(name) => format!("-{name}"),
            v1::removed_image::What::Deleted(digest) => format!("!{digest}"),
        })
        .collect()
}

pub(crate) fn filters(pairs: &[(&str, &str)]) -> Vec<v1::Filter> {
    pairs
        .iter()
        .map(|(key, value)| v1::Filter { key: (*key).into(), values: vec![(*value).into()] })
        .collect()
}

pub(crate) fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        modified: Time { seconds: 0, nanoseconds: 0 },
        attributes: Vec::new(),
    }
}

/// A tar of files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        let kind = Kind::File { size: content.len() as u64, data: None };
        writer.whole(&entry(name, kind), content).unwrap();
    }
    writer.finish().unwrap().0
}

pub(crate) fn compress(form: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(form, Vec::new()).unwrap();
    compressor.write_all(bytes).unwrap();
    compressor.finish().unwrap()
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// An image's parts.
pub(crate) struct Sample {
    pub(crate) config: Vec<u8>,
    /// As they are in the archive.
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Sample {
    pub(crate) fn new(label: &str, form: Compression, layers: &[Vec<u8>]) -> Self {
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            created: Some("2026-01-02T03:04:05Z".into()),
            config: hull_specs_image::ContainerConfig {
                labels: [("label".to_owned(), label.to_owned())].into(),
                cmd: vec!["sh".into()],
                ..Default::default()
            },
            history: layers
                .iter()
                .map(|_| History { created_by: "a step".into(), ..History::default() })
                .collect(),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: layers.iter().map(|layer| Digest::of(layer)).collect(),
            },
            ..ImageConfig::default()
        };
        Self {
            config: serde_json::to_vec(&config).unwrap(),
            layers: layers.iter().map(|layer| compress(form, layer)).collect(),
        }
    }

    /// Two layers: the second changes, hides and adds.
    pub(crate) fn usual(label: &str, form: Compression) -> Self {
        let below = tar(&[("kept", b"below"), ("changed", b"old"), ("hidden", b"x")]);
        let above = tar(&[("changed", b"new"), (".wh.hidden", b""), ("added", label.as_bytes())]);
        Self::new(label, form, &[below, above])
    }

    pub(crate) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// As old dockers save it.
    pub(crate) fn archive(&self, tags: &[&str]) -> Vec<u8> {
        archive(&[(self, tags)])
    }
}

pub(crate) fn archive(images: &[(&Sample, &[&str])]) -> Vec<u8> {
    let mut files: std::collections::BTreeMap<String, Vec<u8>> = Default::default();
    let mut items = Vec::new();
    for (sample, tags) in images {
        let config = format!("{}.json", Digest::of(&sample.config).hex());
        let mut names = Vec::new();
        for layer in &sample.layers {
            let name = format!("{}/layer.tar", Digest::of(layer).hex());
            files.insert(name.clone(), layer.clone());
            names.push(name);
        }
        files.insert(config.clone(), sample.config.clone());
        items.push(serde_json::json!({"Config": config, "RepoTags": tags, "Layers": names}));
    }
    files.insert("manifest.json".into(), serde_json::to_vec(&items).unwrap());
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    tar(&files)
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
