//! The log of one attempt: a task that copies it as the backend gives it, and whoever reads the copy.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::{Executor, Handle};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::file::{self, END, HEADER, SpoolFile, Start};
use super::room::Room;

/// So long somebody who knows from where the log is wanted may take to say so, before it is copied from its beginning.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before a log that cannot be read is asked for again while nobody reads it, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Before it is seen whether there is room again.
const FULL: Duration = Duration::from_secs(5);
/// What was read stays for so many bytes more: what was on its way when a link died is asked for again. More than the link's credit.
const KEPT: u64 = 1 << 20;

type Chunks = BoxStream<'static, Result<LogChunk>>;

/// The log of one attempt.
pub(super) struct Attempt {
    executor: Arc<dyn Executor>,
    handle: Handle,
    path: PathBuf,
    room: Room,
    state: Mutex<State>,
    /// Rung whenever the state changes.
    rung: watch::Sender<()>,
    /// Somebody wants the log now.
    wanted: Notify,
    /// Somebody wants it from elsewhere.
    elsewhere: Notify,
}

/// How far the copying of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// What an earlier life left was not looked at.
    New,
    /// It left nothing, and nobody has said yet from where the log is wanted.
    Empty,
    Begun,
}

struct State {
    stage: Stage,
    /// None while nothing is kept.
    file: Option<Arc<SpoolFile>>,
    start: Start,
    /// The offset behind the last line.
    written: u64,
    /// The place in the log there.
    last: Option<LogCursor>,
    is_whole: bool,
    /// What did not fit, for whoever has read all before it.
    over: Option<LogChunk>,
    failure: Option<Error>,
    /// Whether it was told that it cannot be written.
    is_told: bool,
    /// The copy was begun anew so many times.
    round: u64,
    /// Where it is to begin anew, and what follows there.
    anew: Option<(Option<LogCursor>, Chunks)>,
}

impl State {
    fn kept(&self) -> u64 {
        self.written - self.start.base
    }

    /// A copy that begins there, with nothing in it.
    fn begin(&mut self, cursor: Option<LogCursor>) {
        self.file = None;
        self.last.clone_from(&cursor);
        self.start = Start::at(cursor);
        self.written = HEADER;
        self.is_whole = false;
        (self.over, self.failure) = (None, None);
    }
}

impl Attempt {
    pub(super) fn new(
        executor: Arc<dyn Executor>,
        handle: Handle,
        path: PathBuf,
        room: Room,
    ) -> Self {
        let state = State {
            stage: Stage::New,
            file: None,
            start: Start::at(None),
            written: HEADER,
            last: None,
            is_whole: false,
            over: None,
            failure: None,
            is_told: false,
            round: 0,
            anew: None,
        };
        Self {
            executor,
            handle,
            path,
            room,
            state: Mutex::new(state),
            rung: watch::Sender::new(()),
            wanted: Notify::new(),
            elsewhere: Notify::new(),
        }
    }

    // ---- copying

    /// Copies the log as long as it is polled. It ends never: a reader may want it from elsewhere. Mostly it waits for the backend: what
    /// else it may do is in boxes.
    pub(super) async fn copy(self: Arc<Self>) {
        self.load().boxed().await;
        let mut chunks = None;
        loop {
            tokio::select! {
                biased;
                () = self.elsewhere.notified() => chunks = self.begin_anew(),
                () = self.copy_from(chunks.take()) => {}
            }
        }
    }

    /// Takes over what an earlier life left.
    async fn load(&self) {
        let path = self.path.clone();
        let found = blocking(move || SpoolFile::open(&path)).await;
        let mut state = self.state();
        state.stage = Stage::Empty;
        match found {
            Ok(Some(found)) => {
                state.stage = Stage::Begun;
                state.file = Some(Arc::new(found.file));
                (state.start, state.written) = (found.start, found.len);
                (state.last, state.is_whole) = (found.last, found.is_whole);
                self.room.has(state.kept());
            }
            Ok(None) => {}
            Err(error) => self.troubled("read", &error),
        }
        drop(state);
        self.ring();
    }

    /// Takes over what whoever reads found elsewhere.
    fn begin_anew(&self) -> Option<Chunks> {
        let mut state = self.state();
        let (cursor, chunks) = state.anew.take()?;
        self.room.give_back(state.kept());
        state.begin(cursor);
        state.round += 1;
        drop(state);
        self.ring();
        Some(chunks)
    }

    /// Copies to the log's end, and then stands still.
    async fn copy_from(&self, mut chunks: Option<Chunks>) {
        if self.state().stage < Stage::Begun {
            drop(timeout(PATIENCE, self.wanted.notified()).await);
            self.state().stage = Stage::Begun;
        }
        let mut pause = PAUSE;
        while !self.state().is_whole {
            let mut open = match chunks.take() {
                Some(chunks) => chunks,
                None => self.executor.logs(&self.handle, self.state().last.clone()),
            };
            let ended = loop {
                match open.next().await {
                    Some(Ok(chunk)) => {
                        pause = PAUSE;
                        self.put(chunk).boxed().await;
                    }
                    ended => break ended.and_then(Result::err),
                }
            };
            let Some(failure) = ended else {
                self.end().boxed().await;
                break;
            };
            self.state().failure = Some(failure);
            self.ring();
            drop(timeout(pause, self.wanted.notified()).await);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        std::future::pending::<()>().await;
    }

    /// Keeps a chunk, or hands it over where there is no room.
    async fn put(&self, chunk: LogChunk) {
        let mut chunk = Some(chunk);
        let mut rung = self.rung.subscribe();
        while let Some(whole) = chunk.take() {
            if self.keep(&whole).await {
                return;
            }
            self.state().over = Some(whole);
            self.ring();
            rung.mark_unchanged();
            if self.state().over.is_some() {
                // A reader takes it, or makes room.
                drop(timeout(FULL, rung.changed()).await);
            }
            chunk = self.state().over.take();
        }
    }

    /// Whether it could be kept.
    async fn keep(&self, chunk: &LogChunk) -> bool {
        let mut line = serde_json::to_vec(chunk).unwrap_or_default();
        line.push(b'\n');
        let written = self.append(line).await;
        if written {
            let mut state = self.state();
            state.last = Some(chunk.next.clone());
            state.failure = None;
            drop(state);
            self.ring();
        }
        written
    }

    async fn end(&self) {
        self.append(END.to_vec()).await;
        // What an earlier life does not find to be whole is asked for once more.
        self.state().is_whole = true;
        self.ring();
    }

    async fn append(&self, line: Vec<u8>) -> bool {
        let (file, start, at, kept) = {
            let state = self.state();
            let start = state.start.clone();
            (state.file.clone(), start, state.written, state.kept())
        };
        let len = line.len() as u64;
        let Some(taken) = self.room.take(kept, len) else {
            return false;
        };
        let path = self.path.clone();
        let written = blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(SpoolFile::create(&path, &start)?),
            };
            file.append(at, &line)?;
            Ok(file)
        })
        .await;
        match written {
            Ok(file) => {
                let mut state = self.state();
                state.file = Some(file);
                state.is_told = false;
                state.written += len;
                taken.keep();
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.state().is_told, true) {
                    self.troubled("write", &error);
                }
                false
            }
        }
    }

    /// Nobody wants it any more.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        self.room.give_back(state.kept());
        state.begin(None);
    }

    // ---- reading

    /// The log from there, followed to its end.
    pub(super) fn read(self: Arc<Self>, from: Option<LogCursor>) -> Chunks {
        let next = |mut reader: Reader| async {
            let chunk = reader.next().await?;
            Ok(chunk.map(|chunk| (chunk, reader)))
        };
        self.open(from)
            .map_ok(move |reader| stream::try_unfold(reader, next))
            .try_flatten_stream()
            .boxed()
    }

    async fn open(self: Arc<Self>, from: Option<LogCursor>) -> Result<Reader> {
        let mut rung = self.rung.subscribe();
        // The sender is ours.
        let is_settled = |(): &()| {
            let state = self.state();
            state.stage > Stage::New && state.anew.is_none()
        };
        drop(rung.wait_for(is_settled).await);
        let (file, start, written, round) = {
            let mut state = self.state();
            if state.stage < Stage::Begun {
                state.stage = Stage::Begun;
                state.begin(from.clone());
            }
            // One that somebody else was told, perhaps long ago.
            state.failure = None;
            self.wanted.notify_one();
            if from == state.start.cursor {
                let (round, base) = (state.round, state.start.base);
                drop(state);
                return Ok(Reader::new(self, rung, round, base, from));
            }
            let file = state.file.clone();
            (file, state.start.base, state.written, state.round)
        };
        if let (Some(file), Some(cursor)) = (file, from.clone()) {
            match blocking(move || file.find(start, written, &cursor)).await {
                Ok(Some(at)) => return Ok(Reader::new(self, rung, round, at, from)),
                Ok(None) => {}
                Err(error) => self.troubled("read", &error),
            }
        }
        self.open_elsewhere(rung, from).await
    }

    /// From a place that is not in the copy: the backend is asked, and if it knows that place the copy begins anew there.
    async fn open_elsewhere(
        self: Arc<Self>,
        mut rung: watch::Receiver<()>,
        from: Option<LogCursor>,
    ) -> Result<Reader> {
        let mut chunks = self.executor.logs(&self.handle, from.clone());
        let chunks = match chunks.next().await {
            Some(Err(error)) => return Err(error),
            Some(Ok(first)) => stream::once(async { Ok(first) }).chain(chunks).boxed(),
            None => stream::empty().boxed(),
        };
        let round = {
            let mut state = self.state();
            state.anew = Some((from.clone(), chunks));
            state.round + 1
        };
        self.elsewhere.notify_one();
        drop(rung.wait_for(|()| self.state().round >= round).await);
        Ok(Reader::new(self, rung, round, HEADER, from))
    }

    fn troubled(&self, what: &str, error: &io::Error) {
        let path = self.path.display();
        tracing::warn!(run = %self.handle.run, %path, %error, "failed to {what} the copy of the log");
    }

    fn ring(&self) {
        self.rung.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever reads a copy.
struct Reader {
    attempt: Arc<Attempt>,
    rung: watch::Receiver<()>,
    round: u64,
    at: u64,
    /// The place in the log there.
    place: Option<LogCursor>,
    queue: VecDeque<(LogChunk, u64)>,
    /// A line that was read, before which nothing is needed once so much more was read.
    mark: Option<Start>,
}

/// What is next for a reader.
enum Next {
    Read(Arc<SpoolFile>, u64),
    Over(LogChunk),
    Wait,
    End,
}

impl Reader {
    fn new(
        attempt: Arc<Attempt>,
        rung: watch::Receiver<()>,
        round: u64,
        at: u64,
        place: Option<LogCursor>,
    ) -> Self {
        Self {
            attempt,
            rung,
            round,
            at,
            place,
            queue: VecDeque::new(),
            mark: None,
        }
    }

    async fn next(&mut self) -> Result<Option<LogChunk>> {
        loop {
            if let Some((chunk, end)) = self.queue.pop_front() {
                self.at = end;
                self.place = Some(chunk.next.clone());
                self.let_go().boxed().await;
                return Ok(Some(chunk));
            }
            self.rung.mark_unchanged();
            match self.look()? {
                Next::Read(file, until) => {
                    let at = self.at;
                    let read = blocking(move || file.chunks(at, until)).boxed().await;
                    self.queue = match read {
                        Ok(chunks) if !chunks.is_empty() => chunks,
                        Ok(_) if self.is_end(until) => {
                            self.at = until;
                            continue;
                        }
                        damaged => return Err(self.damaged(damaged.err())),
                    };
                }
                Next::Over(chunk) => {
                    self.at = HEADER;
                    self.place = Some(chunk.next.clone());
                    self.mark = None;
                    return Ok(Some(chunk));
                }
                Next::End => return Ok(None),
                // The sender is ours.
                Next::Wait => drop(self.rung.changed().await),
            }
        }
    }

    fn look(&self) -> Result<Next> {
        let mut state = self.attempt.state();
        if state.round != self.round || self.at < state.start.base {
            return Err(Error::unavailable(
                "somebody else reads the log too, from elsewhere: ask again",
            ));
        }
        if self.at < state.written
            && let Some(file) = &state.file
        {
            return Ok(Next::Read(Arc::clone(file), state.written));
        }
        if let Some(chunk) = state.over.take() {
            // What is kept would have a hole here.
            drop(file::remove(&self.attempt.path));
            self.attempt.room.give_back(state.kept());
            state.begin(Some(chunk.next.clone()));
            drop(state);
            self.attempt.ring();
            return Ok(Next::Over(chunk));
        }
        if state.is_whole {
            return Ok(Next::End);
        }
        state.failure.take().map_or(Ok(Next::Wait), Err)
    }

    /// Whether nothing but the line of the end is left.
    fn is_end(&self, until: u64) -> bool {
        until - self.at == END.len() as u64
    }

    /// What cannot be read any more is copied anew.
    fn damaged(&self, error: Option<io::Error>) -> Error {
        let attempt = &self.attempt;
        let error = error.unwrap_or_else(|| io::ErrorKind::InvalidData.into());
        attempt.troubled("read", &error);
        let mut state = attempt.state();
        if state.round == self.round {
            let chunks = attempt.executor.logs(&attempt.handle, self.place.clone());
            state.anew = Some((self.place.clone(), chunks));
            attempt.elsewhere.notify_one();
        }
        let path = attempt.path.display();
        Error::unavailable(format!("the copy of the log in `{path}` cannot be read"))
            .with_source(error)
    }

    /// Gives back what was read long ago.
    async fn let_go(&mut self) {
        let here = || Start {
            base: self.at,
            cursor: self.place.clone(),
        };
        let Some(mark) = &self.mark else {
            self.mark = Some(here());
            return;
        };
        if self.at - mark.base < KEPT {
            return;
        }
        let next = here();
        let Some(start) = self.mark.replace(next) else {
            return;
        };
        let file = {
            let state = self.attempt.state();
            let is_ours = state.round == self.round && state.start.base < start.base;
            state.file.clone().filter(|_| is_ours)
        };
        let Some(file) = file else { return };
        let written = start.clone();
        if blocking(move || file.drop_before(&written)).await.is_err() {
            return;
        }
        let mut state = self.attempt.state();
        if state.round == self.round && state.start.base < start.base {
            self.attempt.room.give_back(start.base - state.start.base);
            state.start = start;
        }
        drop(state);
        self.attempt.ring();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
