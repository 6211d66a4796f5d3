//! The server on real sockets. Clients are threads with time limits; the reactor has the
//! test's own.

use std::{
    io::{Read as _, Write as _},
    thread::{self, JoinHandle},
    time::Instant,
};

use tempfile::TempDir;

use super::*;

#[derive(Default)]
struct Recorder {
    typed: RefCell<Vec<u8>>,
    is_closed: Cell<bool>,
    sizes: RefCell<Vec<(u16, u16)>>,
}

impl Console for Recorder {
    async fn write_stdin(&self, bytes: &[u8]) -> Result<()> {
        self.typed.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }

    fn close_stdin(&self) {
        self.is_closed.set(true);
    }

    fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.sizes.borrow_mut().push((columns, rows));
        Ok(())
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Reads to the end in a thread.
fn collect(mut stream: UnixStream) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map(|_| bytes).unwrap()
    })
}

/// The output of a stream in these frames.
fn output(mut frames: &[u8], stream: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((header, rest)) = frames.split_first_chunk::<6>() {
        let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize;
        if header[..2] == [1, stream] {
            bytes.extend_from_slice(&rest[..length]);
        }
        frames = &rest[length..];
    }
    assert!(frames.is_empty());
    bytes
}

async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come");
        reactor::sleep(Duration::from_millis(1)).await;
    }
}

fn serve<T: 'static>(test: impl AsyncFnOnce(Attach, Rc<Recorder>, PathBuf) -> T + 'static) -> T {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("attach.sock");
    let socket = path.clone();
    let result = reactor::run(async move {
        let console = Rc::new(Recorder::default());
        let attach = Attach::listen(&socket, Rc::clone(&console)).unwrap();
        test(attach, console, socket).await
    });
    assert!(!path.exists(), "the socket is left");
    result.unwrap()
}

#[test]
fn every_client_gets_the_output_from_its_attachment_on() {
    serve(async |attach, _, path| {
        attach.output(Stream::Stdout, b"before");
        let first = collect(connect(&path));
        until(|| attach.clients() == 1).await;
        attach.output(Stream::Stdout, b"one");
        attach.output(Stream::Stderr, b"error");
        let second = collect(connect(&path));
        until(|| attach.clients() == 2).await;
        attach.output(Stream::Stdout, b"two");
        attach.end(Stream::Stderr);
        let third = collect(connect(&path));
        until(|| attach.clients() == 3).await;
        attach.end(Stream::Stdout);
        until(|| attach.clients() == 0).await;
        let [first, second, third] = [first, second, third].map(|client| client.join().unwrap());
        assert_eq!(first[..7], [0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((output(&first, 1), output(&first, 2)), (b"onetwo".to_vec(), b"error".to_vec()));
        assert_eq!((output(&second, 1), output(&second, 2)), (b"two".to_vec(), Vec::new()));
        assert_eq!(third[7..], [2, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0]);
        // After the end: nothing but that.
        let late = collect(connect(&path));
        until(|| late.is_finished()).await;
        assert_eq!(late.join().unwrap()[7..], [2, 1, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0]);
    });
}

#[test]
fn clients_type_and_set_the_size() {
    serve(async |attach, console, path| {
        let (mut first, mut second) = (connect(&path), connect(&path));
        first.write_all(&[16, 0, 0, 0, 0, 2, b'a', b'b', 18, 0, 0, 0, 0, 4, 0, 80, 0, 24]).unwrap();
        until(|| console.typed.borrow().len() == 2).await;
        second.write_all(&[16, 0, 0, 0, 0, 1, b'c', 17, 0, 0, 0, 0, 0]).unwrap();
        until(|| console.is_closed.get()).await;
        assert_eq!(*console.typed.borrow(), b"abc");
        assert_eq!(*console.sizes.borrow(), [(80, 24)]);
        // A closed sending half is not the end.
        first.shutdown(std::net::Shutdown::Write).unwrap();
        let first = collect(first);
        // What is not the protocol is.
        second.write_all(&[9, 9, 9, 9, 9, 9]).unwrap();
        until(|| attach.clients() == 1).await;
        attach.output(Stream::Stdout, b"still");
        attach.end(Stream::Stdout);
        attach.end(Stream::Stderr);
        assert_eq!(output(&first.join_in(&attach).await, 1), b"still");
    });
}

trait JoinIn {
    /// Waits for the thread while the reactor goes on.
    async fn join_in(self, attach: &Attach) -> Vec<u8>;
}

impl JoinIn for JoinHandle<Vec<u8>> {
    async fn join_in(self, _attach: &Attach) -> Vec<u8> {
        until(|| self.is_finished()).await;
        self.join().unwrap()
    }
}

#[test]
fn a_slow_client_is_disconnected_and_counted_and_the_others_lose_nothing() {
    serve(async |attach, _, path| {
        let slow = connect(&path);
        let fast = collect(connect(&path));
        until(|| attach.clients() == 2).await;
        let mut sent = Vec::new();
        let mut number = 0_u32;
        while attach.dropped_clients() == 0 {
            assert!(sent.len() < 64 << 20, "the slow client is never too slow");
            let chunk: Vec<u8> = (0..4000).flat_map(|n| (number + n).to_be_bytes()).collect();
            number += 4000;
            attach.output(Stream::Stdout, &chunk);
            sent.extend_from_slice(&chunk);
            // As much as the fast one takes: the test is not a race of the two.
            let clients = Rc::clone(&attach.clients);
            until(|| clients.list.borrow().iter().any(|c| c.queue.borrow().next() == Next::Wait))
                .await;
        }
        assert_eq!((attach.dropped_clients(), attach.clients()), (1, 1));
        attach.end(Stream::Stdout);
        attach.end(Stream::Stderr);
        assert!(output(&fast.join_in(&attach).await, 1) == sent);
        // It has the beginning, and then the end of the connection.
        let slow = collect(slow).join_in(&attach).await;
        assert!(slow.len() < sent.len());
    });
}

#[test]
fn there_is_a_limit_of_clients_and_room_again_when_one_leaves() {
    serve(async |attach, _, path| {
        let mut clients: Vec<UnixStream> = (0..MAX_CLIENTS).map(|_| connect(&path)).collect();
        until(|| attach.clients() == MAX_CLIENTS).await;
        let surplus = collect(connect(&path));
        assert_eq!(surplus.join_in(&attach).await, b"");
        // The container writes nothing: that a client is gone is seen without.
        drop(clients.pop());
        until(|| attach.clients() == MAX_CLIENTS - 1).await;
        let _next = connect(&path);
        until(|| attach.clients() == MAX_CLIENTS).await;
        // One that has closed its sending half first is seen too, when it goes.
        clients[0].shutdown(std::net::Shutdown::Write).unwrap();
        drop(clients.swap_remove(0));
        until(|| attach.clients() == MAX_CLIENTS - 1).await;
    });
}

#[test]
fn the_socket_is_for_its_owner_and_replaces_only_a_socket() {
    serve(async |attach, console, path| {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What a killed shim has left.
        let old = path.with_file_name("old.sock");
        drop(UnixListener::bind(&old).unwrap());
        let again = Attach::listen(&old, Rc::clone(&console)).unwrap();
        let client = connect(&old);
        until(|| again.clients() == 1).await;
        drop((again, client));
        let file = path.with_file_name("file");
        fs::write(&file, "").unwrap();
        let error = Attach::listen(&file, Rc::clone(&console)).err().unwrap();
        assert!(error.to_string().ends_with("file is not a socket"), "{error}");
        let nowhere = path.with_file_name("none").join("a.sock");
        let error = Attach::listen(&nowhere, console).err().unwrap();
        assert!(error.to_string().starts_with("listen at "), "{error:#}");
        drop(attach);
    });
}

#[test]
fn a_client_that_holds_is_waited_for_and_loses_nothing() {
    serve(async |attach, _, path| {
        let mut client = connect(&path);
        client.write_all(&[19, 0, 0, 0, 0, 0]).unwrap();
        until(|| attach.clients.list.borrow().iter().any(|c| c.queue.borrow().holds())).await;
        let (mut sent, mut waits) = (Vec::new(), 0);
        let mut reader = None;
        for number in 0..256_u32 {
            let chunk: Vec<u8> =
                (0..4000).flat_map(|n| (number * 4000 + n).to_be_bytes()).collect();
            attach.output(Stream::Stdout, &chunk);
            sent.extend_from_slice(&chunk);
            let now = std::pin::pin!(reactor::within(Duration::from_millis(20), attach.room()));
            if now.await.is_none() {
                waits += 1;
                // Only now does it read: until then the container would have waited.
                let stream = client.try_clone().unwrap();
                reader.get_or_insert_with(|| collect(stream));
                attach.room().await;
            }
        }
        assert!(waits > 0, "nobody waited");
        attach.end(Stream::Stdout);
        attach.end(Stream::Stderr);
        let reader = reader.expect("it was waited for");
        assert!(output(&reader.join_in(&attach).await, 1) == sent);
        assert_eq!(attach.dropped_clients(), 0);
    });
}

#[test]
fn a_client_that_holds_and_leaves_is_not_waited_for() {
    serve(async |attach, _, path| {
        let mut client = connect(&path);
        client.write_all(&[19, 0, 0, 0, 0, 0]).unwrap();
        until(|| attach.clients.list.borrow().iter().any(|c| c.queue.borrow().holds())).await;
        let chunk = vec![b'x'; PAYLOAD_BYTES];
        while reactor::within(Duration::from_millis(20), attach.room()).await.is_some() {
            attach.output(Stream::Stdout, &chunk);
        }
        drop(client);
        attach.room().await;
        assert_eq!(attach.clients(), 0);
    });
}
