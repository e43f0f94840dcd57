//! The output of a run as a stream: what is there, then what comes, until the run has ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use hybrid_runner_core::LogCursor;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::{GapReason, LogChunk, LogItem};
use hybrid_runner_helper::files;

use super::Shared;
use super::bell::{Ear, Heard, Listen};
use super::blocking;
use super::cursor::{Place, Tag, foreign};
use super::folder::{Folder, Level};
use super::spool::{self, Rest, Stretch};

/// The log of a run from a cursor on.
pub(super) fn follow(
    shared: Arc<Shared>,
    folder: Folder,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let follower = Follower {
        tag: Tag::of(folder.run),
        shared,
        folder,
        from,
        file: None,
        place: Place::START,
        queue: VecDeque::new(),
        over: None,
        ear: None,
        is_done: false,
    };
    stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|chunk| (chunk, follower)))
    })
    .boxed()
}

struct Follower {
    shared: Arc<Shared>,
    folder: Folder,
    tag: Tag,
    /// Checked once the spool is there.
    from: Option<LogCursor>,
    file: Option<Arc<File>>,
    place: Place,
    /// What was read and not yet taken: of one stretch.
    queue: VecDeque<LogChunk>,
    /// The last level; seen before a read, that read is complete.
    over: Option<Level>,
    ear: Option<Ear>,
    is_done: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        loop {
            if let Some(chunk) = self.queue.pop_front() {
                return Ok(Some(chunk));
            }
            if self.is_done {
                return Ok(None);
            }
            let rest = self.read().await?;
            if !self.queue.is_empty() || rest == Rest::More {
                continue;
            }
            match self.over.take() {
                Some(level) => self.finish(&level, rest)?,
                None => self.wait().await?,
            }
        }
    }

    /// Reads what is there into the queue.
    async fn read(&mut self) -> Result<Rest> {
        let Some(file) = self.open().await? else {
            return Ok(Rest::Torn(0));
        };
        let (place, tag, folder) = (self.place, self.tag, self.folder.clone());
        let Stretch {
            chunks,
            place,
            rest,
        } = blocking(move || {
            spool::read(&file, place, tag).map_err(|error| folder.failed("read the log in", error))
        })
        .await?;
        self.queue = chunks.into();
        self.place = place;
        Ok(rest)
    }

    /// The spool, once it is there, and the cursor checked against it.
    async fn open(&mut self) -> Result<Option<Arc<File>>> {
        if self.file.is_none() {
            let folder = self.folder.clone();
            let cursor = self
                .from
                .as_ref()
                .map(|cursor| Place::parse(cursor, folder.run))
                .transpose()?;
            let opened = blocking(move || {
                let file = match File::open(folder.path.join(files::LOG)) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(folder.failed("read the log in", error)),
                };
                let is_in = cursor.map_or(Ok(true), |place| place.is_in(&file));
                let is_in = is_in.map_err(|error| folder.failed("read the log in", error))?;
                Ok(Some((file, is_in)))
            })
            .await?;
            self.place = cursor.unwrap_or(Place::START);
            let Some((file, is_in)) = opened else {
                return Ok(None);
            };
            if !is_in {
                self.skip_what_is_lost(&file).await?;
            }
            self.file = Some(Arc::new(file));
        }
        Ok(self.file.clone())
    }

    /// A cursor behind the spool's end: its end was lost with the power, or the cursor is wrong.
    async fn skip_what_is_lost(&mut self, file: &File) -> Result<()> {
        let level = self.shared.observe(&self.folder).await?;
        if !matches!(level, Level::Lost(_)) {
            return Err(foreign(self.folder.run));
        }
        let length = file
            .metadata()
            .map_err(|error| self.folder.failed("read the log in", error))?
            .len();
        self.place = Place::at(length);
        Ok(())
    }

    async fn wait(&mut self) -> Result<()> {
        let heard = match &mut self.ear {
            Some(ear) => ear.changed().await,
            None => Heard::Level,
        };
        if self.ear.is_none() {
            self.ear = Some(self.shared.bells.listen(&self.folder, Listen::ToLog));
        }
        if heard == Heard::Level {
            let level = self.shared.observe(&self.folder).await?;
            self.over = level.is_over().then_some(level);
        }
        Ok(())
    }

    /// After the last whole record of a run that is over.
    fn finish(&mut self, level: &Level, rest: Rest) -> Result<()> {
        self.is_done = true;
        if matches!(level, Level::Unknown) {
            return Err(Error::not_found(format!(
                "this machine has no log of run `{}`",
                self.folder.run
            )));
        }
        let (left, why) = match rest {
            Rest::Damaged(left) => (left, GapReason::Damaged),
            Rest::Torn(left) => (left, GapReason::Crashed),
            Rest::More => (0, GapReason::Crashed),
        };
        let is_missing = match level {
            // What a killed helper had not yet read from the command is lost, however much it was.
            Level::Lost(_) => true,
            // Cut off between two records, only the record of the end tells.
            Level::Ended(end) => left > 0 || self.place.offset < end.spool,
            _ => left > 0,
        };
        if is_missing && !self.place.at_end {
            let place = Place::at(self.place.offset + left).end();
            self.queue.push_back(LogChunk {
                item: LogItem::Gap { bytes: None, why },
                next: place.to_cursor(self.tag),
            });
        }
        Ok(())
    }
}
