use std::{
    io::{BufReader, ErrorKind},
    net::{TcpListener, UdpSocket},
    os::unix::net::{UnixDatagram, UnixListener},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use super::{super::Options as LogOptions, *};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn options(query: &str) -> Options {
    let uri = format!("hull-log:///x?{query}");
    LogOptions::parse(&uri).unwrap().forward.unwrap()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_795_266_000, 5_000)
}

/// Runs to the end, and drops what was begun.
fn run(test: impl Future<Output = ()> + 'static) {
    reactor::run(test).unwrap();
}

fn bind(directory: &Path) -> (String, UnixDatagram) {
    let path = directory.join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    (path.display().to_string(), socket)
}

/// The datagrams that are there.
fn received(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = vec![0; 1 << 16];
    std::iter::from_fn(|| match socket.recv(&mut buffer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        n => Some(String::from_utf8_lossy(&buffer[..n.unwrap()]).into_owned()),
    })
    .collect()
}

/// What comes after the header.
fn texts(socket: &UnixDatagram) -> Vec<String> {
    let text = |message: String| message.split_once("]: ").unwrap().1.to_owned();
    received(socket).into_iter().map(text).collect()
}

#[test]
fn each_line_is_a_message_before_put_returns() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let (path, socket) = bind(place.path());
        let forward =
            Forward::open(&options(&format!("syslog=unixgram://{path}&tag=t"))).await.unwrap();
        forward.put(Stream::Stdout, b"one\ntw", now()).await;
        assert_eq!(texts(&socket), ["one\n"]);
        // dockerd has no message for an empty line, and one for each 16 KiB of a long one.
        let long = [b"o\n\n".as_slice(), &[b'x'; 20_000], b"\nend"].concat();
        forward.put(Stream::Stdout, &long, now()).await;
        let found = texts(&socket);
        assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [4, 16_385, 3_617]);
        forward.put(Stream::Stderr, b"e\n", now()).await;
        let message = received(&socket).pop().unwrap();
        assert!(message.starts_with("<27>") && message.contains(" t["), "{message}");
        forward.end(Stream::Stdout, now()).await;
        assert_eq!(texts(&socket), ["end\n"]);
    });
}

#[test]
fn journald_gets_fields() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let (path, socket) = bind(place.path());
        let query = format!("journald={path}&field=CONTAINER_NAME=a&field=B=1%0a2");
        let forward = Forward::open(&options(&query)).await.unwrap();
        forward.put(Stream::Stderr, b"x\ny", now()).await;
        forward.end(Stream::Stderr, now()).await;
        let fields = "PRIORITY=3\nCONTAINER_NAME=a\nB\n\x03\0\0\0\0\0\0\x001\n2\n";
        let expected = [
            format!("{fields}MESSAGE=x\n"),
            format!("{fields}CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=y\n"),
        ];
        assert_eq!(received(&socket), expected);
    });
}

#[test]
fn a_receiver_that_is_not_there_is_an_error_at_the_start() {
    run(async {
        for (query, expected) in [
            ("syslog=unixgram:///nonexistent/log&tag=t", "no such file or directory"),
            ("syslog=unix:///nonexistent/log&tag=t", "no such file or directory"),
            ("syslog=tcp://127.0.0.1:1&tag=t", "127.0.0.1:1: connect: connection refused"),
            ("journald=/nonexistent/log", "journald is not enabled on this host"),
        ] {
            let error = Forward::open(&options(query)).await.err().unwrap();
            let sentence = crate::log::sentence(&error);
            assert!(sentence.starts_with("failed to initialize logging driver: "), "{sentence}");
            assert!(sentence.contains(expected), "{sentence}");
        }
    });
}

#[test]
fn a_receiver_that_was_started_again_misses_nothing_more_than_while_it_was_away() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let (path, socket) = bind(place.path());
        let forward =
            Forward::open(&options(&format!("syslog=unixgram://{path}&tag=t"))).await.unwrap();
        drop(socket);
        forward.put(Stream::Stdout, b"lost\nlost\n", now()).await;
        std::fs::remove_file(&path).unwrap();
        forward.put(Stream::Stdout, b"lost\n", now()).await;
        assert_eq!(forward.peer.lock().await.lost, 3);
        let (_, socket) = bind(place.path());
        forward.put(Stream::Stdout, b"here\n", now()).await;
        assert_eq!(texts(&socket), ["here\n"]);
        assert_eq!(forward.peer.lock().await.lost, 0);
    });
}

#[test]
fn streams_and_packets_reach_their_receivers() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("stream");
        let unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("[::1]:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(WEEK)).unwrap();
        let open = async |address: String| {
            Forward::open(&options(&format!("syslog={address}&tag=t"))).await.unwrap()
        };
        let lines = |reader: &mut dyn std::io::BufRead| -> Vec<String> {
            (0..2)
                .map(|_| {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    line.split_once("]: ").unwrap().1.to_owned()
                })
                .collect()
        };

        let forward = open(format!("unix://{}", path.display())).await;
        forward.put(Stream::Stdout, b"a\nb\n", now()).await;
        let mut reader = BufReader::new(unix.accept().unwrap().0);
        assert_eq!(lines(&mut reader), ["a\n", "b\n"]);

        let forward = open(format!("tcp://{}", tcp.local_addr().unwrap())).await;
        forward.put(Stream::Stdout, b"a\nb\n", now()).await;
        let mut reader = BufReader::new(tcp.accept().unwrap().0);
        assert_eq!(lines(&mut reader), ["a\n", "b\n"]);
        // A connection that the receiver has closed is not written to.
        drop(reader);
        forward.put(Stream::Stdout, b"c\nd\n", now()).await;
        let mut reader = BufReader::new(tcp.accept().unwrap().0);
        assert_eq!(lines(&mut reader), ["c\n", "d\n"]);

        let forward = open(format!("udp://{}", udp.local_addr().unwrap())).await;
        forward.put(Stream::Stdout, b"a\n", now()).await;
        let mut buffer = [0; 100];
        let n = udp.recv(&mut buffer).unwrap();
        assert!(buffer[..n].ends_with(b"]: a\n"));
    });
}

fn message(text: &str) -> Batch {
    let mut batch = Batch::default();
    batch.bytes.extend_from_slice(text.as_bytes());
    batch.end_entry(text.len());
    batch
}

#[test]
fn one_that_takes_nothing_is_waited_for_and_then_left_alone_for_a_while() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let (path, socket) = bind(place.path());
        let limits = Limits { stall: Duration::from_millis(20), rest: WEEK, ..Limits::default() };
        let mut peer = Peer::new(options::Address::Unixgram(path.into()), limits);
        // Its queue is short (net.unix.max_dgram_qlen).
        while peer.lost == 0 {
            peer.deliver(&message("x\n")).await;
        }
        let there = received(&socket).len();
        assert!(there > 0);
        peer.deliver(&message("y\n")).await;
        assert_eq!((received(&socket).len(), peer.lost), (0, 2), "it rests");
    });
}

#[test]
fn what_does_not_wait_is_kept_up_to_its_limit() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let (path, socket) = bind(place.path());
        let query = format!("syslog=unixgram://{path}&tag=t&mode=non-blocking&max-buffer-size=2k");
        let forward = Forward::open(&options(&query)).await.unwrap();
        // More than the receiver's queue and ours hold: nobody waits.
        for n in 0..2_000 {
            forward.put(Stream::Stdout, format!("{n}\n").as_bytes(), now()).await;
        }
        let queue = forward.queue.as_ref().unwrap();
        assert!(queue.bytes.get() <= 2_000 && queue.dropped.get() > 0);
        let mut found = Vec::new();
        let end = forward.end(Stream::Stdout, now());
        let mut end = std::pin::pin!(end);
        while reactor::within(Duration::from_millis(5), &mut end).await.is_none() {
            found.extend(texts(&socket));
        }
        found.extend(texts(&socket));
        let expected: Vec<String> = (0..found.len()).map(|n| format!("{n}\n")).collect();
        assert_eq!(found, expected, "in order, and the newest are dropped");
        assert!(found.len() < 2_000);
    });
}

#[test]
fn a_message_larger_than_the_buffer_is_taken_alone() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let (path, socket) = bind(place.path());
        let query = format!("syslog=unixgram://{path}&tag=t&mode=non-blocking&max-buffer-size=1");
        let forward = Forward::open(&options(&query)).await.unwrap();
        forward.put(Stream::Stdout, b"first\nsecond\n", now()).await;
        forward.end(Stream::Stdout, now()).await;
        assert_eq!(texts(&socket), ["first\n"]);
        forward.put(Stream::Stdout, b"third\n", now()).await;
        forward.end(Stream::Stdout, now()).await;
        assert_eq!(texts(&socket), ["third\n"]);
    });
}
