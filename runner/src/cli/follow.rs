//! Following a run: its log to stdout, its states to stderr.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::executor::{Executor, Handle};
use hybrid_runner_core::id::{Owner, SectionName};
use hybrid_runner_core::run::{Limits, RunSpec, State, Status};
use hybrid_runner_core::{Error, Outcome, RunId};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::Interrupt;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::runs::Run;
use crate::supervisor::Runner;

/// After the end of a run, its log may pause for this long before its own.
const LOG_AFTER_END: Duration = Duration::from_secs(30);

/// Before a stream that broke is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// How long the backend of a run that is to stop may be away.
const SILENCE: Duration = Duration::from_secs(10);

/// What has not begun in its time and does not end so long after that it was told to is not going to.
const STUCK: Duration = Duration::from_secs(30);

/// Where a run of this process lives, as its executor calls it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The section of its executor.
    pub(crate) section: SectionName,
    /// The kind of that section.
    pub(crate) kind: String,
    /// Whose things the executor believes its to be.
    pub(crate) owner: Owner,
}

impl Place {
    /// An attempt, by the name under which people find it in the backend.
    fn called(&self, run: RunId, attempt: u32) -> String {
        let attempt = run.attempt(attempt.max(1));
        let (section, owner) = (&self.section, &self.owner);
        let (uuid, number) = (attempt.uuid().simple(), attempt.attempt_number());
        match self.kind.as_str() {
            "docker" => format!("container `hr-{owner}-{attempt}` of executor `{section}`"),
            "kubernetes" => format!("Job `hr-{owner}-{uuid}-{number}` of executor `{section}`"),
            "argo" => format!("Workflow `hr-{owner}-{uuid}-{number}` of executor `{section}`"),
            _ => format!("attempt `{attempt}` of executor `{section}`, owner `{owner}`"),
        }
    }

    /// What may be left of a run that cannot be stopped.
    fn may_go_on(&self, run: RunId, attempt: u32) -> String {
        let called = self.called(run, attempt);
        format!("{called} goes on if it was begun and has not ended, and nobody will remove it")
    }

    /// What a second signal leaves.
    fn left(&self, run: RunId, attempt: u32) -> String {
        let called = self.called(run, attempt);
        format!("left the run: {called} may go on, and nobody will remove it")
    }

    /// What a second signal leaves of a run that has ended.
    fn left_ended(&self, run: RunId, attempt: u32) -> String {
        let called = self.called(run, attempt);
        format!(
            "left the run, which has ended: {called} is left with what it holds, and nobody will remove it"
        )
    }

    /// What the backend did not remove, of attempts up to this one.
    pub(crate) fn not_removed(&self, run: RunId, attempts: u32, has_run: bool) -> String {
        let called: Vec<_> = (1..=attempts.max(1))
            .map(|attempt| self.called(run, attempt))
            .collect();
        let called = called.join(", ");
        if has_run {
            format!(
                "the run has ended, and what there may be of it could not be removed: look for {called}; nobody will remove it"
            )
        } else {
            format!(
                "the run never began, and whether something was made for it could not be found out; that would be {called}, and nobody will remove it"
            )
        }
    }
}

/// Follows a run of a runner in this process to its end. The first signal stops the run.
pub(crate) async fn local(
    runner: &Runner,
    run: &Handle,
    spec: &RunSpec,
    place: &Place,
    output: Output,
    interrupt: &Interrupt,
) -> Result<Status, Failure> {
    let attempt = AtomicU32::new(1);
    let waiting = Waiting::default();
    let reading = Reading::default();
    let log = print_log(runner, run, output, &reading);
    tokio::pin!(log);
    let mut log_done = None;
    let status = {
        let seen = |status: &Status| {
            attempt.store(status.attempt, Ordering::Relaxed);
            waiting.saw(status);
            interrupt.would_leave(Some(place.left(spec.run, status.attempt)));
        };
        interrupt.would_leave(Some(place.left(spec.run, 1)));
        let end = watch_to_end(runner, run, output, seen);
        let stop = async {
            interrupt.raised().await;
            output.note("stopping the run; a second Ctrl-C leaves it");
            if let Err(error) = runner.stop(run, spec.limits.grace.get()).await {
                output.error(&format!("failed to stop the run: {}", error.report()));
            }
            let why = silence(runner, &place.section).await;
            let left = place.may_go_on(spec.run, attempt.load(Ordering::Relaxed));
            Failure::new(
                interrupt.exit().unwrap_or(Exit::Unreachable),
                format!(
                    "the backend does not answer, so the run could not be stopped: {left}: {why}"
                ),
            )
        };
        let stuck = async {
            let why = waiting.for_too_long(&spec.limits).await;
            let left = place.may_go_on(spec.run, attempt.load(Ordering::Relaxed));
            Failure::new(
                Exit::Unreachable,
                format!(
                    "the run did not begin within its `start_timeout`, and could not be stopped: {left}: {why}"
                ),
            )
        };
        tokio::pin!(end, stop, stuck);
        loop {
            tokio::select! {
                status = &mut end => break status?,
                done = &mut log, if log_done.is_none() => log_done = Some(done),
                failure = &mut stop => return Err(failure),
                failure = &mut stuck => return Err(failure),
            }
        }
    };
    reading.has_ended.store(true, Ordering::Relaxed);
    interrupt.would_leave(Some(place.left_ended(spec.run, status.attempt)));
    let done = match log_done {
        Some(done) => done,
        None => loop {
            tokio::select! {
                done = &mut log => break done,
                pause = timeout(LOG_AFTER_END, reading.moved.notified()) => if pause.is_err() {
                    break Err(Unread::Silent(reading.trouble()));
                },
            }
        },
    };
    match done {
        Ok(()) => Ok(status),
        Err(Unread::Unprinted(failure)) => Err(failure),
        Err(unread) => Err(unfinished(
            &status,
            &unread,
            &place.called(spec.run, status.attempt),
        )),
    }
}

/// Waits until an executor has not answered for a while; its last words.
async fn silence(runner: &Runner, section: &SectionName) -> String {
    let mut since = None;
    loop {
        match runner.snapshot().executors.remove(section).flatten() {
            None => since = None,
            Some(why) if since.get_or_insert_with(Instant::now).elapsed() >= SILENCE => return why,
            Some(_) => {}
        }
        sleep(AGAIN).await;
    }
}

/// How long an attempt has been waiting to begin.
#[derive(Default)]
struct Waiting(Mutex<Option<Wait>>);

struct Wait {
    attempt: u32,
    since: Instant,
    /// What was said of it last.
    why: String,
}

impl Waiting {
    fn saw(&self, status: &Status) {
        let mut wait = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = wait.take().filter(|wait| wait.attempt == status.attempt);
        if status.state == State::Starting {
            *wait = Some(Wait {
                attempt: status.attempt,
                since: before.map_or_else(Instant::now, |wait| wait.since),
                why: status.message.clone().unwrap_or_default(),
            });
        }
    }

    /// Waits until one has for longer than it may, and than a stop takes; what was said of it last.
    async fn for_too_long(&self, limits: &Limits) -> String {
        let Some(limit) = limits.start_timeout.limit() else {
            return std::future::pending().await;
        };
        let limit = limit
            .saturating_add(limits.grace.get())
            .saturating_add(STUCK);
        loop {
            {
                let wait = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(wait) = wait.as_ref().filter(|wait| wait.since.elapsed() >= limit) {
                    return wait.why.clone();
                }
            }
            sleep(AGAIN).await;
        }
    }
}

/// What is known of a log that is being printed.
#[derive(Default)]
struct Reading {
    /// Hears of all that comes.
    moved: Notify,
    /// The run has.
    has_ended: AtomicBool,
    /// Why nothing came the last time.
    trouble: Mutex<Option<String>>,
}

impl Reading {
    fn came(&self) {
        self.moved.notify_one();
        *self.held() = None;
    }

    fn trouble(&self) -> Option<String> {
        self.held().clone()
    }

    fn held(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a log was not printed to its end.
enum Unread {
    /// Nothing came for long; the last trouble with it.
    Silent(Option<String>),
    /// It cannot be had.
    Refused(Error),
    /// Nobody takes what we print.
    Unprinted(Failure),
}

/// What the backend still has is not thrown away.
fn unfinished(status: &Status, unread: &Unread, called: &str) -> Failure {
    let why = match unread {
        Unread::Refused(error) => error.report(),
        Unread::Silent(trouble) => {
            let trouble = trouble.as_ref().map(|trouble| format!(": {trouble}"));
            format!(
                "nothing came for {} s{}",
                LOG_AFTER_END.as_secs(),
                trouble.unwrap_or_default()
            )
        }
        Unread::Unprinted(_) => "it could not be printed".to_owned(),
    };
    Failure::new(
        Exit::Unreachable,
        format!(
            "the run has ended ({}), and its log did not come to an end: {why}. {called} is left with what it holds, \
             and nobody will remove it",
            in_words(status)
        ),
    )
}

/// Prints the log to its end. While the run goes on, a refusal may pass, too.
async fn print_log(
    executor: &dyn Executor,
    run: &Handle,
    output: Output,
    reading: &Reading,
) -> Result<(), Unread> {
    let mut cursor = None;
    let mut told = false;
    loop {
        // Before it is asked: a refusal of before the end is no last word.
        let is_last = reading.has_ended.load(Ordering::Relaxed);
        let mut chunks = executor.logs(run, cursor.clone());
        let mut broken = None;
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => {
                    reading.came();
                    output
                        .chunk(&chunk)
                        .map_err(|error| Unread::Unprinted(error.into()))?;
                    cursor = Some(chunk.next);
                }
                Err(error) => broken = Some(error),
            }
        }
        match broken {
            None => return Ok(()),
            Some(error) if error.is_transient() => *reading.held() = Some(error.report()),
            Some(error) if is_last => return Err(Unread::Refused(error)),
            Some(error) => {
                if !std::mem::replace(&mut told, true) {
                    output.note(format!("the log cannot be read: {}", error.report()));
                }
            }
        }
        sleep(AGAIN).await;
    }
}

async fn watch_to_end(
    executor: &dyn Executor,
    run: &Handle,
    output: Output,
    seen: impl Fn(&Status),
) -> Result<Status, Failure> {
    let mut shown = String::new();
    loop {
        let mut levels = executor.watch(run);
        while let Some(level) = levels.next().await {
            match level {
                Ok(status) if status.is_finished() => return Ok(status),
                Ok(status) => {
                    seen(&status);
                    let text = in_words(&status);
                    if text != shown {
                        output.note(&text);
                        shown = text;
                    }
                }
                Err(error) if error.is_transient() => break,
                Err(error) => return Err(error.into()),
            }
        }
        sleep(AGAIN).await;
    }
}

/// A state in one line.
pub(crate) fn in_words(status: &Status) -> String {
    let state = status.state.name();
    let attempt = match status.attempt {
        0 | 1 => String::new(),
        n => format!(" (attempt {n})"),
    };
    let message = status
        .message
        .as_ref()
        .map_or_else(String::new, |message| format!(": {message}"));
    format!("{state}{attempt}{message}")
}

/// The run in the shape in which the control plane's API shows runs.
pub(crate) fn as_run(spec: &RunSpec, status: &Status) -> Run {
    let (mut failure, mut stopped_by, mut why) = (None, None, None);
    match status.outcome() {
        Some(Outcome::Failed(failed)) => failure = Some(failed),
        Some(Outcome::Stopped { by }) => stopped_by = by.as_ref(),
        Some(Outcome::Lost { why: known }) => why = Some(known),
        _ => {}
    }
    let mut raw = json!({
        "id": spec.run,
        "name": spec.name,
        "runner": spec.runner,
        "executor": spec.executor,
        "state": status.state.name(),
        "attempt": status.attempt,
        "message": status.message,
        "times": status.times,
        "failure": failure,
        "stopped_by": stopped_by,
        "why": why,
    });
    if let Some(members) = raw.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    Run {
        id: spec.run.to_string(),
        name: spec.name.to_string(),
        raw,
    }
}
