//! A TCP connection between two network namespaces, and what goes through it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hull_integration::figures::{median, sorted};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;

/// How long one measurement of throughput goes.
const WHILE: Duration = Duration::from_millis(300);
/// How many questions one measurement of latency asks.
const QUESTIONS: usize = 2000;
const CHUNK: usize = 128 * 1024;

/// A way from one namespace to a server in another.
pub(crate) struct Way {
    pub(crate) from: File,
    pub(crate) to: File,
    /// Where the client connects to.
    pub(crate) address: SocketAddr,
    /// Where the server listens.
    pub(crate) port: u16,
}

impl Way {
    /// A listening socket of the far end.
    fn listen(&self) -> TcpListener {
        let listen = || TcpListener::bind(("0.0.0.0", self.port)).expect("the port is free there");
        inside(&self.to, 0, listen)
    }

    /// Gbit/s, the client on one processor and the server on another.
    pub(crate) fn throughput(&self) -> f64 {
        let listener = self.listen();
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                inside(&self.to, 1, || {
                    let (mut stream, _) = listener.accept().expect("it listens");
                    let (mut buffer, mut total) = (vec![0; CHUNK], 0_usize);
                    let begun = Instant::now();
                    loop {
                        match stream.read(&mut buffer).expect("the client sends") {
                            0 => return total as f64 / begun.elapsed().as_secs_f64(),
                            count => total += count,
                        }
                    }
                })
            });
            inside(&self.from, 0, || {
                let mut stream = self.connect();
                let (buffer, begun) = (vec![0; CHUNK], Instant::now());
                while begun.elapsed() < WHILE {
                    stream.write_all(&buffer).expect("the server reads");
                }
            });
            server.join().expect("it only reads") * 8.0 / 1e9
        })
    }

    /// From a question of one byte to its answer, the median in microseconds. Both ends are on
    /// one processor, so that only the way is measured, and not how processors wake each other.
    pub(crate) fn latency(&self) -> f64 {
        let listener = self.listen();
        thread::scope(|scope| {
            scope.spawn(|| {
                inside(&self.to, 0, || {
                    let (mut stream, _) = listener.accept().expect("it listens");
                    stream.set_nodelay(true).expect("it is TCP");
                    let mut byte = [0];
                    while stream.read(&mut byte).is_ok_and(|count| count > 0) {
                        stream.write_all(&byte).expect("the client reads");
                    }
                });
            });
            inside(&self.from, 0, || {
                let mut stream = self.connect();
                stream.set_nodelay(true).expect("it is TCP");
                let mut byte = [0];
                let mut ask = || {
                    let begun = Instant::now();
                    stream.write_all(&byte).expect("the server reads");
                    stream.read_exact(&mut byte).expect("the server answers");
                    begun.elapsed().as_secs_f64() * 1e6
                };
                median(&sorted((0..QUESTIONS).map(|_| ask()).collect()))
            })
        })
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .unwrap_or_else(|error| panic!("connect to {}: {error}", self.address))
    }
}

/// Does something in a namespace and on a processor, on a thread that ends with it.
pub(crate) fn inside<T: Send>(
    namespace: &File,
    processor: usize,
    work: impl FnOnce() -> T + Send,
) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the suite is root");
            let mut set = CpuSet::new();
            // Where there is but one, it is shared.
            if set.set(processor).is_ok() {
                let _ = sched_setaffinity(Pid::from_raw(0), &set);
            }
            work()
        });
        thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    })
}
