//! Whether it is the log that is silent, or what it comes through.

use futures::StreamExt as _;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::{GapReason, LogChunk, LogItem, Stream};
use tokio::time::{sleep, timeout};

use super::super::look::{Container, Seen};
use super::super::records::{Wanted, is_unreadable};
use super::joined::Joined;
use super::{Follower, PAUSE, Pass, Reading, SEARCH, UNREADABLE};

impl Follower {
    /// Nothing came for a while, or the run may have ended: whether it is the log that is silent, and not the connection.
    pub(super) async fn doubt(&mut self, mut reading: Reading) -> Result<()> {
        let is_behind = match self.shared.look(self.run).await? {
            Seen::Claimed(container) if container.phase.is_alive() => {
                self.is_behind(&container).await
            }
            // What it still had to say is under way.
            _ => true,
        };
        if is_behind {
            match timeout(SEARCH, reading.records.next()).await {
                Ok(Some(Ok(record))) => {
                    let mut joined = Joined::default();
                    self.take(&mut reading, record, &mut joined);
                    joined.flush(self.run, &mut self.queue);
                }
                Ok(None) => return self.ended(reading.pass).await,
                // It is asked for anew.
                Ok(Some(Err(_))) | Err(_) => return Ok(()),
            }
            if reading.is_back {
                return self.look_back().await;
            }
        }
        self.reading = Some(reading);
        Ok(())
    }

    /// Whether the engine has more than was delivered.
    async fn is_behind(&mut self, container: &Container) -> bool {
        let wanted = Wanted {
            follow: false,
            since: 0,
            tail: Some(1),
        };
        let mut records = self.shared.records(&container.id, wanted);
        match timeout(SEARCH, records.next()).await {
            Ok(Some(Ok(last))) => self
                .place
                .anchor
                .is_none_or(|anchor| last.time > anchor.time),
            // It cannot tell now.
            _ => false,
        }
    }

    /// Nothing new, but it is being read.
    pub(super) fn sign(&self) -> LogChunk {
        LogChunk {
            item: LogItem::Data {
                stream: Stream::Out,
                time: None,
                bytes: bytes::Bytes::new(),
            },
            next: self.place.to_cursor(self.run),
        }
    }

    /// The engine does not give the log: mostly because the container is no longer there, or on its way out.
    pub(super) async fn denied(&mut self, pass: Pass, error: Error) -> Result<()> {
        match self.shared.look(self.run).await? {
            Seen::Claimed(container) if !container.is_going => {
                let why = "the engine denied the log of a container that it has";
                let error = Error::unavailable(why).with_source(error);
                self.missed(pass, error).await;
            }
            // Whoever removes a container had all that they wanted of it.
            _ => self.finish(),
        }
        Ok(())
    }

    /// A pass did not come to its end. A run that has ended is not held up by that for long.
    pub(super) async fn missed(&mut self, pass: Pass, error: Error) {
        if !pass.is_last {
            if is_unreadable(&error) {
                // It may pass.
                sleep(UNREADABLE).await;
            } else {
                self.broken = Some(error);
            }
            return;
        }
        let tries = self.vain.count();
        if !tries.are_enough() {
            return sleep(tries.pause(PAUSE, UNREADABLE)).await;
        }
        tracing::warn!(run = %self.run, error = error.report(), "a log cannot be read");
        self.gap(None, GapReason::Damaged);
        self.finish();
    }
}
