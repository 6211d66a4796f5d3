//! Standard input, read by a thread of its own: a blocking read can't be given up, and must not
//! hold the program's end.

use std::io::{self, Read as _};

use tokio::sync::mpsc;

/// Chunks of standard input, until its end; a read error is an end too.
pub(crate) fn chunks() -> mpsc::Receiver<Vec<u8>> {
    // Two: what is read ahead of a container that does not read.
    let (sender, receiver) = mpsc::channel(2);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
    receiver
}
