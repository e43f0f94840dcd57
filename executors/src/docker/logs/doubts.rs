//! Whether it is the log that is silent, or what it comes through.

use futures::StreamExt as _;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::{LogChunk, LogItem, Stream};
use tokio::time::timeout;

use super::super::look::{Container, Seen};
use super::super::records::Wanted;
use super::joined::Joined;
use super::{Follower, Reading, SEARCH};

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
    pub(super) async fn denied(&mut self, error: Error) -> Result<()> {
        match self.shared.look(self.run).await? {
            Seen::Claimed(container) if !container.is_going => {
                let why = "the engine denied the log of a container that it has";
                self.broken = Some(Error::unavailable(why).with_source(error));
            }
            // Whoever removes a container had all that they wanted of it.
            _ => self.finish(),
        }
        Ok(())
    }
}
