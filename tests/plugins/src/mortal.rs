//! A transport that kills at its n-th message, as `kill -9` does: its own process, the runner that started it, or both.
//!
//! How many are left stands in a file, so that the next process goes on counting and does not kill again.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::session::Transport;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal};

pub(crate) struct Mortal<T> {
    inner: T,
    counter: PathBuf,
    /// In this order. A descriptor is of one process for ever, a number is not.
    dying: Vec<OwnedFd>,
}

impl<T> Mortal<T> {
    /// `who` is `plugin`, `runner` or `both`.
    pub(crate) fn new(inner: T, counter: String, who: &str) -> Result<Self> {
        let dying: Vec<Pid> = match who {
            "plugin" => vec![getpid()],
            "runner" => getppid().into_iter().collect(),
            "both" => getppid().into_iter().chain([getpid()]).collect(),
            other => return Err(Error::invalid(format!("nobody is called `{other}`"))),
        };
        let open = |process| {
            pidfd_open(process, PidfdFlags::empty())
                .map_err(|error| Error::unavailable("failed to open a process").with_source(error))
        };
        Ok(Self {
            inner,
            counter: counter.into(),
            dying: dying.into_iter().map(open).collect::<Result<_>>()?,
        })
    }

    fn one_less(&self) {
        let left = std::fs::read_to_string(&self.counter).unwrap_or_default();
        let Ok(left) = left.trim().parse::<i64>() else {
            return;
        };
        // Under another name first: whoever reads it meanwhile sees the one or the other. A file that cannot be written would
        // let it kill for ever; the test sees that.
        let fresh = self.counter.with_extension("new");
        if std::fs::write(&fresh, (left - 1).to_string()).is_ok()
            && std::fs::rename(&fresh, &self.counter).is_err()
        {
            return;
        }
        if left == 1 {
            for process in &self.dying {
                // One that has ended already is as good as killed.
                pidfd_send_signal(process, Signal::KILL).ok();
            }
        }
    }
}

impl<T: Transport> Stream for Mortal<T> {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = std::task::ready!(self.inner.poll_next_unpin(cx));
        if message.is_some() {
            self.one_less();
        }
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
