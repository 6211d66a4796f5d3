//! Output on its way to a client: the container waits for the client while it lives; what it
//! leaves behind at its end is taken at once and kept for the client.

use std::sync::Arc;

use hull_manager_core::Result;
use hull_specs_api::v1::{AttachResponse, Ended, attach_response::Message};
use tokio::sync::{Semaphore, mpsc};

use super::wire::Stream;

/// So many bytes may wait for a client, before the container waits.
const QUEUE_BYTES: usize = 256 * 1024;

/// The end into which output is put. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Funnel {
    queue: mpsc::UnboundedSender<(Stream, Vec<u8>)>,
    room: Arc<Semaphore>,
}

/// The client is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Funnel {
    /// Puts output in when there is room for it, or when `over` is ready: nothing more will be
    /// written then but what the kernel's buffers hold.
    pub(crate) async fn put(
        &self,
        stream: Stream,
        bytes: Vec<u8>,
        over: impl Future<Output = ()>,
    ) -> Result<(), Gone> {
        let count = u32::try_from(bytes.len().min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        tokio::select! {
            // Closed only with the queue.
            permit = self.room.acquire_many(count) => match permit {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(Gone),
            },
            () = over => {}
        }
        self.queue.send((stream, bytes)).map_err(|_| Gone)
    }

    /// Ready when the client is gone.
    pub(crate) async fn gone(&self) {
        self.queue.closed().await;
    }
}

/// A funnel, and the task's future that empties it into `answers`; it ends, with the message that
/// all was sent, when every funnel is dropped and `exit_code` is known.
pub(crate) fn funnel(
    answers: mpsc::Sender<Result<AttachResponse>>,
    exit_code: impl Future<Output = Result<Option<i32>>> + Send + 'static,
) -> (Funnel, impl Future<Output = ()> + Send) {
    let (queue, mut queued) = mpsc::unbounded_channel::<(Stream, Vec<u8>)>();
    let room = Arc::new(Semaphore::new(QUEUE_BYTES));
    let funnel = Funnel { queue, room: Arc::clone(&room) };
    let empty = async move {
        loop {
            let next = tokio::select! {
                next = queued.recv() => next,
                () = answers.closed() => {
                    room.close();
                    return;
                }
            };
            let Some((stream, bytes)) = next else { break };
            room.add_permits(bytes.len().min(QUEUE_BYTES));
            let message = match stream {
                Stream::Stdout => Message::Stdout(bytes),
                Stream::Stderr => Message::Stderr(bytes),
            };
            if answers.send(Ok(AttachResponse { message: Some(message) })).await.is_err() {
                room.close();
                return;
            }
        }
        let exit_code = tokio::select! {
            exit_code = exit_code => exit_code,
            () = answers.closed() => return,
        };
        let last = exit_code
            .map(|exit_code| AttachResponse { message: Some(Message::Ended(Ended { exit_code })) });
        // Whoever asked may have gone.
        let _ = answers.send(last).await;
    };
    (funnel, empty)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_living_waits_for_its_client_and_the_dead_is_taken_at_once() {
        let (answers, mut answered) = mpsc::channel(1);
        let (funnel, empty) = funnel(answers, async { Ok(Some(3)) });
        let emptying = tokio::spawn(empty);
        let chunk = vec![7; QUEUE_BYTES / 2];
        let mut put = 0;
        loop {
            let one = funnel.put(Stream::Stdout, chunk.clone(), std::future::pending());
            match tokio::time::timeout(Duration::from_millis(50), one).await {
                Ok(done) => done.unwrap(),
                Err(_) => break,
            }
            put += 1;
            assert!(put < 10, "it never waits");
        }
        for _ in 0..4 {
            funnel.put(Stream::Stdout, chunk.clone(), std::future::ready(())).await.unwrap();
            put += 1;
        }
        drop(funnel);
        let mut bytes = 0;
        let code = loop {
            match answered.recv().await.unwrap().unwrap().message.unwrap() {
                Message::Stdout(output) => bytes += output.len(),
                Message::Ended(ended) => break ended.exit_code,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((bytes, code), (put * chunk.len(), Some(3)));
        emptying.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_frees_whoever_waits_for_it() {
        let (answers, answered) = mpsc::channel(1);
        let (funnel, empty) = funnel(answers, async { Ok(None) });
        tokio::spawn(empty);
        drop(answered);
        funnel.gone().await;
        let chunk = vec![7; QUEUE_BYTES];
        assert!(funnel.put(Stream::Stderr, chunk, std::future::pending()).await.is_err());
    }
}
