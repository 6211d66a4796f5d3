//! Pulls from a registry that has whims (H4): cuts, lies, stalls, refuses, floods. Each ends with
//! the right image or a clear error, and the last one, without whims, with the image.
//!
//! `HULL_PULLS` says how many; the full size is 1000.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hull_manager_archive::compression::Compression;
use hull_manager_core::ErrorKind;
use hull_manager_registry::{Limits, Settings};
use hull_specs_image::{Descriptor, Digest, Manifest, media_type};

use crate::{
    fixture::{Manager, Sample, noise, settings, tar, wait_for},
    transfers::pull,
};

/// One in so many answers is not as it should be.
const WHIMS: usize = 3;
/// Longer than whoever waits.
const STALL: Duration = Duration::from_millis(700);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }
}

/// What there is: path, type, content.
type Content = Vec<(String, &'static str, Vec<u8>)>;

struct Whimsical {
    content: Content,
    random: Mutex<Random>,
    calm: AtomicBool,
}

impl Whimsical {
    fn serve(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                // A client that has enough is an error, and no fault of anybody.
                std::thread::spawn(move || drop(server.answer(&stream)));
            }
        });
        address
    }

    fn answer(&self, mut stream: &TcpStream) -> io::Result<()> {
        // Whether it speaks TLS is asked first.
        let mut first = [0];
        if stream.peek(&mut first)? == 0 || !first[0].is_ascii_uppercase() {
            return Ok(());
        }
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = first.split(' ').nth(1).unwrap_or_default();
        let offset = head.iter().find_map(|line| {
            let range = line.to_lowercase().strip_prefix("range: bytes=")?.to_owned();
            range.strip_suffix('-')?.parse::<usize>().ok()
        });
        let found = self.content.iter().find(|(own, _, _)| own == path);
        let Some((_, kind, content)) = found else {
            let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
            return stream.write_all(&reply(status, "", 0, b""));
        };
        let from = offset.unwrap_or(0).min(content.len());
        let mut body = content[from..].to_vec();
        if first.starts_with("HEAD") {
            let head = format!("Content-Type: {kind}\r\n");
            return stream.write_all(&reply("200 OK", &head, content.len(), b""));
        }
        let status = if offset.is_some() { "206 Partial Content" } else { "200 OK" };
        let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
        let mut head = format!("Content-Type: {kind}\r\n");
        if offset.is_some() {
            head += &format!("Content-Range: {range}\r\n");
        }
        let (whim, at) = {
            let mut random = self.random.lock().unwrap();
            let honest = self.calm.load(Ordering::Relaxed) || random.below(WHIMS) != 0;
            (if honest { usize::MAX } else { random.below(15) }, random.below(body.len()))
        };
        let length = body.len();
        let sent = match whim {
            0 => reply(status, &head, length, &body[..at]),
            1 => {
                body[at] ^= 1;
                reply(status, &head, length, &body)
            }
            2 => reply(status, &head, length + 1000, &[&body[..], &[0; 1000]].concat()),
            3 => reply(status, &head, at, &body[..at]),
            4 => reply("429 Too Many Requests", "Retry-After: 0\r\n", 0, b""),
            5 => reply("503 Service Unavailable", "", 4, b"busy"),
            6 => reply("401 Unauthorized", "", 0, b""),
            7 => reply("302 Found", &format!("Location: {path}\r\n"), 0, b""),
            8 => {
                stream.write_all(&reply(status, &head, length, &body[..at]))?;
                std::thread::sleep(STALL);
                return Ok(());
            }
            9 => {
                stream.write_all(&reply(status, &head, length, &body[..at]))?;
                for byte in body[at..].iter().take(200) {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Ok(());
            }
            10 => {
                let head = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n{head}\r\n");
                stream.write_all(head.as_bytes())?;
                let piece = [&b"10000\r\n"[..], &[b'x'; 1 << 16], b"\r\n"].concat();
                loop {
                    stream.write_all(&piece)?;
                }
            }
            11 => b"\x16\x03\x01 this is no answer\r\n\r\n".to_vec(),
            12 => Vec::new(),
            13 => reply("404 Not Found", "", 0, b""),
            14 => {
                let bomb = crate::fixture::compress(Compression::Gzip, &vec![0; 8 << 20]);
                reply(status, &head, bomb.len(), &bomb)
            }
            _ => reply(status, &head, length, &body),
        };
        stream.write_all(&sent)
    }
}

fn reply(status: &str, head: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// An image of three layers, and everything that a registry has of it.
fn content(sample: &Sample) -> Content {
    let layers: Vec<Descriptor> =
        sample.layers.iter().map(|layer| Descriptor::of(media_type::LAYER_GZIP, layer)).collect();
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: None,
        config: Descriptor::of(media_type::CONFIG, &sample.config),
        layers,
        subject: None,
        annotations: Default::default(),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut all = vec![("/v2/whims/manifests/latest".to_owned(), media_type::MANIFEST, manifest)];
    for blob in sample.layers.iter().chain([&sample.config]) {
        let path = format!("/v2/whims/blobs/{}", Digest::of(blob));
        all.push((path, "application/octet-stream", blob.clone()));
    }
    all
}

pub(crate) fn whims_of_a_registry_do_no_harm() {
    let pulls: usize = std::env::var("HULL_PULLS").map_or(50, |text| text.parse().unwrap());
    let layers = [1, 2, 3].map(|seed| tar(&[("large", &noise(seed, 200_000))]));
    let sample = Sample::new("whims", Compression::Gzip, &layers);
    let server = Arc::new(Whimsical {
        content: content(&sample),
        random: Mutex::new(Random(0x9e37_79b9_7f4a_7c15)),
        calm: AtomicBool::new(false),
    });
    let name = format!("{}/whims", server.serve());
    let limits = Limits {
        connect: Duration::from_secs(2),
        idle: Duration::from_millis(400),
        document: Duration::from_secs(1),
        trickle: Duration::from_millis(500),
        trickle_bytes: 1 << 10,
        retries: 4,
        backoff: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let manager = Manager::with(Settings { limits, ..settings() });
    let whole = |what: &str| {
        assert_eq!(manager.read(&name, "large").unwrap(), noise(3, 200_000), "{what}");
        manager.remove(&name, false).unwrap();
        wait_for("its layers are gone", || manager.snapshots.list().unwrap().is_empty());
        manager.content.collect(|| Ok(Default::default()), |_, _| true).unwrap();
    };
    let mut good = 0;
    for number in 0..pulls {
        match pull(&manager, &name) {
            Ok((pulled, _)) => {
                assert_eq!(pulled.image_id, sample.id());
                whole(&format!("pull {number}"));
                good += 1;
            }
            Err(error) => {
                let sentence = error.to_string();
                assert!(
                    !matches!(error.kind(), ErrorKind::Internal) && !sentence.contains('\n'),
                    "pull {number}: {error:?}"
                );
                assert_eq!(manager.list(&[]).unwrap(), [], "pull {number}");
            }
        }
    }
    println!("{good} of {pulls} pulls brought the image");
    server.calm.store(true, Ordering::Relaxed);
    pull(&manager, &name).unwrap();
    whole("without whims");
    manager.assert_empty();
}
