//! Streams of answers, with the work that makes them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use hull_manager_core::Result;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Response, Status, Streaming};

use crate::status;

/// So many answers may wait for a client; then the work waits.
const QUEUE: usize = 16;

/// Answers that come while some work goes on. The work runs as part of the stream: a client that
/// leaves drops both. The work's failure is the stream's last item, after all that was answered.
pub struct Answers<T> {
    queue: mpsc::Receiver<T>,
    work: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    failure: Option<Status>,
}

impl<T: Send + 'static> Answers<T> {
    /// The answers that `work` puts into the queue it is given.
    pub fn of<F>(work: impl FnOnce(mpsc::Sender<T>) -> F) -> Response<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (sender, queue) = mpsc::channel(QUEUE);
        Response::new(Self { queue, work: Some(Box::pin(work(sender))), failure: None })
    }
}

impl<T> Stream for Answers<T> {
    type Item = std::result::Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(work) = &mut self.work
            && let Poll::Ready(result) = work.as_mut().poll(context)
        {
            self.work = None;
            self.failure = result.err().map(status);
        }
        match self.queue.poll_recv(context) {
            Poll::Ready(Some(answer)) => Poll::Ready(Some(Ok(answer))),
            // The work may have more to do than to answer, and fail then.
            Poll::Ready(None) if self.work.is_some() => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(self.failure.take().map(Err)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Answers that the domain makes in a task of its own, which ends when they are dropped.
pub(crate) struct Received<T>(mpsc::Receiver<Result<T>>);

pub(crate) fn received<T>(answers: mpsc::Receiver<Result<T>>) -> Response<Received<T>> {
    Response::new(Received(answers))
}

impl<T> Stream for Received<T> {
    type Item = std::result::Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|answer| answer.map(|answer| answer.map_err(status)))
    }
}

/// A client's messages as a queue. It ends when the client has sent all, or is gone.
pub(crate) fn sent<T: Send + Sync + 'static>(mut messages: Streaming<T>) -> mpsc::Receiver<T> {
    let (sender, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = sender.closed() => return,
            };
            let Ok(Some(message)) = message else { return };
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    queue
}

#[cfg(test)]
mod tests {
    use hull_manager_core::Error;
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_failure_comes_after_all_answers() {
        let mut answers = Answers::of(|queue| async move {
            for number in 0..40 {
                queue.send(number).await.map_err(|_| Error::cancelled("gone"))?;
            }
            Err(Error::conflict("in use"))
        })
        .into_inner();
        for number in 0..40 {
            assert_eq!(answers.next().await.unwrap().unwrap(), number);
        }
        assert_eq!(answers.next().await.unwrap().unwrap_err().message(), "in use");
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_failure_after_the_end_of_the_answers_is_told() {
        let mut answers = Answers::of(|queue: mpsc::Sender<u32>| async move {
            drop(queue);
            tokio::task::yield_now().await;
            Err(Error::conflict("in use"))
        })
        .into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap_err().message(), "in use");
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_work() {
        let (gone, mut ended) = mpsc::channel::<()>(1);
        let answers = Answers::of(|queue: mpsc::Sender<u32>| async move {
            let _held = gone;
            queue.closed().await;
            Ok(())
        });
        drop(answers);
        assert_eq!(ended.recv().await, None);
    }
}
