//! A transport that ends the process at its n-th message, as `kill -9` does.
//!
//! How many are left stands in a file, so that the next process goes on counting and does not die again.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::session::Transport;

pub(crate) struct Mortal<T> {
    inner: T,
    counter: PathBuf,
}

impl<T> Mortal<T> {
    pub(crate) fn new(inner: T, counter: String) -> Self {
        Self {
            inner,
            counter: counter.into(),
        }
    }

    fn one_less(&self) {
        let left = std::fs::read_to_string(&self.counter).unwrap_or_default();
        let Ok(left) = left.trim().parse::<i64>() else {
            return;
        };
        // Under another name first: whoever reads it meanwhile sees the one or the other. A file that cannot be written would
        // let it die for ever; the test sees that.
        let fresh = self.counter.with_extension("new");
        if std::fs::write(&fresh, (left - 1).to_string()).is_ok()
            && std::fs::rename(&fresh, &self.counter).is_err()
        {
            return;
        }
        if left == 1 {
            let own = rustix::process::getpid();
            let killed = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            assert!(killed.is_ok(), "a process can always kill itself");
        }
    }
}

impl<T: Transport> Stream for Mortal<T> {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = std::task::ready!(self.inner.poll_next_unpin(cx));
        self.one_less();
        Poll::Ready(message)
    }
}

impl<T: Transport> Sink<String> for Mortal<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        self.one_less();
        self.inner.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_close_unpin(cx)
    }
}
