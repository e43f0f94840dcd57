//! The output of a run as a stream: what is there, then what comes, until the run has ended.
//!
//! The API server is asked to follow; when its stream breaks, it is asked again from the last line that was delivered (see
//! [`place`](super::place)). Once the container has ended, one more pass from there takes what is left: the end of that is the log's.
//!
//! | what happens | what comes of it |
//! |---|---|
//! | the connection, the API server or the kubelet dies | read on from the anchor; nothing twice, nothing lost |
//! | the log is rotated while it is followed | nothing: the kubelet goes on in the new file; or its stream falls silent at the end of the old one, and we go on in the new one, if that surely is the next |
//! | it is rotated twice while it is read slowly | the kubelet passes over a file: a gap wherever that may have been |
//! | it is rotated while nobody reads | the API gives the newest file alone: one gap, then what is later |
//! | the pod is deleted | what was not read by then comes from the archive if the cluster has one (see [`archive`](super::archive)), else it is one gap |
//!
//! A log that was rotated before it was read for the first time begins later, and the API does not tell. One whose first line was there when
//! we came, and came long after the container began, is taken for such: a gap stands before it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::io::{AsyncBufRead, AsyncBufReadExt as _};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::{GapReason, LogChunk, LogItem, MAX_CHUNK, Stream};
use hybrid_runner_core::{LogCursor, RunId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use tokio::time::{Instant, sleep, sleep_until};

use super::archive::{Archived, Finder, Part};
use super::client::Connected;
use super::error::{failed, is_status};
use super::place::{Anchor, Counter, Place, pod_tag};
use super::pod::MAIN;
use super::records::{Lines, Piece};
use super::seen::PodSeen;

/// A pass that goes on without a break begins so many seconds before the anchor.
const STEP: i64 = 2;
/// One that comes back after a break: as far as the clock of a node may have stepped back.
const BACK: i64 = 60;
/// What is there arrives without a pause: a place that was not among it is not there.
const SEARCH: Duration = Duration::from_secs(5);
/// A stream that has not ended so long after its container did is not going to.
const LINGER: Duration = Duration::from_secs(10);
/// After so many bytes in one pass its stream may have been rotated away, and hangs at the end of the old file: the kubelet only
/// looks for a new one where it has caught up with the old.
const BURST: usize = 1 << 20;
/// So long after that many it is silent before that is found out.
const HUSH: Duration = Duration::from_secs(3);
/// A kubelet looks at the size of a log no oftener than this (`containerLogMonitorInterval`): a file that begins sooner behind the
/// last word of another is the next, and none is between them.
const ROTATION: i64 = 3_000_000_000;
/// A log that is read for the first time, and begins so long after its container did, may have lost what came before: longer than we
/// take to hear of a container.
const LATE: i64 = 5_000_000_000;
/// What was written before we asked is there within this.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A last line that came so much later than it was written may not have been the last.
const LAG: i64 = 250_000_000;
/// The clock of a node is no further behind ours: what comes later than this after it was written is late, also where all does.
const CLOCKS: i64 = 10_000_000_000;
/// What is sought among much that comes is not there after this.
const LONG_SEARCH: Duration = Duration::from_secs(20);
/// Before a log that broke off is asked for again.
const PAUSE: Duration = Duration::from_millis(250);
/// Before one that has ended is, unless it is known by then that its container has: a node looks at its containers once a second.
const LOOK: Duration = Duration::from_millis(1200);
/// So often in a row, before whoever reads is told.
const ATTEMPTS: u32 = 5;

/// How a run stands, for whoever reads its log.
#[derive(Debug)]
pub(crate) enum Stand {
    /// The cluster does not know it.
    Unknown,
    /// There is nothing to be read yet.
    Waiting,
    /// There is a pod that has begun. Is its container over?
    Begun { pod: Box<PodSeen>, is_over: bool },
    /// It has ended without having begun.
    Empty,
    /// It has ended, and its pod is gone.
    Gone,
}

/// Where a follower learns how its run stands.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    async fn stand(&mut self) -> Result<Stand>;
    /// Waits until it may stand otherwise.
    async fn changed(&mut self);
    async fn connected(&self) -> Result<&Connected>;
    /// The log of a pod that is gone behind its first `from` bytes, if it was archived.
    fn archived(&self, from: u64) -> Archived;
    /// Whether the first process of a container writes lines of its own into its log.
    fn has_first_process(&self) -> bool;
}

/// The log of a run from a cursor on.
pub(crate) fn follow(
    source: impl Source,
    run: RunId,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let follower = Follower {
        source: Box::new(source),
        run,
        from,
        place: Place::Start,
        reading: None,
        archived: None,
        queue: VecDeque::new(),
        failures: 0,
        has_gap: false,
        last: Last::Somehow,
        least_lag: CLOCKS,
        is_done: false,
    };
    stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|chunk| (chunk, follower)))
    })
    .boxed()
}

/// The log of a run, from a cursor on, that cannot be masked any more: one gap, which is its end.
pub(crate) fn held_back(
    run: RunId,
    from: Option<&LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let next = Place::End.cursor(run);
    let gap = (from != Some(&next)).then_some(LogChunk {
        item: LogItem::Gap {
            bytes: None,
            why: GapReason::HeldBack,
        },
        next,
    });
    stream::iter(gap.map(Ok)).boxed()
}

struct Follower {
    source: Box<dyn Source>,
    run: RunId,
    /// Taken once.
    from: Option<LogCursor>,
    place: Place,
    reading: Option<Box<Reading>>,
    /// The archive, once there is nothing else to read from.
    archived: Option<Box<Unpacking>>,
    queue: VecDeque<LogChunk>,
    /// In a row.
    failures: u32,
    /// Whether the last chunk is a gap.
    has_gap: bool,
    last: Last,
    /// How long after it was written the quickest line came, in nanoseconds: clocks differ.
    least_lag: i64,
    is_done: bool,
}

/// How the last pass ended, if nothing was delivered since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Somehow,
    /// It followed to an end of its own, as it does behind the last word of a container.
    Well,
    /// It hung at the end of what it had.
    Hung,
}

/// One pass over an archived log.
struct Unpacking {
    parts: Archived,
    /// Seeks the place to go on from, and delivers nothing.
    finder: Option<Finder>,
}

/// One pass over a log.
struct Reading {
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    pod: u64,
    lines: Lines,
    counter: Counter,
    seeking: Seeking,
    /// It does not end before the container does.
    follows: bool,
    /// It was asked for after the container had ended: its end is the log's.
    is_last: bool,
    /// It goes over all that there is: what it does not find is not there.
    is_whole: bool,
    /// When it counts as dead, once the container is known to have ended.
    ends_by: Option<Instant>,
    opened: Instant,
    /// When the container began, in nanoseconds.
    began: Option<i64>,
    /// So many bytes came.
    size: usize,
    /// When the last line came.
    arrived: i64,
    /// As the follower knows it.
    least_lag: i64,
}

/// Which pieces are to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seeking {
    /// All that come.
    Found,
    /// Those behind this one.
    Behind(Anchor),
    /// It is not there any more: those that are later.
    Later(i64),
}

/// How far back a pass begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// To go on without a break.
    Little,
    /// The same, to see whether there is more, and not to wait for it.
    Glance,
    /// After a break.
    Far,
    /// At the beginning of what there is.
    All,
}

/// What a pass brought.
enum Came {
    Bytes(Bytes),
    End,
    Broken,
    /// The run may stand otherwise.
    Change,
    /// It is overdue, or what it seeks is not there.
    Silence,
    /// Nothing comes any more, where much did.
    Hush,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        if let Some(cursor) = self.from.take() {
            self.place = Place::parse(&cursor, self.run)?;
        }
        loop {
            if let Some(chunk) = self.queue.pop_front() {
                return Ok(Some(chunk));
            }
            if self.is_done || self.place == Place::End {
                return Ok(None);
            }
            match (self.archived.take(), self.reading.take()) {
                (Some(archive), _) => self.unpack(archive).await?,
                (None, Some(reading)) => self.step(reading).await?,
                (None, None) if matches!(self.place, Place::Archived { .. }) => self.open_archive(),
                (None, None) => self.begin(Back::Far).await?,
            }
        }
    }

    /// Begins to read, or waits until there is something to read.
    async fn begin(&mut self, back: Back) -> Result<()> {
        match self.source.stand().await? {
            Stand::Unknown => {
                return Err(Error::not_found(format!(
                    "the cluster has no log of run `{}`",
                    self.run
                )));
            }
            Stand::Waiting => self.source.changed().await,
            Stand::Empty => self.is_done = true,
            Stand::Gone => self.open_archive(),
            Stand::Begun { pod, is_over } => self.open(&pod, is_over, back).await?,
        }
        Ok(())
    }

    async fn open(&mut self, pod: &PodSeen, is_over: bool, back: Back) -> Result<()> {
        let tag = pod_tag(&pod.uid);
        if self.place.pod().is_some_and(|before| before != tag) {
            // The cluster made another pod of the run: what was left of the log of the first is gone.
            self.lose(tag, 0);
        }
        let since = self.place.time().and_then(|time| match back {
            Back::All => None,
            Back::Little | Back::Glance => Some(time / 1_000_000_000 - STEP),
            Back::Far => Some(time / 1_000_000_000 - BACK),
        });
        let wanted = LogParams {
            container: Some(MAIN.to_owned()),
            follow: !is_over && matches!(back, Back::Little | Back::Far),
            timestamps: true,
            since_time: since.and_then(|since| Timestamp::from_second(since).ok()),
            ..LogParams::default()
        };
        let connected = self.source.connected().await?;
        let pods = connected.following::<Pod>();
        // In a box: a follower reads, and hardly ever asks.
        let opened = pods.log_stream(&pod.name, &wanted).boxed().await;
        match opened {
            Ok(reader) => {
                self.reading = Some(Box::new(Reading {
                    reader: Box::pin(reader),
                    pod: tag,
                    lines: Lines::new(self.source.has_first_process()),
                    counter: Counter::default(),
                    seeking: match self.place {
                        Place::Behind { anchor, .. } => Seeking::Behind(anchor),
                        Place::Later { time, .. } => Seeking::Later(time),
                        Place::Start | Place::Archived { .. } | Place::End => Seeking::Found,
                    },
                    follows: wanted.follow,
                    is_last: is_over,
                    is_whole: since.is_none(),
                    ends_by: None,
                    opened: Instant::now(),
                    began: pod.began().map(nanoseconds),
                    size: 0,
                    arrived: 0,
                    least_lag: self.least_lag,
                }));
                Ok(())
            }
            Err(error) => {
                let told = failed(connected, "read the log of the run", &error);
                self.not_opened(&error, told, is_over).await
            }
        }
    }

    /// The pod is gone, or the kubelet is away, or it has no log.
    async fn not_opened(&mut self, error: &kube::Error, told: Error, is_over: bool) -> Result<()> {
        self.failures += 1;
        if self.failures > ATTEMPTS {
            if is_over && is_status(error, 400) {
                // The node does not have it any more.
                self.finish_without_a_log();
                return Ok(());
            }
            if is_status(error, 404) {
                // The pod is there: its node has just begun, and does not know it yet.
                let message = format!("the node does not have the log of run `{}` yet", self.run);
                return Err(Error::unavailable(message).with_source(told));
            }
            return Err(told);
        }
        if matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403)) {
            return Err(told);
        }
        sleep(PAUSE * self.failures).await;
        Ok(())
    }

    /// The pod is gone: goes on in the archive, if that has what was not read.
    fn open_archive(&mut self) {
        let (from, finder) = match self.place {
            _ if self.last == Last::Well => return self.finish(),
            Place::Start => (0, None),
            Place::Archived { offset } => (offset, None),
            Place::Behind { anchor, .. } => (0, Some(anchor.finder())),
            Place::Later { .. } | Place::End => return self.finish_without_a_log(),
        };
        if finder.is_none() {
            self.place = Place::Archived { offset: from };
        }
        let parts = self.source.archived(from);
        self.archived = Some(Box::new(Unpacking { parts, finder }));
    }

    /// Takes what comes next of the archive.
    async fn unpack(&mut self, mut archive: Box<Unpacking>) -> Result<()> {
        let bytes = match (archive.parts.next().await.transpose()?, &mut archive.finder) {
            (None, None) => {
                self.finish();
                return Ok(());
            }
            (None, Some(finder)) => {
                match finder.found() {
                    Some(offset) => self.place = Place::Archived { offset },
                    None => self.finish_without_a_log(),
                }
                return Ok(());
            }
            (Some(Part::Lost), _) => {
                self.finish_without_a_log();
                return Ok(());
            }
            (Some(Part::Waits), _) => Bytes::new(),
            (Some(Part::Bytes(bytes)), Some(finder)) => {
                finder.push(&bytes);
                Bytes::new()
            }
            (Some(Part::Bytes(bytes)), None) => bytes,
        };
        self.archived = Some(archive);
        if let Place::Archived { offset } = &mut self.place {
            *offset += bytes.len() as u64;
        }
        if !bytes.is_empty() {
            self.has_gap = false;
        }
        // Without bytes it says that the log is being read.
        let next = self.place.cursor(self.run);
        let (stream, time) = (Stream::Both, None);
        let item = LogItem::Data {
            stream,
            time,
            bytes,
        };
        self.queue.push_back(LogChunk { item, next });
        Ok(())
    }

    /// Takes what comes next in a pass.
    async fn step(&mut self, mut reading: Box<Reading>) -> Result<()> {
        match self.take(&mut reading).await {
            Came::Bytes(bytes) => {
                self.failures = 0;
                reading.size = reading.size.saturating_add(bytes.len());
                let mut pieces = Vec::new();
                reading.lines.push(bytes, &mut pieces);
                let now = nanoseconds(Timestamp::now());
                let newest = pieces.last().map(|piece| piece.time);
                if let Some(first) = pieces.first().filter(|first| self.is_late(&reading, first)) {
                    self.lose(reading.pod, first.time - 1);
                }
                if let Some(at) = skip(&reading, &pieces, now) {
                    let behind = pieces.split_off(at);
                    self.deliver(&mut reading, pieces);
                    self.gap(GapReason::Rotated);
                    pieces = behind;
                }
                self.deliver(&mut reading, pieces);
                if let Some(newest) = newest {
                    reading.arrived = now;
                    self.least_lag = self.least_lag.min(now.saturating_sub(newest));
                    reading.least_lag = self.least_lag;
                }
                self.reading = Some(reading);
            }
            Came::Change => {
                if let Stand::Begun { is_over: false, .. } | Stand::Waiting =
                    self.source.stand().await?
                {
                } else {
                    reading.ends_by.get_or_insert(Instant::now() + LINGER);
                }
                self.reading = Some(reading);
            }
            Came::Hush => {
                self.last = Last::Hung;
                self.begin(Back::Glance).await?;
            }
            Came::Silence if reading.seeking == Seeking::Found => self.begin(Back::Little).await?,
            Came::Silence => self.begin(Back::All).await?,
            Came::Broken => {
                self.failures += 1;
                self.last = Last::Somehow;
                if self.failures > ATTEMPTS {
                    return Err(Error::unavailable(format!(
                        "the log of run `{}` breaks off again and again",
                        self.run
                    )));
                }
                sleep(PAUSE).await;
                self.begin(Back::Little).await?;
            }
            Came::End => {
                if reading.is_last {
                    let mut pieces = Vec::new();
                    reading.lines.finish(&mut pieces);
                    self.deliver(&mut reading, pieces);
                }
                self.ended(reading).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, reading: &mut Reading) -> Came {
        let is_sought = reading.follows && matches!(reading.seeking, Seeking::Behind(_));
        let overdue = match reading.ends_by {
            _ if is_sought => Some((Instant::now() + SEARCH).min(reading.opened + LONG_SEARCH)),
            ends_by => ends_by,
        };
        let may_hang = reading.follows && reading.size >= BURST && overdue.is_none();
        let is_watched = !reading.is_last && reading.ends_by.is_none();
        let came = tokio::select! {
            biased;
            came = reading.reader.fill_buf() => match came {
                Ok([]) => Came::End,
                Ok(bytes) => Came::Bytes(Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_CHUNK)])),
                Err(error) => {
                    tracing::debug!(run = %self.run, %error, "the log broke off");
                    Came::Broken
                }
            },
            () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => Came::Silence,
            () = sleep(HUSH), if may_hang => Came::Hush,
            () = self.source.changed(), if is_watched => Came::Change,
        };
        if let Came::Bytes(bytes) = &came {
            reading.reader.consume_unpin(bytes.len());
        }
        came
    }

    /// Brings what is to be delivered into the queue.
    fn deliver(&mut self, reading: &mut Reading, pieces: Vec<Piece>) {
        self.take_next_file(reading, &pieces);
        let mut joined = BytesMut::new();
        let mut time = None;
        for mut piece in pieces {
            if !is_wanted(reading, &mut piece) || piece.is_remark {
                continue;
            }
            time.get_or_insert(piece.time);
            joined.extend_from_slice(&piece.bytes);
        }
        // The counter has the whole of the last piece, wanted or not.
        let Some(anchor) = reading.counter.last() else {
            return;
        };
        if joined.is_empty() {
            return;
        }
        self.place = Place::Behind {
            pod: reading.pod,
            anchor,
        };
        self.has_gap = false;
        self.last = Last::Somehow;
        let item = LogItem::Data {
            stream: Stream::Both,
            time: time.and_then(|time| Timestamp::from_nanosecond(i128::from(time)).ok()),
            bytes: joined.freeze(),
        };
        let next = self.place.cursor(self.run);
        self.queue.push_back(LogChunk { item, next });
    }

    /// What begins later than the line before the place, where the last pass was at the end of its file, is another file.
    fn take_next_file(&mut self, reading: &mut Reading, pieces: &[Piece]) {
        let (Seeking::Behind(anchor), None, Some(first)) =
            (reading.seeking, reading.counter.last(), pieces.first())
        else {
            return;
        };
        if first.time <= anchor.time || self.last == Last::Somehow {
            return;
        }
        reading.seeking = Seeking::Found;
        if first.time.saturating_sub(anchor.time) >= ROTATION {
            // Another may have been between them.
            self.lose(reading.pod, anchor.time);
        }
    }

    /// Whether something may be missing before the first line that is read at all.
    fn is_late(&self, reading: &Reading, first: &Piece) -> bool {
        let is_first = self.place == Place::Start && reading.counter.last().is_none();
        let is_late = |began: i64| first.time.saturating_sub(began) >= LATE;
        is_first && reading.opened.elapsed() < AT_ONCE && reading.began.is_some_and(is_late)
    }

    /// What follows may be missing: goes on with all that is later than this.
    fn lose(&mut self, pod: u64, time: i64) {
        self.place = Place::Later { pod, time };
        self.gap(GapReason::Rotated);
    }

    /// The end of a pass.
    async fn ended(&mut self, reading: Box<Reading>) -> Result<()> {
        if let Seeking::Behind(anchor) = reading.seeking {
            let is_empty = reading.counter.last().is_none();
            if is_empty && reading.is_last && self.last == Last::Well {
                // The node has put the log away meanwhile; it was read to its end.
                self.finish();
                return Ok(());
            }
            let may_go_on = match self.last {
                // The same, before the cluster says that the container has ended; or the log was rotated, and goes on soon.
                Last::Well => true,
                // The next file has nothing yet.
                Last::Hung => !reading.is_whole,
                Last::Somehow => false,
            };
            if is_empty && !reading.is_last && may_go_on {
                self.wait_for_more().await;
                return Ok(());
            }
            if !reading.is_whole {
                return self.begin(Back::All).await;
            }
            // It is not in the log any more, so that something is missing behind it, too.
            self.lose(reading.pod, anchor.time);
            return self.begin(Back::All).await;
        }
        if reading.is_last {
            self.finish();
            return Ok(());
        }
        if reading.follows && !reading.lags() {
            self.last = Last::Well;
        } else if self.last == Last::Well {
            self.last = Last::Somehow;
        }
        match self.source.stand().await? {
            Stand::Empty => {
                self.finish();
                Ok(())
            }
            // Removed under our eyes: what the kubelet had was given, unless we were behind.
            Stand::Unknown | Stand::Gone => {
                self.finish_without_a_log();
                Ok(())
            }
            Stand::Waiting => {
                self.source.changed().await;
                Ok(())
            }
            Stand::Begun { pod, is_over } => {
                if !is_over {
                    // The stream has ended, and the run not yet, as far as is known.
                    self.wait_for_more().await;
                    if let Stand::Begun { pod, is_over } = self.source.stand().await? {
                        return self.open(&pod, is_over, Back::Little).await;
                    }
                    return Ok(());
                }
                self.open(&pod, true, Back::Little).await
            }
        }
    }

    /// For a moment, or until the run may stand otherwise.
    async fn wait_for_more(&mut self) {
        let wait = sleep(LOOK);
        futures::future::select(wait.boxed(), self.source.changed()).await;
    }

    /// Something is missing here: said once.
    fn gap(&mut self, why: GapReason) {
        if self.has_gap {
            return;
        }
        self.has_gap = true;
        let item = LogItem::Gap { bytes: None, why };
        let next = self.place.cursor(self.run);
        self.queue.push_back(LogChunk { item, next });
    }

    /// The run has ended, and its log is gone: what was not read of it is missing, if anything was left.
    fn finish_without_a_log(&mut self) {
        if self.last != Last::Well {
            self.gap(GapReason::Rotated);
        }
        self.finish();
    }

    /// Nothing more comes.
    fn finish(&mut self) {
        self.is_done = true;
        if let Some(last) = self.queue.back_mut() {
            last.next = Place::End.cursor(self.run);
        }
    }
}

fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or_default()
}

impl Reading {
    /// How much later than lines come here one came that was written at a time.
    fn lag(&self, written: i64, came: i64) -> i64 {
        came.saturating_sub(written).saturating_sub(self.least_lag)
    }

    /// Whether the last line came late, so that more may have been written by then.
    fn lags(&self) -> bool {
        let last = self.counter.last();
        last.is_some_and(|last| self.lag(last.time, self.arrived) >= LAG)
    }
}

/// Where a file may have been passed over: the kubelet goes on in the newest one when it is at the end of another, and that may be
/// the next but one if whoever reads is slow. Then the last line came so much later than it was written that there was time for two
/// rotations, and the next one was written so much later, too. What was written before the pass began is in the file it began with.
fn skip(reading: &Reading, pieces: &[Piece], now: i64) -> Option<usize> {
    if !reading.follows || reading.seeking != Seeking::Found || reading.size < BURST {
        return None;
    }
    let passed = i64::try_from(reading.opened.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let began = now.saturating_sub(passed).saturating_sub(reading.least_lag);
    let (mut last, mut arrived) = (reading.counter.last()?.time, reading.arrived);
    pieces.iter().position(|piece| {
        let before = std::mem::replace(&mut last, piece.time);
        let came = std::mem::replace(&mut arrived, now);
        let lag = reading.lag(before, came);
        let is_behind = lag >= ROTATION && piece.time >= began;
        is_behind && piece.time.saturating_sub(before) >= ROTATION
    })
}

/// Whether a piece is to be delivered; takes off what was delivered before.
fn is_wanted(reading: &mut Reading, piece: &mut Piece) -> bool {
    match reading.seeking {
        Seeking::Found => {}
        Seeking::Later(time) => {
            if piece.time <= time {
                reading.counter.next(piece);
                return false;
            }
            reading.seeking = Seeking::Found;
        }
        Seeking::Behind(anchor) => {
            let found = reading.counter.find(piece, anchor);
            reading.counter.next(piece);
            let Some(before) = found else { return false };
            reading.seeking = Seeking::Found;
            piece.bytes = piece.bytes.split_off(before);
            return !piece.bytes.is_empty();
        }
    }
    reading.counter.next(piece);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn piece(second: i64) -> Piece {
        Piece {
            time: second * SECOND,
            is_first: true,
            is_remark: false,
            bytes: Bytes::from_static(b"line\n"),
        }
    }

    /// A pass whose last line was written in one second, and came in another.
    fn reading(written: i64, came: i64) -> Reading {
        let mut counter = Counter::default();
        counter.next(&piece(written));
        Reading {
            reader: Box::pin(futures::io::empty()),
            pod: 1,
            lines: Lines::new(false),
            counter,
            seeking: Seeking::Found,
            follows: true,
            is_last: false,
            is_whole: false,
            ends_by: None,
            opened: Instant::now() - Duration::from_secs(20),
            began: None,
            size: BURST,
            arrived: came * SECOND,
            least_lag: 0,
        }
    }

    #[test]
    fn a_file_may_have_been_passed_over_where_lines_came_late_and_are_far_apart() {
        let pieces = [piece(100), piece(110), piece(111)];
        let late = reading(100, 109);
        assert_eq!(skip(&late, &pieces, 112 * SECOND), Some(1));
        assert_eq!(skip(&late, &pieces[1..], 112 * SECOND), Some(0));
        let in_time = reading(100, 100);
        assert_eq!(
            skip(&in_time, &pieces[1..], 112 * SECOND),
            None,
            "a pause of the work"
        );
        let small = Reading {
            size: 10,
            ..reading(100, 109)
        };
        assert_eq!(skip(&small, &pieces, 112 * SECOND), None);
        let just_begun = Reading {
            opened: Instant::now(),
            ..reading(100, 109)
        };
        assert_eq!(
            skip(&just_begun, &pieces, 112 * SECOND),
            None,
            "in the file that it began with"
        );
        assert!(late.lags() && !in_time.lags());
        let of_another_clock = Reading {
            least_lag: 9 * SECOND,
            ..reading(100, 109)
        };
        assert_eq!(skip(&of_another_clock, &pieces[1..], 120 * SECOND), None);
    }
}
