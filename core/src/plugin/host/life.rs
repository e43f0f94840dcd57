//! One process from its start to its end.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::either::Either;

use super::launch::Launch;
use super::masking::Masking;
use super::stderr::{self, LastWords};
use super::trace::{Heard, Traced};
use serde::Deserialize as _;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::executor::Capabilities;
use crate::plugin::hello::PluginWelcome;
use crate::plugin::lines::Lines;
use crate::program::outlet;
use crate::session::hello::negotiate;
use crate::session::{Closed, Driver, NoService, Options, Session};

/// How long a process may take to end once its stdin is closed.
const LEAVE: Duration = Duration::from_secs(2);
/// How long the rest of what an ended process wrote may take to be read.
const REST: Duration = Duration::from_secs(1);
/// What all streams of a plugin together may have under way.
const CREDIT: usize = 8 << 20;
/// How often the program is looked at: a newer one takes over.
const LOOK: Duration = Duration::from_secs(1);

/// A process that answered `hello`. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) session: Session,
    pub(super) welcome: Arc<PluginWelcome>,
    pub(super) process: Option<u32>,
    /// Calls under way that must not be broken off.
    pub(super) busy: Arc<AtomicUsize>,
    /// Shows that it, or a child of it, is still there.
    pub(super) outlet: Option<PathBuf>,
    replaced: Arc<AtomicBool>,
    ended: watch::Receiver<Option<String>>,
    born: Instant,
    program: Arc<Program>,
}

/// The files of a program, as they were when it was started.
#[derive(Debug)]
struct Program {
    files: Vec<(PathBuf, Option<Stamp>)>,
    looked: std::sync::Mutex<Instant>,
}

type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &PathBuf) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
    ))
}

impl Life {
    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Whether the program was replaced since, and nothing under way forbids to end this process.
    pub(super) fn is_outdated(&self) -> bool {
        let due = {
            let mut looked = match self.program.looked.lock() {
                Ok(looked) => looked,
                Err(poisoned) => poisoned.into_inner(),
            };
            let due = looked.elapsed() > LOOK;
            if due {
                *looked = Instant::now();
            }
            due
        };
        let changed = |(path, then): &(PathBuf, Option<Stamp>)| {
            // One that is away just now is being replaced.
            stamp(path).is_some_and(|now| Some(now) != *then)
        };
        due && self.busy.load(Ordering::Acquire) == 0 && self.program.files.iter().any(changed)
    }

    /// Ends it, because a newer program takes over.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
        self.session.close();
    }

    pub(super) fn was_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Why it ended, once it has.
    pub(super) async fn obituary(&self) -> String {
        obituary_of(&self.ended).await
    }
}

/// A process that did not say `hello` yet; it is ended if this is dropped.
pub(super) struct Begun {
    session: CloseOnDrop,
    process: Option<u32>,
    ended: watch::Receiver<Option<String>>,
    heard: Heard,
    outlet: Option<PathBuf>,
    program: Program,
}

struct CloseOnDrop(Option<Session>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.close();
        }
    }
}

/// Starts the program, and a task that attends to it.
pub(super) fn spawn(
    launch: &Launch,
    masking: &Arc<Masking>,
    attendants: &mut JoinSet<()>,
) -> Result<Begun> {
    let files = launch.files().into_iter();
    let files = files.map(|path| (path.clone(), stamp(&path))).collect();
    let (mut child, placed) = launch.spawn()?;
    let missing = || Error::internal("a pipe to the plugin is missing");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let (stdout, outlet) = match placed {
        Some(placed) => (Either::Left(placed.stdout), Some(placed.path)),
        None => (
            Either::Right(child.stdout.take().ok_or_else(missing)?),
            None,
        ),
    };
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let trace = launch.trace.clone();
    let heard = Heard::default();
    let lines = Lines::new(stdout, stdin);
    let transport = Traced::new(lines, trace.clone(), heard.clone(), masking);
    let options = Options {
        heartbeat: Some(launch.timeouts.heartbeat.get()),
        credit: CREDIT,
        ..Options::default()
    };
    let (session, driver) = Session::start(transport, Arc::new(NoService), options);
    let (told, ended) = watch::channel(None);
    let process = child.id();
    tracing::debug!(plugin = launch.name(), process, "plugin started");
    let last_words = LastWords::default();
    let errors = stderr::read(
        stderr,
        launch.name().to_owned(),
        Arc::clone(masking),
        trace,
        last_words.clone(),
    );
    let name = launch.name().to_owned();
    let left = outlet.clone();
    attendants.spawn(async move {
        let mut errors = JoinSet::from_iter([errors]);
        let why = attend(child, driver).await;
        // A child of it may have it still; then a later look puts it away.
        drop(left.as_deref().map(outlet::holders));
        // Whoever inherited the pipe may hold it for ever.
        let _read = timeout(REST, errors.join_next()).await;
        let words = last_words.joined();
        let why = if words.is_empty() {
            why
        } else {
            format!("{why}; its last words: {words}")
        };
        tracing::info!(plugin = name, process, why, "plugin ended");
        told.send_replace(Some(why));
    });
    Ok(Begun {
        session: CloseOnDrop(Some(session)),
        process,
        ended,
        heard,
        outlet,
        program: Program {
            files,
            looked: std::sync::Mutex::new(Instant::now()),
        },
    })
}

/// Drives the session until it or the process ends; then the other ends too. Says why.
async fn attend(mut child: Child, mut driver: Driver) -> String {
    let closed = tokio::select! {
        closed = &mut driver => closed,
        status = child.wait() => {
            // Its last answers may still be in the pipe.
            let _read = timeout(REST, driver).await;
            return ended(status);
        }
    };
    drop(driver);
    // A pipe breaks because its other end is ending, most often: how it ends is the better answer.
    let patience = match closed {
        Closed::Here | Closed::There => LEAVE,
        Closed::Transport(_) => REST,
        _ => Duration::ZERO,
    };
    if let Ok(status) = timeout(patience, child.wait()).await {
        return match closed {
            Closed::Here | Closed::There => ended(status),
            why => format!("{}; {why}", ended(status)),
        };
    }
    let why = closed;
    if let Err(error) = child.kill().await {
        return format!("it could not be killed ({error}), because {why}");
    }
    format!("it was killed, because {why}")
}

fn ended(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("it ended ({status})"),
        Err(error) => format!("it cannot be waited for ({error})"),
    }
}

impl Begun {
    /// The first exchange.
    pub(super) async fn greet(mut self, launch: &Launch, masking: &Masking) -> Result<Life> {
        let program = launch.shown();
        let failed = |error: Error| {
            Error::new(
                error.kind(),
                format!("the plugin `{program}` cannot be used"),
            )
            .with_source(error)
        };
        let session = self.session.0.clone();
        let session = session.ok_or_else(|| Error::internal("a session is missing"))?;
        let limit = launch.timeouts.hello.get();
        let answer = timeout(limit, session.call::<_, Value>("hello", &launch.hello)).await;
        let complaint = self.heard.complaint();
        let unanswered = |what: String| match &complaint {
            Some(complaint) => Error::unavailable(format!("{what}; {complaint}")),
            None => Error::unavailable(what),
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if session.is_closed() => {
                let why = obituary_of(&self.ended).await;
                let what = format!("no answer to `hello`: {why}");
                return Err(failed(unanswered(what).with_source(error)));
            }
            Ok(Err(_)) if complaint.is_some() => {
                return Err(failed(unanswered("no answer to `hello`".to_owned())));
            }
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => {
                let what = format!("no answer to `hello` within {limit:?}");
                return Err(failed(unanswered(what)));
            }
        };
        // Another version may have another form.
        if let Some(version) = answer.get("version").and_then(Value::as_str) {
            negotiate(&[version.to_owned()]).map_err(|error| {
                let advice = "use a newer hybrid-runner, or a plugin that speaks one of the `versions` in its `hello`";
                failed(Error::new(error.kind(), format!("{}; {advice}", error.message())))
            })?;
        }
        let mut welcome = welcome(&answer).map_err(failed)?;
        welcome.software = masking.text(&welcome.software);
        self.session.0 = None;
        tracing::info!(plugin = launch.name(), process = self.process, software = %crate::id::shorten(&welcome.software), "plugin is ready");
        Ok(Life {
            session,
            welcome: Arc::new(welcome),
            process: self.process,
            busy: Arc::default(),
            outlet: self.outlet,
            replaced: Arc::default(),
            ended: self.ended.clone(),
            born: Instant::now(),
            program: Arc::new(Program {
                files: std::mem::take(&mut self.program.files),
                looked: std::sync::Mutex::new(Instant::now()),
            }),
        })
    }
}

/// Reads the answer to `hello`; an error names the member.
fn welcome(answer: &Value) -> Result<PluginWelcome> {
    PluginWelcome::deserialize(answer).map_err(|error| {
        let place = wrong_capability(answer).map_or_else(String::new, |key| format!(" at `{key}`"));
        let what = format!("the answer to `hello` is not of its form{place}");
        Error::internal(what).with_source(error)
    })
}

/// Which capability is not as it should be; serde does not name the member of a wrong value.
fn wrong_capability(answer: &Value) -> Option<String> {
    let told = answer.get("capabilities")?;
    let error = Capabilities::deserialize(told).err()?.to_string();
    let members = told.as_object().into_iter().flatten();
    for (key, _) in members {
        let mut without = told.clone();
        without.as_object_mut()?.remove(key);
        if Capabilities::deserialize(&without)
            .map_or_else(|other| other.to_string() != error, |_| true)
        {
            return Some(format!("capabilities.{key}"));
        }
    }
    Some("capabilities".to_owned())
}

async fn obituary_of(ended: &watch::Receiver<Option<String>>) -> String {
    let mut ended = ended.clone();
    let told = timeout(LEAVE + REST, ended.wait_for(Option::is_some)).await;
    match told {
        Ok(Ok(why)) => why.clone().unwrap_or_default(),
        _ => "its end is not known yet".to_owned(),
    }
}
