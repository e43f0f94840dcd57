//! The output of a run as a stream: what is there, then what comes, until the run has ended.
//!
//! The engine is asked to follow; when its stream breaks or ends, it is asked again from the last record that was
//! delivered. Whether all has come is known from init, which writes at the end how much it gave: what is missing then
//! was lost by the engine, and is one gap.

mod doubts;
mod joined;
pub(super) mod vain;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::{GapReason, LogChunk, LogItem, MAX_CHUNK, Stream};
use hybrid_runner_core::{LogCursor, RunId};
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::bell::Ear;
use super::lines::Lines;
use super::look::{Container, Seen, passing};
use super::place::{Anchor, Counter, Place};
use super::records::{Record, Records, Wanted, is_unreadable, stalled};
use joined::Joined;
use vain::Vain;

/// A log that is no longer is read from its beginning to find a place in it: then no clock that was set back can hide
/// records from the search.
const SMALL: u64 = 16 << 20;
/// In a longer one the search begins so much before the place, in seconds.
const BACK: i64 = 3600;
/// As far as the clock of an engine that is followed without a break may have stepped back.
const STEP: i64 = 60;
/// Records that are there arrive without a pause: a place that is not among them is not there.
const SEARCH: Duration = Duration::from_secs(5);
/// What init says before its first line begins so.
const NOTE: &[u8] = b"hybrid-runner: ";
/// Before a stream that broke is asked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// Before a log that the engine could not read is asked for again.
const UNREADABLE: Duration = Duration::from_secs(2);
/// How often a log whose end is missing is asked for once more, and after how long.
const LATE: u32 = 3;
const LATER: Duration = Duration::from_secs(1);
/// Whoever waits for the log hears so often that it is still being read, while a place in it is looked for.
const SIGN: Duration = Duration::from_secs(5);

/// The log of a run from a cursor on.
pub(super) fn follow(
    shared: Arc<Shared>,
    run: RunId,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let follower = Follower {
        shared,
        run,
        from,
        place: Place::START,
        reading: None,
        queue: VecDeque::new(),
        lines: None,
        ear: None,
        vain: Vain::default(),
        signed: Instant::now(),
        has_run: false,
        has_twins: false,
        later: None,
        gap: None,
        broken: None,
        is_done: false,
    };
    stream::try_unfold(follower, |mut follower| async move {
        // What we are asked is judged here; what the engine answers may pass.
        follower.take_place()?;
        let next = follower.next().await.map_err(passing)?;
        Ok(next.map(|chunk| (chunk, follower)))
    })
    .boxed()
}

struct Follower {
    shared: Arc<Shared>,
    run: RunId,
    /// Taken once.
    from: Option<LogCursor>,
    place: Place,
    reading: Option<Reading>,
    queue: VecDeque<LogChunk>,
    /// Once there is a container.
    lines: Option<Lines>,
    ear: Option<Ear>,
    /// Passes over the log of the run, once it has ended, that brought nothing new.
    vain: Vain,
    /// The container has run the work, so that there is something in its log.
    has_run: bool,
    /// When there was last something to deliver.
    signed: Instant,
    /// The log itself has records that follow one another and are the same in all.
    has_twins: bool,
    /// After a place that was lost: what is not later than this may have been delivered.
    later: Option<i64>,
    /// The sums at the last gap: there is none behind it without output between.
    gap: Option<[u64; 2]>,
    /// Why a pass broke off, until all before it is delivered.
    broken: Option<Error>,
    is_done: bool,
}

/// One pass over the log of a container.
struct Reading {
    records: Records,
    counter: Counter,
    pass: Pass,
    /// The last record of each stream that was delivered by this pass.
    last: [Option<Anchor>; 2],
    /// The engine gives again what it gave before, or its clock was set back.
    is_back: bool,
}

/// What a pass is about.
#[derive(Debug, Clone, Copy)]
struct Pass {
    seeking: Seeking,
    /// Nothing was delivered before, so that it must begin as all logs do.
    is_from_start: bool,
    /// It was asked for after the container had ended: its end is the log's.
    is_last: bool,
    /// It goes over all that the engine has: what it does not find is not there.
    is_whole: bool,
}

/// What comes behind the records that were gathered.
enum Then {
    More,
    /// The pass searches for a place, and there is no more to search in.
    Silence,
    /// Something else may have changed.
    Rung,
    End,
    Broken(Error),
}

/// Which records are to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seeking {
    /// All that come.
    Found,
    /// Those behind this one.
    Behind(Anchor),
    /// It is not there any more: those that are surely later.
    Later(i64),
}

/// How far back a pass begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// To go on without a break.
    Little,
    /// After a break.
    Far,
    /// At the beginning of the log.
    All,
}

impl Follower {
    /// Begins where the reader was.
    fn take_place(&mut self) -> Result<()> {
        if let Some(cursor) = self.from.take() {
            self.place = Place::parse(&cursor, self.run)?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<LogChunk>> {
        loop {
            if let Some(chunk) = self.queue.pop_front() {
                self.signed = Instant::now();
                return Ok(Some(chunk));
            }
            // What came before it was delivered first.
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            if self.is_done || self.place.at_end {
                return Ok(None);
            }
            if self.reading.is_none() {
                // In a box of its own, as are the other questions: a follower mostly waits, which takes little room.
                Box::pin(self.begin()).await?;
            } else {
                self.step().await?;
            }
        }
    }

    /// Begins to read, or waits until there is something to read.
    async fn begin(&mut self) -> Result<()> {
        match self.shared.look(self.run).await? {
            Seen::Nothing => Err(Error::not_found(format!(
                "the engine has no log of run `{}`",
                self.run
            ))),
            Seen::Stopped => {
                self.is_done = true;
                Ok(())
            }
            Seen::Preparing(container)
                if container.is_prevented(&self.shared, self.run).await? =>
            {
                self.is_done = true;
                Ok(())
            }
            Seen::Preparing(_) => {
                self.wait().await;
                Ok(())
            }
            Seen::Claimed(container) => {
                if container.phase.is_alive() && self.ear.is_none() {
                    self.wait().await;
                }
                self.lines
                    .get_or_insert_with(|| Lines::new(&container.mark));
                let back = if self.place.anchor.is_some() {
                    Back::Far
                } else {
                    Back::All
                };
                self.open(&container, back, true);
                Ok(())
            }
        }
    }

    fn open(&mut self, container: &Container, back: Back, may_follow: bool) {
        let lives = container.phase.is_alive();
        self.has_run = container.has_run();
        if let Some(lines) = &mut self.lines {
            // It is read again on the way to the place.
            lines.forget();
        }
        let since = match (self.place.anchor, back) {
            (None, _) | (_, Back::All) => 0,
            (Some(anchor), Back::Little) => anchor.time / 1_000_000_000 - STEP,
            (Some(_), Back::Far) if self.place.out + self.place.err <= SMALL => 0,
            (Some(anchor), Back::Far) => anchor.time / 1_000_000_000 - BACK,
        };
        let wanted = Wanted {
            follow: lives && may_follow,
            since: i32::try_from(since.max(0)).unwrap_or(i32::MAX),
            tail: None,
        };
        self.reading = Some(Reading {
            records: self.shared.records(&container.id, wanted),
            counter: Counter::default(),
            last: [None; 2],
            is_back: false,
            pass: Pass {
                seeking: match (self.place.anchor, self.later) {
                    (Some(anchor), _) => Seeking::Behind(anchor),
                    (None, Some(time)) => Seeking::Later(time),
                    (None, None) => Seeking::Found,
                },
                is_from_start: self.place == Place::START,
                is_last: !lives,
                is_whole: since <= 0 && !wanted.follow,
            },
        });
    }

    async fn wait(&mut self) {
        self.shared.changed(&mut self.ear, self.run).await;
    }

    /// Takes the next records of the pass.
    async fn step(&mut self) -> Result<()> {
        let Some(mut reading) = self.reading.take() else {
            return Ok(());
        };
        let (records, then) = self.gather(&mut reading).await;
        let mut joined = Joined::default();
        for record in records {
            self.take(&mut reading, record, &mut joined);
            if reading.is_back {
                break;
            }
        }
        joined.flush(self.run, &mut self.queue);
        if reading.pass.seeking != Seeking::Found && self.signed.elapsed() > SIGN {
            self.queue.push_back(self.sign());
        }
        if reading.is_back {
            return Box::pin(self.look_back()).await;
        }
        match then {
            Then::More => self.reading = Some(reading),
            Then::Rung => return Box::pin(self.doubt(reading)).await,
            Then::Silence if reading.pass.is_whole => self.missed(reading.pass, stalled()).await,
            Then::Silence => return Box::pin(self.look_everywhere()).await,
            Then::End => return Box::pin(self.ended(reading.pass)).await,
            Then::Broken(error) if error.is_transient() || is_unreadable(&error) => {
                self.missed(reading.pass, error).await;
            }
            Then::Broken(error) => return Box::pin(self.denied(reading.pass, error)).await,
        }
        Ok(())
    }

    /// The next record, and those that are there already.
    async fn gather(&mut self, reading: &mut Reading) -> (Vec<Record>, Then) {
        let is_sought = matches!(reading.pass.seeking, Seeking::Behind(_));
        let mut records = Vec::new();
        let mut size = 0;
        while size < MAX_CHUNK {
            let next = reading.records.next();
            let next = match () {
                () if !records.is_empty() => next.now_or_never(),
                () if is_sought => match timeout(SEARCH, next).await {
                    Ok(next) => Some(next),
                    Err(_) => return (records, Then::Silence),
                },
                () if reading.pass.is_last => match timeout(SEARCH, next).await {
                    Ok(next) => Some(next),
                    Err(_) => return (records, Then::Broken(stalled())),
                },
                () => tokio::select! {
                    next = next => Some(next),
                    () = self.shared.changed(&mut self.ear, self.run) => return (records, Then::Rung),
                },
            };
            match next {
                None => break,
                Some(None) => return (records, Then::End),
                Some(Some(Err(error))) => return (records, Then::Broken(error)),
                Some(Some(Ok(record))) => {
                    size += record.content.len();
                    records.push(record);
                }
            }
        }
        (records, Then::More)
    }

    /// Brings a record into the queue if it is to be delivered.
    fn take(&mut self, reading: &mut Reading, record: Record, joined: &mut Joined) {
        let Some(lines) = &mut self.lines else { return };
        let anchor = reading.counter.next(&record);
        match reading.pass.seeking {
            Seeking::Found => {}
            Seeking::Behind(wanted) => {
                // Before it, only what init says of itself is of interest.
                lines.strip(record);
                if anchor == wanted {
                    reading.pass.seeking = Seeking::Found;
                    if self.place.kept {
                        // What init says in it is of interest, what it holds besides was delivered.
                        lines.rest();
                    }
                }
                return;
            }
            Seeking::Later(time) if record.time <= time => {
                lines.strip(record);
                return;
            }
            Seeking::Later(_) => reading.pass.seeking = Seeking::Found,
        }
        let last = &mut reading.last[usize::from(record.stream == Stream::Err)];
        let is_twin = |last: Anchor| {
            record.content.ends_with(b"\n")
                && (anchor.time, anchor.hash, anchor.stream) == (last.time, last.hash, last.stream)
        };
        match last {
            // Overtaken by a rotation, the engine has been seen to give the last record once more.
            Some(last) if record.time < last.time || (is_twin(*last) && !self.has_twins) => {
                reading.is_back = true;
                return;
            }
            // A pass that begins anew finds it so in the log.
            None if self.place.anchor.is_some_and(is_twin) => self.has_twins = true,
            _ => {}
        }
        let is_first = last.replace(anchor).is_none();
        // Both streams begin with it: what both lack was dropped at once.
        let is_shown = self.place.gap;
        if is_first && !is_shown && reading.pass.is_from_start && !is_opening(lines, &record) {
            // Each stream opens with a line of init: that is not there any more, nor is what followed it.
            joined.flush(self.run, &mut self.queue);
            self.gap(None, GapReason::Rotated);
        }
        let Some(lines) = &mut self.lines else { return };
        let before = self.place;
        self.place.anchor = Some(anchor);
        self.place.kept = false;
        let owed = self.place.owed(&record);
        self.place.remember_end(&record);
        let Some(mut record) = lines.strip(record) else {
            return;
        };
        if owed {
            record.content = [b"\n", &record.content[..]].concat().into();
        }
        self.vain = Vain::default();
        self.place.add(record.stream, record.content.len());
        joined.push(&record, [before, self.place], self.run, &mut self.queue);
    }

    /// The place was not found where it was looked for: the whole log is searched.
    async fn look_everywhere(&mut self) -> Result<()> {
        match self.shared.look(self.run).await? {
            Seen::Claimed(container) => self.open(&container, Back::All, false),
            _ => self.begin().await?,
        }
        Ok(())
    }

    /// The times of one stream fall only if the engine, which was overtaken by a rotation, begins anew, or if its clock was
    /// set back. What follows the place in the whole log tells.
    async fn look_back(&mut self) -> Result<()> {
        match self.shared.look(self.run).await? {
            Seen::Claimed(container) => self.open(&container, Back::All, true),
            _ => self.begin().await?,
        }
        Ok(())
    }

    /// The end of a pass.
    async fn ended(&mut self, pass: Pass) -> Result<()> {
        if let Seeking::Behind(anchor) = pass.seeking {
            if !pass.is_whole {
                return Box::pin(self.look_everywhere()).await;
            }
            // It is not in the log any more, so that something is missing behind it, too.
            self.gap(None, GapReason::Rotated);
            self.place.anchor = None;
            self.later = Some(anchor.time);
        } else if self.is_whole() {
            self.finish();
            return Ok(());
        } else if pass.is_last {
            // A busy engine ends a container before it has taken all of its output.
            if !self.may_be_late() || self.vain.count().passes > LATE {
                self.finish();
                return Ok(());
            }
            sleep(LATER).await;
        }
        let Seen::Claimed(container) = self.shared.look(self.run).await? else {
            // Removed under our eyes: whoever did it had all that they wanted.
            self.finish();
            return Ok(());
        };
        if container.phase.is_alive() {
            // The engine has ended its stream, and not the run.
            sleep(PAUSE).await;
        }
        self.open(&container, Back::Little, true);
        Ok(())
    }

    /// Whether all that init has given was delivered.
    fn is_whole(&self) -> bool {
        let end = self.lines.as_ref().and_then(|lines| lines.end.as_ref());
        end.is_some_and(|end| end.out == self.place.out && end.err == self.place.err)
    }

    /// Whether the rest of the output of a run that has ended may still be on its way into the log.
    fn may_be_late(&self) -> bool {
        let end = self.lines.as_ref().and_then(|lines| lines.end.as_ref());
        // The end of a last line may be missing for good.
        let has_all =
            end.is_some_and(|end| end.out <= self.place.out + 1 && end.err <= self.place.err + 1);
        !has_all && !self.place.gap
    }

    /// Nothing more comes.
    fn finish(&mut self) {
        self.is_done = true;
        self.end_kept();
        self.end_lines();
        let Some(lines) = &self.lines else { return };
        let delivered = self.place.out + self.place.err;
        // Without a last line: init was killed, or that is among what the engine lost.
        let end = lines.end.as_ref();
        let missing = end.map(|end| (end.out + end.err).saturating_sub(delivered));
        self.place.at_end = true;
        let began = self.has_run || lines.started.is_some() || delivered > 0;
        if missing != Some(0) && !self.place.gap && (began || missing.is_some()) {
            self.gap(missing, GapReason::Crashed);
        }
    }

    /// What was kept back, because it could have been a part of a line of init.
    fn end_kept(&mut self) {
        let Some(record) = self.lines.as_mut().and_then(Lines::rest) else {
            return;
        };
        let before = self.place;
        self.place.add(record.stream, record.content.len());
        self.place.kept = true;
        let mut joined = Joined::default();
        joined.push(&record, [before, self.place], self.run, &mut self.queue);
        joined.flush(self.run, &mut self.queue);
    }

    /// The end of a last line, where init has written one byte more than the engine gives.
    fn end_lines(&mut self) {
        let Some(end) = self.lines.as_ref().and_then(|lines| lines.end.as_ref()) else {
            return;
        };
        let sums = [(Stream::Out, end.out), (Stream::Err, end.err)];
        for (stream, given) in sums {
            if !self.place.gap && self.place.is_open(stream) && given == self.place.sum(stream) + 1
            {
                self.place.close(stream);
                self.place.add(stream, 1);
                self.queue.push_back(LogChunk {
                    item: LogItem::Data {
                        stream,
                        time: None,
                        bytes: bytes::Bytes::from_static(b"\n"),
                    },
                    next: self.place.to_cursor(self.run),
                });
            }
        }
    }

    fn gap(&mut self, bytes: Option<u64>, why: GapReason) {
        let sums = [self.place.out, self.place.err];
        if self.gap.replace(sums) == Some(sums) {
            return;
        }
        self.place.gap = true;
        self.queue.push_back(LogChunk {
            item: LogItem::Gap { bytes, why },
            next: self.place.to_cursor(self.run),
        });
    }
}

/// Whether nothing of its stream was written before this record: it is init's first line, or a note before that.
fn is_opening(lines: &Lines, record: &Record) -> bool {
    record.content.starts_with(NOTE) || lines.is_first(&record.content)
}
