//! The values that runs were given: masked in all that their backend says, as long as they are known.
//!
//! They live in memory only. It is noted on disk of which references and versions they were ([`Given`]), and after a restart of
//! the runner the same versions are read again. Where that cannot be done, the run's log is held back, and so are the words of
//! its status, unless its backend masks them itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::time::{Instant, sleep, timeout};

use super::given::Given;
use super::held;
use super::masking::Masking;
use crate::error::{Error, Result};
use crate::executor::{Capabilities, Handle};
use crate::finding::Finding;
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor};
use crate::masked;
use crate::run::{Outcome, State, Status};
use crate::secret::{References, Secrets};

/// A store that is away is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a store that is away is waited for once the run has ended: its outcome waits as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the first level of a run waits for its values.
const SOON: Duration = Duration::from_secs(2);

/// What is to be known beforehand of a backend that lets its output be read and does not mask it.
pub fn caution(can: &Capabilities) -> Option<&'static str> {
    let careless = can.offers("logs") && !can.masks;
    careless.then_some(
        "its output is masked by the runner (`masks` is off): after a restart of the runner, the log of a run with values goes on \
         only if their secret store keeps versions, which `env` and `file` do not; else it is held back",
    )
}

/// The values of the live runs of one backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Values {
    masking: Arc<Masking>,
    /// A note for each run that was given values which its backend does not mask.
    folder: PathBuf,
    on: bool,
    references: References,
    /// Runs whose values cannot be had again.
    held: Arc<Mutex<HashMap<RunId, Held>>>,
}

/// A run that is held back.
#[derive(Debug)]
struct Held {
    why: String,
    /// In our log.
    is_told: bool,
}

impl Values {
    /// Those of a backend that keeps its notes here.
    pub fn of(data_dir: &Path, references: References) -> Self {
        Self::new(Arc::default(), data_dir, true, references)
    }

    pub(super) fn new(
        masking: Arc<Masking>,
        data_dir: &Path,
        on: bool,
        references: References,
    ) -> Self {
        let folder = data_dir.join("given-values");
        if on {
            // What an earlier life gave is not known in this one.
            noted(&folder).for_each(|run| masking.doubt(run));
        }
        Self {
            masking,
            folder,
            on,
            references,
            held: Arc::default(),
        }
    }

    /// Remembers what a run is about to be given. `masks`: whether its backend masks it as well.
    pub async fn give(&self, run: RunId, secrets: &Secrets, masks: bool) -> Result<()> {
        if secrets.is_empty() || !self.on {
            return Ok(());
        }
        let mut values: Vec<_> = secrets.iter().map(|(_, value)| value.clone()).collect();
        if !masks {
            let given = Given::of(secrets);
            let before = self.note(run).await?.unwrap_or_default();
            let all = before.clone().and(given.clone());
            let (folder, note, text) = (self.folder.clone(), self.mark(run), all.text());
            let written = blocking(move || {
                std::fs::create_dir_all(folder)?;
                let fresh = note.with_extension("new");
                std::fs::write(&fresh, text)?;
                std::fs::rename(fresh, note)
            });
            written.await.map_err(|error| failed_to_note(run, error))?;
            // A start made again: the work may have been given what was noted by an earlier life.
            let earlier = before.without(&given);
            if !earlier.is_empty() && !self.masking.knows(&run.to_string()) {
                match earlier.again(&self.references.for_run(run)).await {
                    Ok(more) => values.extend(more),
                    Err(error) => {
                        self.masking.doubt(run.to_string());
                        self.hold(run, &error);
                        return Ok(());
                    }
                }
            }
        }
        self.masking.learn(run.to_string(), values);
        Ok(())
    }

    /// What is noted of a run; an empty note if it is one that an earlier version made.
    async fn note(&self, run: RunId) -> Result<Option<Given>> {
        let note = self.mark(run);
        match blocking(move || std::fs::read(note)).await {
            Ok(text) if text.is_empty() => Ok(Some(Given::default())),
            Ok(text) => Given::read(&text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed_to_note(run, error)),
        }
    }

    /// Learns again what a run was given, if it is not known any more. An error says why its log is held back.
    async fn recall(&self, run: RunId) -> Result<()> {
        if self.masking.knows(&run.to_string()) {
            return Ok(());
        }
        let Some(given) = self.note(run).await? else {
            return Ok(());
        };
        let values = given.again(&self.references.for_run(run)).await?;
        self.masking.learn(run.to_string(), values);
        if self.held().remove(&run).is_some() {
            tracing::info!(%run, "the values that the run was given can be read again: its log goes on");
        }
        Ok(())
    }

    /// Learns again what a run was given, soon: what a run whose values are not there by then says is held back.
    pub async fn recall_soon(&self, run: RunId) {
        let recalled = timeout(SOON, self.recall(run)).await;
        let late = || Err(Error::unavailable("the secret store has not answered yet"));
        if let Err(error) = recalled.unwrap_or_else(|_| late()) {
            self.hold(run, &error);
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<RunId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a run is held back.
    fn hold(&self, run: RunId, why: &Error) {
        let why = format!(
            "the log of the run is held back in the backend, because the values that it was given cannot be had again to mask them: {}",
            why.report()
        );
        let mut held = self.held();
        let is_told = held.get(&run).is_some_and(|held| held.is_told);
        held.insert(run, Held { why, is_told });
    }

    /// Says once in our log that a run is held back.
    fn tell(&self, run: RunId, error: &Error) {
        let mut held = self.held();
        let Some(held) = held.get_mut(&run) else {
            return;
        };
        if !std::mem::replace(&mut held.is_told, true) {
            tracing::warn!(%run, why = error.report(), "the log of the run is held back: the values that it was given cannot be had again");
        }
    }

    /// Forgets what a run was given.
    pub async fn withdraw(&self, run: RunId) {
        self.masking.forget(&run.to_string());
        self.held().remove(&run);
        let mark = self.mark(run);
        match blocking(move || std::fs::remove_file(mark)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(%run, %error, "failed to remove a note");
            }
            _ => {}
        }
    }

    fn mark(&self, run: RunId) -> PathBuf {
        self.folder.join(run.to_string())
    }

    /// A run's output without its values; one gap if they are needed and cannot be had again.
    ///
    /// A store that is away is waited for until the run has ended, and a little longer: then it is told.
    pub fn log(
        &self,
        run: RunId,
        masks: bool,
        from: Option<LogCursor>,
        open: impl FnOnce(Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> + Send + 'static,
        watch: impl Fn() -> BoxStream<'static, Result<Status>> + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<LogChunk>> {
        let (from, told) = held::place(from);
        let this = self.clone();
        let values = self.clone();
        let opened = async move {
            if !masks && let Err(error) = this.recall_in_time(run, &watch).await {
                this.hold(run, &error);
                this.tell(run, &error);
                return held::held(from.as_ref(), told, watch());
            }
            let patterns = this.masking.of(&run.to_string());
            let ours = from.as_ref().is_some_and(masked::is_ours);
            match patterns {
                None if !ours => open(from),
                patterns => masked::masked(run, patterns, from, open),
            }
        };
        let chunks = stream::once(opened).flatten();
        let chunks = chunks.map(move |chunk| chunk.map_err(|error| values.error(error)));
        chunks.boxed()
    }

    /// Learns again what a run was given, or says why not, as soon as that cannot change or the run has ended.
    async fn recall_in_time(
        &self,
        run: RunId,
        watch: &(impl Fn() -> BoxStream<'static, Result<Status>> + Sync),
    ) -> Result<()> {
        let mut ended = Box::pin(end(watch));
        let mut until: Option<Instant> = None;
        loop {
            let error = match self.recall(run).await {
                Err(error) if error.is_transient() => error,
                answer => return answer,
            };
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(error);
            }
            self.hold(run, &error);
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = &mut ended, if until.is_none() => until = Some(Instant::now() + PATIENCE),
            }
        }
    }

    /// A text without any value.
    pub fn text(&self, text: &str) -> String {
        self.masking.text(text)
    }

    /// An error without any value.
    #[must_use]
    pub fn error(&self, error: Error) -> Error {
        self.masking.error(error)
    }

    /// A finding without any value.
    pub fn finding(&self, mut finding: Finding) -> Finding {
        finding.message = self.masking.text(&finding.message);
        finding
    }

    /// A level of a run without any value: without the backend's own words, if they cannot be masked.
    pub fn status(&self, run: RunId, mut status: Status) -> Status {
        let held = self.held().get(&run).map(|held| held.why.clone());
        let Some(why) = held else {
            return self.masking.status(status);
        };
        let withheld = || format!("the backend's words are held back, too: {why}");
        match &mut status.state {
            State::Finished(Outcome::Failed(failure)) => {
                failure.message = withheld();
                failure.source = None;
            }
            State::Finished(Outcome::Lost { why }) => *why = withheld(),
            State::Finished(Outcome::Stopped { by: Some(by) }) => *by = withheld(),
            _ => {}
        }
        status.message = Some(why);
        status
    }

    /// A handle as it may be written down: without its state, if a value stands in it.
    #[must_use]
    pub fn handle(&self, handle: Handle) -> Handle {
        if self.may_be_written(&handle) {
            return handle;
        }
        tracing::warn!(run = %handle.run, "a value stands in the handle's state: the state is left out");
        Handle::of(handle.run)
    }

    /// Whether a handle may be written down: no value of its run stands in it, for all that is known.
    pub fn may_be_written(&self, handle: &Handle) -> bool {
        self.masking
            .is_free(&handle.run.to_string(), &handle.state.to_string())
    }
}

/// The runs that have a note.
fn noted(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.parse::<RunId>().is_ok())
}

/// Waits for the end of a run.
async fn end(watch: &(impl Fn() -> BoxStream<'static, Result<Status>> + Sync)) {
    loop {
        let mut levels = watch();
        let mut well = true;
        while let Some(level) = levels.next().await {
            well = level.is_ok();
        }
        if well {
            return;
        }
        sleep(AGAIN).await;
    }
}

fn failed_to_note(run: RunId, error: std::io::Error) -> Error {
    let what = format!("failed to keep the note of what `{run}` is given");
    Error::unavailable(what).with_source(error)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::log::{GapReason, LogItem, Stream};
    use crate::secret::{Origin, Secret, SecretValue};

    const VALUE: &str = "kestrel-umbrella-4711";

    /// A store that answers once it is there.
    fn store(is_there: &Arc<AtomicBool>) -> References {
        let is_there = Arc::clone(is_there);
        References::through(move |run, _| {
            assert!(run.is_some(), "read for a run");
            let answer = if is_there.load(Ordering::SeqCst) {
                Ok(Secret::new(VALUE).with_version("7"))
            } else {
                Err(Error::unavailable("away"))
            };
            Box::pin(async { answer })
        })
    }

    /// The values of a runner's next life: a run was given one of version 7 in the life before.
    async fn next_life(folder: &Path, run: RunId, is_there: &Arc<AtomicBool>) -> Values {
        let mut secrets = Secrets::none();
        secrets.insert("/a", SecretValue::new(VALUE));
        let origin = Origin::Store("prod".parse().unwrap(), Some("7".to_owned()));
        secrets.set_origin("/a", origin);
        let life = || Values::of(folder, store(is_there));
        life().give(run, &secrets, false).await.unwrap();
        life()
    }

    /// What the backend says, behind this cursor or from the beginning.
    fn open(_: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let item = LogItem::Data {
            stream: Stream::Out,
            time: None,
            bytes: format!("it is {VALUE}\n").into(),
        };
        let next = "1".parse().unwrap();
        stream::iter([Ok(LogChunk { item, next })]).boxed()
    }

    fn ended() -> BoxStream<'static, Result<Status>> {
        stream::iter([Ok(Status::new(1, State::Finished(Outcome::Succeeded)))]).boxed()
    }

    async fn read(chunks: BoxStream<'static, Result<LogChunk>>) -> Vec<LogChunk> {
        let all = chunks.map(Result::unwrap).collect();
        timeout(Duration::from_mins(1), all).await.unwrap()
    }

    fn text(chunks: &[LogChunk]) -> String {
        let texts = chunks.iter().map(|chunk| match &chunk.item {
            LogItem::Data { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            LogItem::Gap { why, .. } => format!("[{}]", why.in_words()),
        });
        texts.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_waited_for_while_the_run_lives() {
        let (folder, run) = (tempfile::tempdir().unwrap(), RunId::generate().attempt(1));
        let is_there = Arc::new(AtomicBool::new(false));
        let values = next_life(folder.path(), run, &is_there).await;
        let log = values.log(run, false, None, open, || stream::pending().boxed());
        let back = async {
            sleep(Duration::from_hours(1)).await;
            is_there.store(true, Ordering::SeqCst);
        };
        let read = async {
            let log: Vec<_> = log.map(Result::unwrap).collect().await;
            log
        };
        let (log, ()) = futures::join!(read, back);
        assert_eq!(text(&log), "it is ***\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_is_held_back_soon_after_the_end_and_goes_on_once_the_store_is_back() {
        let (folder, run) = (tempfile::tempdir().unwrap(), RunId::generate().attempt(1));
        let is_there = Arc::new(AtomicBool::new(false));
        let values = next_life(folder.path(), run, &is_there).await;
        let begun = Instant::now();
        let log = read(values.log(run, false, None, open, ended)).await;
        assert!(begun.elapsed() < PATIENCE + SOON, "{:?}", begun.elapsed());
        assert_eq!(text(&log), format!("[{}]", GapReason::HeldBack.in_words()));
        let status = values.status(run, Status::new(1, State::Running));
        assert!(status.message.unwrap().contains("held back"));

        let behind = Some(log[0].next.clone());
        let again = read(values.log(run, false, behind.clone(), open, ended)).await;
        assert_eq!(again, [], "the gap is told once");
        is_there.store(true, Ordering::SeqCst);
        let rest = read(values.log(run, false, behind, open, ended)).await;
        assert_eq!(text(&rest), "it is ***\n");
        let status = values.status(run, Status::new(1, State::Running));
        assert_eq!(status.message, None);
    }

    #[tokio::test]
    async fn a_start_made_again_with_another_value_of_no_version_is_held_back() {
        let (folder, run) = (tempfile::tempdir().unwrap(), RunId::generate().attempt(1));
        let given = |value: &str| {
            let mut secrets = Secrets::none();
            secrets.insert("/a", SecretValue::new(value));
            secrets.set_origin("/a", Origin::Store("files".parse().unwrap(), None));
            secrets
        };
        let life = || Values::of(folder.path(), References::none());
        life().give(run, &given(VALUE), false).await.unwrap();
        let next = life();
        next.give(run, &given("rotated"), false).await.unwrap();
        let log = read(next.log(run, false, None, open, ended)).await;
        assert_eq!(text(&log), format!("[{}]", GapReason::HeldBack.in_words()));
        assert!(!next.text(VALUE).contains(VALUE));
    }

    #[tokio::test]
    async fn what_a_held_run_says_of_its_end_is_held_back_and_how_it_ended_is_not() {
        let (folder, run) = (tempfile::tempdir().unwrap(), RunId::generate().attempt(1));
        let is_there = Arc::new(AtomicBool::new(false));
        let values = next_life(folder.path(), run, &is_there).await;
        values.recall_soon(run).await;
        let mut failure = crate::run::Failure::exit(3);
        failure.message = format!("wrong password {VALUE}");
        failure.source = Some(VALUE.to_owned());
        let level = Status::new(1, State::Finished(Outcome::Failed(failure)));
        let told = values.status(run, level);
        assert!(!format!("{told:?}").contains(VALUE), "{told:?}");
        let Some(Outcome::Failed(failure)) = told.outcome() else {
            panic!("{told:?}");
        };
        assert_eq!(failure.exit_code, Some(3));
        let error = values.error(Error::unavailable(VALUE));
        assert!(!error.report().contains(VALUE), "{error:?}");
        let by = Some(VALUE.to_owned());
        let stopped = Status::new(1, State::Finished(Outcome::Stopped { by }));
        let told = values.status(run, stopped);
        assert!(!format!("{told:?}").contains(VALUE), "{told:?}");
        values.withdraw(run).await;
        assert_eq!(
            std::fs::read_dir(folder.path().join("given-values"))
                .unwrap()
                .count(),
            0
        );
    }
}
