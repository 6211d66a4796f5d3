//! The writer on real files, against a formatter that is slow and plain.

use std::{
    fs,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    time::{Duration, UNIX_EPOCH},
};

use flate2::read::GzDecoder;
use hull_runtime_sys::{mount, process::effective_uid};
use tempfile::TempDir;

use super::*;
use crate::output::compress_file;

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(1_795_266_000 + second, 123_456_789)
}

struct Log {
    directory: TempDir,
    query: String,
}

impl Log {
    fn new(query: &str) -> Self {
        Self { directory: TempDir::new().unwrap(), query: query.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("c.log")
    }

    fn options(&self) -> Options {
        let uri = format!("hull-log://{}?{}", self.path().display(), self.query);
        Options::parse(&uri).unwrap()
    }

    fn open(&self) -> Writer {
        Writer::open(&self.options()).unwrap()
    }

    /// The contents of all files, oldest first.
    fn contents(&self) -> Vec<Vec<u8>> {
        let options = self.options();
        let mut names = Present::look(&options.path, options.max_files).readable();
        names.reverse();
        let content = |name: Name| {
            let path = name.path(&options.path);
            let mut bytes = fs::read(&path).unwrap();
            if path.extension().is_some_and(|extension| extension == "gz") {
                let compressed = std::mem::take(&mut bytes);
                io::Read::read_to_end(&mut GzDecoder::new(&compressed[..]), &mut bytes).unwrap();
            }
            bytes
        };
        names.into_iter().map(content).collect()
    }

    fn text(&self) -> String {
        String::from_utf8(self.contents().concat()).unwrap()
    }

    /// The texts of the entries, with `P` before those that are parts.
    fn texts(&self) -> Vec<String> {
        let contents = self.contents().concat();
        let format = self.options().form.format;
        let entries = contents.strip_suffix(b"\n").unwrap_or(&contents).split(|b| *b == b'\n');
        let text = |entry: &[u8]| {
            let parsed = format.parse(entry).unwrap_or_else(|| panic!("{:?}", entry));
            let mark = if parsed.piece == Piece::Partial { "P " } else { "" };
            format!("{mark}{}", String::from_utf8_lossy(&parsed.text))
        };
        entries.filter(|entry| !entry.is_empty()).map(text).collect()
    }
}

/// A generator of numbers that look random (xorshift), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Output: short lines, long ones, and bytes of every kind.
    fn output(&mut self) -> Vec<u8> {
        let length = match self.below(8) {
            0 => self.below(40_000),
            1 => 0,
            _ => self.below(300),
        };
        let every = 1 + self.below(120);
        let kind = self.below(3);
        let byte = |numbers: &mut Self| match numbers.below(every) {
            0 => b'\n',
            1 if kind == 1 => b'\r',
            _ if kind == 0 => numbers.below(256) as u8,
            _ => b' ' + numbers.below(95) as u8,
        };
        (0..length).map(|_| byte(self)).collect()
    }
}

/// What dockerd's copier and json-file driver, or containerd's CRI logger, make of the output,
/// one byte after the other.
#[derive(Default)]
struct Reference {
    line: Vec<u8>,
    first: Option<SystemTime>,
}

impl Reference {
    fn entry(format: Format, stream: Stream, text: &[u8], end: bool, time: SystemTime) -> Vec<u8> {
        let since = time.duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_795_266_000;
        let (hour, minute) = (13 + since / 3600, since / 60 % 60);
        let time = format!("2026-11-21T{hour:02}:{minute:02}:{:02}.123456789Z", since % 60);
        if format == Format::Cri {
            let tag = if end { "F" } else { "P" };
            let head = format!("{time} {} {tag} ", stream.name());
            return [head.as_bytes(), text, b"\n"].concat();
        }
        let mut entry = String::from("{\"log\":\"");
        let mut rest = text;
        while !rest.is_empty() {
            let length = (1..=rest.len().min(4)).find(|n| std::str::from_utf8(&rest[..*n]).is_ok());
            let letter =
                length.and_then(|n| std::str::from_utf8(&rest[..n]).unwrap().chars().next());
            rest = &rest[length.unwrap_or(1)..];
            match letter {
                None => entry += "\\ufffd",
                Some('\n') => entry += "\\n",
                Some('\r') => entry += "\\r",
                Some(c @ ('"' | '\\')) => entry.extend(['\\', c]),
                Some(c @ ('\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}')) => {
                    entry += &format!("\\u{:04x}", u32::from(c));
                }
                Some(c) => entry.push(c),
            }
        }
        entry += if end { "\\n" } else { "" };
        entry += &format!("\",\"stream\":\"{}\",\"time\":\"{time}\"}}\n", stream.name());
        entry.into_bytes()
    }

    fn feed(&mut self, format: Format, stream: Stream, bytes: &[u8], now: SystemTime) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let mut text = std::mem::take(&mut self.line);
                if format == Format::Cri {
                    if text.last() == Some(&b'\r') {
                        text.pop();
                    }
                    if text.len() > 16384 {
                        out.extend(Self::entry(format, stream, &text[..16384], false, now));
                        text.drain(..16384);
                    }
                }
                let time = self.first.take().filter(|_| format == Format::JsonFile).unwrap_or(now);
                out.extend(Self::entry(format, stream, &text, true, time));
                continue;
            }
            self.line.push(*byte);
            if self.line.len() == if format == Format::Cri { 16386 } else { 16384 } {
                out.extend(self.part(format, stream, 16384, now));
            }
        }
        out
    }

    fn part(&mut self, format: Format, stream: Stream, length: usize, now: SystemTime) -> Vec<u8> {
        let text: Vec<u8> = self.line.drain(..length.min(self.line.len())).collect();
        let first = *self.first.get_or_insert(now);
        let time = if format == Format::JsonFile { first } else { now };
        if text.is_empty() { Vec::new() } else { Self::entry(format, stream, &text, false, time) }
    }
}

#[test]
fn any_output_gives_the_bytes_that_the_reference_gives() {
    for (name, format) in [("json-file", Format::JsonFile), ("cri", Format::Cri)] {
        for seed in 1..10 {
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let limit = 5000 + numbers.below(60_000);
            let log = Log::new(&format!("format={name}&max-file=1000&max-size={limit}"));
            let mut writer = log.open();
            let mut reference = [Reference::default(), Reference::default()];
            let mut expected = Vec::new();
            let mut plain = true;
            let mut output = Vec::new();
            for second in 0..60 {
                let stream = Stream::BOTH[numbers.below(2) as usize];
                let bytes = numbers.output();
                plain &= bytes.is_ascii();
                output.push((stream, bytes.clone()));
                writer.write(stream, &bytes, at(second)).unwrap();
                expected.extend(reference[stream as usize].feed(
                    format,
                    stream,
                    &bytes,
                    at(second),
                ));
                // Now, not later: what has ended is in the file.
                if second % 10 == 0 {
                    assert_eq!(log.contents().concat().len(), expected.len(), "seed {seed}");
                }
            }
            writer.finish(at(60)).unwrap();
            for stream in Stream::BOTH {
                for _ in 0..2 {
                    expected.extend(reference[stream as usize].part(format, stream, 16384, at(60)));
                }
            }
            let contents = log.contents();
            assert!(contents.concat() == expected, "seed {seed}");
            assert!(!log.directory.path().join("c.log.partial").exists());
            let (_last, full) = contents.split_last().unwrap();
            for file in full {
                let last = file[..file.len() - 1].rsplit(|byte| *byte == b'\n').next().unwrap();
                assert!(file.len() as u64 >= limit, "rotated too early");
                assert!(((file.len() - last.len() - 1) as u64) < limit, "rotated too late");
                assert_eq!(file.last(), Some(&b'\n'));
            }
            assert!(writer.take_rotation_error().is_none());
            if format == Format::JsonFile && plain {
                check_json(&contents.concat(), &output);
            }
        }
    }
}

/// What a JSON parser gets from the log is the output, byte for byte.
fn check_json(log: &[u8], output: &[(Stream, Vec<u8>)]) {
    let mut logged = [String::new(), String::new()];
    for entry in log.split(|byte| *byte == b'\n').filter(|entry| !entry.is_empty()) {
        let value: serde_json::Value = serde_json::from_slice(entry).unwrap();
        let stream = usize::from(value["stream"] == "stderr");
        logged[stream] += value["log"].as_str().unwrap();
    }
    for stream in Stream::BOTH {
        let written = output.iter().filter(|(to, _)| *to == stream).map(|(_, bytes)| &bytes[..]);
        let written: Vec<u8> = written.collect::<Vec<_>>().concat();
        assert!(logged[stream as usize].as_bytes() == written);
    }
}

#[test]
fn raw_output_is_the_same_bytes_and_is_rotated_between_lines() {
    let log = Log::new("format=raw&max-file=1000&max-size=20k");
    let mut writer = log.open();
    let (mut numbers, mut expected) = (Numbers(7), Vec::new());
    for second in 0..200 {
        let stream = Stream::BOTH[numbers.below(2) as usize];
        let bytes = numbers.output();
        writer.write(stream, &bytes, at(second)).unwrap();
        expected.extend(bytes);
        assert_eq!(log.contents().concat().len(), expected.len());
    }
    writer.finish(at(200)).unwrap();
    let contents = log.contents();
    assert!(contents.concat() == expected);
    assert!(contents.len() > 10);
    for file in &contents[..contents.len() - 1] {
        assert_eq!(file.last(), Some(&b'\n'));
    }
}

#[test]
fn a_raw_line_without_end_does_not_keep_the_file_from_rotating() {
    let log = Log::new("format=raw&max-file=3&max-size=1k");
    let mut writer = log.open();
    for second in 0..20 {
        writer.write(Stream::Stdout, &[b'x'; 10_000], at(second)).unwrap();
    }
    let sizes: Vec<usize> = log.contents().iter().map(Vec::len).collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size <= 80_000), "{sizes:?}");
}

#[test]
fn the_file_is_for_its_owner_and_group_and_nothing_but_a_file() {
    let log = Log::new("");
    drop(log.open());
    let mode = fs::metadata(log.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
    fs::remove_file(log.path()).unwrap();
    std::os::unix::fs::symlink("target", log.path()).unwrap();
    let error = format!("{:#}", Writer::open(&log.options()).unwrap_err());
    assert!(error.contains("oo many levels of symbolic links"), "{error}");
    fs::remove_file(log.path()).unwrap();
    hull_runtime_sys::fd::mkfifoat(File::open(log.directory.path()).unwrap(), c"c.log", 0o600)
        .unwrap();
    let error = format!("{:#}", Writer::open(&log.options()).unwrap_err());
    assert!(error.ends_with("is not a regular file"), "{error}");
    let missing = Options::parse("hull-log:///nonexistent/a/c.log").unwrap();
    assert!(Writer::open(&missing).is_err());
}

#[test]
fn a_file_is_rotated_when_its_first_entry_is_old() {
    let log = Log::new("format=cri&max-file=4&max-age=10");
    let mut writer = log.open();
    for second in [0, 9, 10, 15, 20, 21] {
        writer.write(Stream::Stdout, format!("{second}\n").as_bytes(), at(second)).unwrap();
    }
    let lines = log
        .contents()
        .iter()
        .map(|file| file.iter().filter(|b| **b == b'\n').count())
        .collect::<Vec<_>>();
    assert_eq!(lines, [2, 2, 2]);
    // A later shim knows the age by the file's own.
    drop(writer);
    let now = SystemTime::now();
    let mut writer = log.open();
    writer.write(Stream::Stdout, b"x\n", now).unwrap();
    assert_eq!(log.contents().len(), 3);
    writer.write(Stream::Stdout, b"y\n", now + Duration::from_secs(11)).unwrap();
    assert_eq!(log.contents().len(), 4);
}

#[test]
fn one_file_in_all_begins_anew_and_its_readers_keep_the_old_one() {
    let log = Log::new("format=cri&max-size=100");
    let mut writer = log.open();
    writer.write(Stream::Stdout, b"first\nsecond\n", at(0)).unwrap();
    let mut reader = File::open(log.path()).unwrap();
    writer.write(Stream::Stdout, b"third\n", at(0)).unwrap();
    writer.write(Stream::Stdout, b"fourth\n", at(0)).unwrap();
    assert_eq!(log.texts(), ["fourth"]);
    let mut old = String::new();
    io::Read::read_to_string(&mut reader, &mut old).unwrap();
    assert_eq!(old.lines().count(), 3);
}

#[test]
fn a_rotation_killed_at_any_step_loses_and_repeats_no_line() {
    for max_files in 2..5 {
        for files in 1..=max_files {
            for kill in 0.. {
                let log = Log::new(&format!("format=cri&max-file={max_files}&max-size=50"));
                let mut expected = Vec::new();
                let mut writer = log.open();
                // One entry a file.
                for number in 0..files {
                    writer
                        .write(Stream::Stdout, format!("{number:020}\n").as_bytes(), at(0))
                        .unwrap();
                    expected.push(format!("{number:020}"));
                }
                drop(writer);
                let present = Present::look(&log.path(), max_files);
                let steps = rotation::plan(&present);
                if kill > steps.len() {
                    break;
                }
                for step in &steps[..kill] {
                    rotation::apply(&log.path(), *step, &mut None).unwrap();
                }
                let mut writer = log.open();
                for number in 90..91 {
                    writer
                        .write(Stream::Stdout, format!("{number:020}\n").as_bytes(), at(0))
                        .unwrap();
                    expected.push(format!("{number:020}"));
                }
                let kept = log.texts();
                let surplus = expected.len() - kept.len();
                assert_eq!(kept, expected[surplus..], "{max_files} {files} {kill}");
                assert!(
                    kept.len() as u32 >= max_files.min(files + 1),
                    "{max_files} {files} {kill}"
                );
                assert!(!log.directory.path().join("c.log.new").exists());
            }
        }
    }
}

#[test]
fn half_an_entry_at_the_end_is_cut_off() {
    for (format, whole) in
        [("json-file", "{\"log\":\"a\\n\",\"stream\":\"stdout\"}\n"), ("cri", "t stdout F a\n")]
    {
        for (before, after) in
            [(format!("{whole}{{\"lo"), whole), ("{\"lo".to_owned(), ""), (whole.to_owned(), whole)]
        {
            let log = Log::new(&format!("format={format}"));
            fs::write(log.path(), before).unwrap();
            drop(log.open());
            assert_eq!(log.text(), after);
        }
    }
    let log = Log::new("format=cri");
    fs::write(log.path(), vec![b'x'; 200_000]).unwrap();
    let error = format!("{:#}", Writer::open(&log.options()).unwrap_err());
    assert!(error.ends_with("has no entry in its last 128 KiB"), "{error}");
    let log = Log::new("format=raw");
    fs::write(log.path(), "a\nhalf").unwrap();
    drop(log.open());
    assert_eq!(log.text(), "a\nhalf");
}

/// A killed shim: nothing of ours runs when a writer is dropped.
#[test]
fn a_line_that_had_begun_survives_a_kill_once() {
    for format in ["json-file", "cri"] {
        let log = Log::new(&format!("format={format}"));
        let mut writer = log.open();
        writer.write(Stream::Stdout, b"one\nPass", at(0)).unwrap();
        writer.write(Stream::Stderr, b"err", at(1)).unwrap();
        writer.write(Stream::Stdout, b"word: ", at(2)).unwrap();
        writer.write(Stream::Stderr, b"or\nnext\n", at(3)).unwrap();
        drop(writer);
        drop(log.open());
        drop(log.open());
        assert_eq!(log.texts(), ["one", "error", "next", "P Password: "], "{format}");
        let first_at = log.text().lines().last().unwrap().contains("13:00:02.123456789Z");
        assert!(first_at, "the part has the time of its last byte");
        assert!(!log.directory.path().join("c.log.partial").exists());
    }
}

/// Every order of the writes to the log and to the journal in which a kill can come: the files
/// as they were after each write are put together anew.
#[test]
fn a_kill_between_the_log_and_the_journal_loses_and_repeats_nothing() {
    let partial = |log: &Log| log.directory.path().join("c.log.partial");
    for (next, expected) in [
        // The line ends: the log has it, the journal still says that it has begun.
        (&b" end\n"[..], vec!["begin end", "P other"]),
        (b" end\nmore", vec!["begin end", "P other"]),
        // The line goes on: the log has nothing new.
        (b" more", vec!["P begin", "P other"]),
    ] {
        let log = Log::new("format=cri");
        let mut writer = log.open();
        writer.write(Stream::Stderr, b"other", at(0)).unwrap();
        writer.write(Stream::Stdout, b"begin", at(0)).unwrap();
        let before = fs::read(partial(&log)).unwrap();
        writer.write(Stream::Stdout, next, at(1)).unwrap();
        drop(writer);
        fs::write(partial(&log), before).unwrap();
        drop(log.open());
        assert_eq!(log.texts(), expected);
    }
}

#[test]
fn a_kill_after_a_rotation_keeps_the_lines_that_had_begun() {
    for max_files in [1, 3] {
        let log = Log::new(&format!("format=cri&max-file={max_files}&max-size=80"));
        let mut writer = log.open();
        writer.write(Stream::Stderr, b"other", at(0)).unwrap();
        writer.write(Stream::Stdout, b"first line, which fills the file\n", at(0)).unwrap();
        writer.write(Stream::Stdout, b"second line, which fills the file\nbegin", at(0)).unwrap();
        // The next entry would go to a new file: the kill comes when that has just been made.
        writer.may_rotate = true;
        writer.rotate(Stream::Stdout, false);
        drop(writer);
        drop(log.open());
        let texts = log.texts();
        assert_eq!(texts[texts.len() - 2..], ["P begin", "P other"], "{max_files}");
        // The same when a part of the batch was written, which ended the line that had begun.
        let log = Log::new(&format!("format=cri&max-file={max_files}&max-size=80"));
        let mut writer = log.open();
        writer.write(Stream::Stderr, b"other", at(0)).unwrap();
        writer.write(Stream::Stdout, b"begin", at(0)).unwrap();
        let mut batch = Batch::default();
        let frame = writer.options.form.frame(Stream::Stdout, at(0));
        frame.push(&mut batch, b"begin, and now it ends, and the file is full", Piece::Full, 0);
        writer.write_all(&batch.bytes, at(0)).unwrap();
        writer.may_rotate = true;
        writer.rotate(Stream::Stdout, true);
        drop(writer);
        drop(log.open());
        let repeated = log.texts().iter().filter(|text| text.contains("P begin")).count();
        assert_eq!(repeated, 0, "{:?}", log.texts());
        assert_eq!(log.texts().last().unwrap(), "P other");
    }
}

#[test]
fn a_torn_or_foreign_journal_is_no_line() {
    for content in [&b"hullpart"[..], b"", &[0; 100], &[0xff; 40_000]] {
        let log = Log::new("format=cri");
        fs::write(log.directory.path().join("c.log.partial"), content).unwrap();
        drop(log.open());
        assert_eq!(log.text(), "");
    }
    let log = Log::new("format=cri");
    let mut writer = log.open();
    writer.write(Stream::Stdout, &[b'x'; 9000], at(0)).unwrap();
    drop(writer);
    let path = log.directory.path().join("c.log.partial");
    let mut content = fs::read(&path).unwrap();
    content[8000] = b'y';
    fs::write(&path, content).unwrap();
    drop(log.open());
    assert_eq!(log.text(), "");
}

/// A file system of so many bytes that nobody else sees, and that ends with the descriptor.
fn small_file_system(bytes: usize) -> Option<(OwnedFd, PathBuf)> {
    if effective_uid() != 0 {
        eprintln!("skipped: needs root");
        return None;
    }
    let context = mount::Context::open("tmpfs").unwrap();
    context.set("size", &bytes.to_string()).unwrap();
    context.create().unwrap();
    let mount = context.mount(mount::Attributes::default()).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    Some((mount, path))
}

#[test]
fn a_full_disk_costs_counted_bytes_and_the_log_says_so_afterwards() {
    for format in ["json-file", "cri", "raw"] {
        let Some((_mount, directory)) = small_file_system(64 * 1024) else { return };
        let uri = format!("hull-log://{}/c.log?format={format}", directory.display());
        let options = Options::parse(&uri).unwrap();
        let filler = directory.join("filler");
        fs::write(&filler, [0; 8192]).unwrap();
        let mut writer = Writer::open(&options).unwrap();
        let lines: Vec<u8> =
            (0..100).flat_map(|n| format!("line {n:094}\n").into_bytes()).collect();
        let (mut lost, mut written, mut failures) = (0, 0, 0);
        for second in 0..20 {
            written += lines.len() as u64;
            if let Err(error) = writer.write(Stream::Stdout, &lines, at(second)) {
                assert_eq!(error.cause.raw_os_error(), Some(libc::ENOSPC));
                lost += error.dropped_bytes;
                failures += 1;
            }
        }
        assert!(failures > 10 && lost > 0 && lost < written);
        fs::remove_file(&filler).unwrap();
        writer.write(Stream::Stdout, b"room again\n", at(30)).unwrap();
        writer.finish(at(31)).unwrap();
        let log = fs::read_to_string(&options.path).unwrap();
        let form = options.form.format;
        let texts: Vec<String> = log
            .lines()
            .map(|entry| String::from_utf8(form.parse(entry.as_bytes()).unwrap().text).unwrap())
            .collect();
        let whole = texts
            .iter()
            .filter(|text| text.starts_with("line "))
            .inspect(|text| assert_eq!(text.len(), 99));
        let kept = whole.count() as u64 * 100;
        assert_eq!(kept + lost, written, "every byte is in the log or counted");
        let told = format!(
            "[hull: {lost} bytes of output were not written: No space left on device (os error 28)]"
        );
        assert_eq!(texts[texts.len() - 2..], [told, "room again".to_owned()]);
    }
}

#[test]
fn a_rotation_that_fails_leaves_the_file_in_use_and_is_tried_again() {
    let log = Log::new("format=cri&max-file=2&max-size=50");
    let mut writer = log.open();
    writer.write(Stream::Stdout, b"first line, to fill the file\n", at(0)).unwrap();
    // A directory can't be replaced by a file.
    let obstacle = log.directory.path().join("c.log.1");
    fs::create_dir_all(obstacle.join("x")).unwrap();
    writer.write(Stream::Stdout, b"second\nthird\n", at(0)).unwrap();
    let error = format!("{:#}", writer.take_rotation_error().unwrap());
    assert!(error.starts_with("remove ") && error.contains("c.log.1"), "{error}");
    fs::remove_dir_all(&obstacle).unwrap();
    assert_eq!(log.texts(), ["first line, to fill the file", "second", "third"]);
    writer.write(Stream::Stdout, b"fourth\n", at(0)).unwrap();
    assert!(writer.take_rotation_error().is_none());
    assert_eq!(log.texts(), ["first line, to fill the file", "second", "third", "fourth"]);
    assert_eq!(log.contents().len(), 2);
}

#[test]
fn rotated_files_are_compressed_and_keep_their_place() {
    let log = Log::new("format=cri&max-file=4&max-size=60&compress=true");
    let mut writer = log.open();
    assert_eq!(writer.next_compression(), None);
    let mut line = 0;
    let mut rotate = |writer: &mut Writer| {
        line += 1;
        writer.write(Stream::Stdout, format!("{line:040}\n").as_bytes(), at(0)).unwrap();
    };
    rotate(&mut writer);
    rotate(&mut writer);
    let path = writer.next_compression().unwrap();
    assert_eq!(path, log.directory.path().join("c.log.1"));
    assert_eq!(writer.next_compression(), None, "one at a time");
    compress_file(&path).unwrap();
    writer.compression_ended(true);
    assert_eq!(writer.next_compression(), None);
    rotate(&mut writer);
    rotate(&mut writer);
    let names = |log: &Log| {
        let entries = fs::read_dir(log.directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&log), "c.log c.log.1 c.log.2 c.log.3.gz");
    for expected in ["c.log.1", "c.log.2"] {
        let path = writer.next_compression().unwrap();
        assert_eq!(path, log.directory.path().join(expected));
        compress_file(&path).unwrap();
        writer.compression_ended(true);
    }
    assert_eq!(names(&log), "c.log c.log.1.gz c.log.2.gz c.log.3.gz");
    let lines: Vec<String> = (1..=4).map(|n| format!("{n:040}")).collect();
    assert_eq!(log.texts(), lines);
    assert_eq!(writer.tail(3, 10_000).unwrap(), lines[1..]);
    rotate(&mut writer);
    let last: Vec<String> = (2..=5).map(|n| format!("{n:040}")).collect();
    assert_eq!(log.texts(), last);
    // A killed compression leaves both forms.
    fs::write(log.directory.path().join("c.log.1.gz"), b"half").unwrap();
    fs::write(log.directory.path().join("c.log.gz.tmp"), b"half").unwrap();
    assert_eq!(log.texts(), last);
    compress_file(&writer.next_compression().unwrap()).unwrap();
    assert_eq!(log.texts(), last);
    assert_eq!(names(&log), "c.log c.log.1.gz c.log.2.gz c.log.3.gz");
    assert!(compress_file(&log.path()).is_err());
}

#[test]
fn the_last_lines_are_read_back_over_files_and_pieces() {
    for format in ["json-file", "cri", "raw"] {
        let log = Log::new(&format!("format={format}&max-file=50&max-size=200"));
        let mut writer = log.open();
        assert!(writer.tail(20, 1000).unwrap().is_empty());
        for number in 0..30 {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), at(0)).unwrap();
        }
        let long = "x".repeat(40_000);
        writer.write(Stream::Stdout, format!("{long}\n").as_bytes(), at(0)).unwrap();
        writer.write(Stream::Stdout, "end \u{fc}".as_bytes(), at(0)).unwrap();
        writer.finish(at(0)).unwrap();
        let tail = writer.tail(20, 100_000).unwrap();
        assert_eq!(tail.len(), 20, "{format}");
        assert_eq!(tail[0], "line 12");
        assert_eq!(tail[18..], [long, "end \u{fc}".to_owned()], "{format}");
        let tail = writer.tail(20, 10).unwrap();
        assert_eq!(tail, ["xxxx", "end \u{fc}"]);
        assert_eq!(writer.tail(20, 1).unwrap(), [""; 0], "not half a letter");
        assert!(writer.tail(0, 100).unwrap().is_empty());
    }
}
