//! Four commands of yours: `start`, `status`, `logs`, `stop`. Enough to wrap a batch system in an afternoon.
//!
//! Each gets a JSON object on stdin and prints one on stdout; `docs/plugins.md` shows them. What a backend gives is its own
//! id; the way from our names to its ids is kept in `claims`, so that no run is started twice.
//!
//! | file | holds |
//! |---|---|
//! | [`settings`] | the section `[executors.NAME]` |
//! | `script` | one command: its arguments, its surroundings, its time |
//! | `answers` | what the commands print |
//! | `logs` | output, read again and again from where it was left |

mod answers;
mod logs;
mod script;
pub mod settings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::executor::{
    Capabilities, Executor, Handle, LogKeeping, Progress, findings,
};
use hybrid_runner_core::finding::Finding;
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::plugin::host::{Starts, Submitted, Trace, Values, Way, caution};
use hybrid_runner_core::program::outlet::{self, Holders, Outlet};
use hybrid_runner_core::run::{
    CONFIG_PLACE, Failure, FailureClass, Outcome, RunSpec, State, Status, Told, render,
};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{LogChunk, LogCursor, RunId, poll, program};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::claims::{Backend, Claims};
use answers::{Found, Started};
use script::{Scripts, Step};
use settings::Commands;

/// The executor's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn Executor> = Kind {
    name: "command",
    summary: "four commands of yours: start, status, logs, stop",
    build: |context| {
        let backend = Command::new(context)?;
        Ok(Arc::new(Claims::new(
            backend,
            &context.data_dir,
            &context.owner,
        )))
    },
    schema: || schemars::schema_for!(Commands),
};

/// A backend behind commands. Cheap to clone.
#[derive(Debug, Clone)]
struct Command(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Commands,
    scripts: Scripts,
    values: Values,
    trace: Option<Trace>,
    /// When a run was first seen running, and whether it ran out of time.
    times: PathBuf,
    starts: Starts,
    /// The pipes of those.
    pipes: PathBuf,
}

/// What is kept of a run in its handle.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    /// The backend's own name of it.
    id: String,
    timeout: Period,
    grace: Period,
}

/// What is kept of a run's time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Clock {
    since: Timestamp,
    #[serde(default)]
    over: bool,
}

impl Command {
    fn new(context: &Context) -> Result<Self> {
        let settings: Commands = crate::settings::read(context)?;
        let scripts = Scripts::new(&settings, context)?;
        Ok(Self(Arc::new(Shared {
            settings,
            scripts,
            values: Values::of(&context.data_dir, context.references.clone()),
            trace: context.trace.clone(),
            times: context.data_dir.join("times"),
            starts: Starts::default(),
            pipes: context.data_dir.join("starts"),
        })))
    }

    /// Runs a command; what it is told and what it answers is shown without values, if anybody looks.
    async fn ask(&self, name: &str, step: &Step, request: &Value) -> Result<Vec<u8>> {
        self.show(name, Way::Sent, &request.to_string());
        let answer = self.0.scripts.run(name, step, request).await;
        match &answer {
            // Output may hold a value in two pieces.
            Ok(printed) if name == "logs" => {
                self.show(name, Way::Received, &format!("({} bytes)", printed.len()));
            }
            answer => self.show_answer(name, answer),
        }
        answer
    }

    async fn ask_to_start(&self, spec: &RunSpec, request: &Value) -> Result<Vec<u8>> {
        let mut told = request.clone();
        told["work"] = "***".into();
        self.show("start", Way::Sent, &told.to_string());
        let step = Step::new(spec.run).name(spec.name.as_str());
        let outlet = match Outlet::make(&self.pipe(spec.run)) {
            Err(error) if self.0.settings.find.is_some() => {
                let what = "the data directory is full, or has no named pipes, by which a `start` is seen that outlives the runner: make room, put `data_dir` on another file system, or leave out `find`";
                return Err(Error::unavailable(what).with_source(error));
            }
            // Nobody asks who is still at work where nothing can be found.
            outlet => outlet.ok(),
        };
        let (scripts, starts) = (&self.0.scripts, &self.0.starts);
        let answer = scripts.start(&step, request, outlet, starts).await;
        self.show_answer("start", &answer);
        answer
    }

    fn show_answer(&self, name: &str, answer: &Result<Vec<u8>>) {
        match answer {
            Ok(printed) => self.show(name, Way::Received, &String::from_utf8_lossy(printed)),
            Err(error) => {
                let told = format!("({}: {})", error.kind(), error.report());
                self.show(name, Way::Received, &told);
            }
        }
    }

    fn show(&self, name: &str, way: Way, text: &str) {
        if let Some(trace) = &self.0.trace {
            let text = self.0.values.text(text);
            trace.tell(way, format!("{name} {}", cut(&text)));
        }
    }

    fn place(run: &Handle) -> Result<Place> {
        Place::deserialize(&run.state).map_err(|error| {
            Error::internal(format!("the handle of `{}` is not ours", run.run)).with_source(error)
        })
    }

    /// Refuses what the backend cannot honour; else all that `start` is told.
    fn request(&self, spec: &RunSpec, secrets: &Secrets) -> Result<Value> {
        spec.validate()?;
        let can = &self.0.settings;
        let unsupported = |what: &str| {
            Error::unsupported(format!(
                "the commands of this executor cannot honour {what}"
            ))
        };
        if !spec.resources.limits.is_empty() && !can.resources {
            return Err(unsupported("`resources.limits`"));
        }
        if spec.limits.stall_timeout.limit().is_some() && !can.limits {
            return Err(unsupported("`stall_timeout`"));
        }
        let work = render(spec, secrets, CONFIG_PLACE)?;
        Ok(json!({
            "run": spec.run,
            "name": spec.name,
            "image": spec.image,
            "workdir": spec.workdir,
            "limits": spec.limits,
            "resources": spec.resources,
            "labels": spec.labels,
            "settings": can.settings,
            "work": work.to_job()?,
        }))
    }

    async fn status(&self, run: &Handle) -> Result<Status> {
        let place = Self::place(run)?;
        let request =
            json!({ "run": run.run, "id": place.id, "settings": self.0.settings.settings });
        let step = Step::new(run.run).id(&place.id);
        let answer = self.ask("status", &step, &request).await;
        let told: Told = match answer {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let why = format!(
                    "the backend does not know the run any more: {}",
                    error.report()
                );
                let lost = State::Finished(Outcome::lost(why));
                let level = Status::new(run.run.attempt_number().max(1), lost);
                return Ok(self.0.values.status(run.run, level));
            }
            answer => program::read("status", &answer?)?,
        };
        let mut status = told.status(run.run)?;
        status.state = self.keep_time(run, &place, status.state).await?;
        Ok(self.0.values.status(run.run, status))
    }

    /// Ends a run that is over its time, unless the backend itself does.
    async fn keep_time(&self, run: &Handle, place: &Place, state: State) -> Result<State> {
        let Some(limit) = place.timeout.limit().filter(|_| !self.0.settings.limits) else {
            return Ok(state);
        };
        let clock = self.clock(run.run).await?;
        match (&state, clock) {
            (State::Running, None) => {
                let since = Timestamp::now();
                self.set_clock(run.run, Clock { since, over: false })
                    .await?;
            }
            (State::Running, Some(clock)) if !clock.over => {
                let ran = Timestamp::now().duration_since(clock.since);
                if Duration::try_from(ran).unwrap_or_default() >= limit {
                    // Noted first: who stops it must be known when it has ended.
                    self.set_clock(
                        run.run,
                        Clock {
                            over: true,
                            ..clock
                        },
                    )
                    .await?;
                    Backend::stop(self, run, place.grace.get()).await?;
                }
            }
            (State::Finished(_), Some(Clock { over: true, .. })) => {
                let failure = Failure::new(
                    FailureClass::Timeout,
                    format!("ran longer than {}", place.timeout),
                );
                return Ok(State::Finished(Outcome::Failed(failure)));
            }
            _ => {}
        }
        Ok(state)
    }

    async fn clock(&self, run: RunId) -> Result<Option<Clock>> {
        let path = self.0.times.join(run.to_string());
        match tokio::fs::read(&path).await {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(in_file(&path, error)),
        }
    }

    async fn set_clock(&self, run: RunId, clock: Clock) -> Result<()> {
        let path = self.0.times.join(run.to_string());
        let fresh = path.with_extension("new");
        let text = serde_json::to_vec(&clock)
            .map_err(|error| Error::internal("failed to write a time").with_source(error))?;
        let written = async {
            tokio::fs::create_dir_all(&self.0.times).await?;
            tokio::fs::write(&fresh, text).await?;
            tokio::fs::rename(&fresh, &path).await
        };
        written.await.map_err(|error| in_file(&path, error))
    }
}

/// What is shown of an answer, at most.
const SHOWN: usize = 4096;

fn cut(text: &str) -> &str {
    text[..text.floor_char_boundary(SHOWN)].trim_end()
}

fn in_file(path: &std::path::Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("failed to use `{}`", path.display())).with_source(error)
}

#[async_trait]
impl Backend for Command {
    async fn capabilities(&self) -> Result<Capabilities> {
        let settings = &self.0.settings;
        let mut can = Capabilities::least();
        can.logs = if settings.volatile_logs {
            LogKeeping::Volatile
        } else {
            LogKeeping::UntilRemoved
        };
        can.named_start = settings.named_start;
        can.find = settings.find.is_some();
        can.images = settings.images;
        can.resources = settings.resources;
        can.masks = settings.masks;
        let missing = [
            ("logs", settings.logs.is_none()),
            ("stop", settings.stop.is_none()),
            ("stall_timeout", !settings.limits),
        ];
        can.missing = missing
            .into_iter()
            .filter(|(_, missing)| *missing)
            .map(|(part, _)| part.to_owned())
            .collect();
        let caution = caution(&can);
        can.notes.extend(caution.map(str::to_owned));
        Ok(can)
    }

    async fn check(&self) -> Result<()> {
        self.0.scripts.check()?;
        if self.0.settings.check.is_none() {
            return Ok(());
        }
        let request = json!({ "settings": self.0.settings.settings });
        let step = Step::new(RunId::generate());
        let answer = self.ask("check", &step, &request).await;
        answer.map(drop).map_err(|error| self.0.values.error(error))
    }

    async fn examine(&self) -> Vec<Finding> {
        findings(self.check().await, self.capabilities().await)
    }

    async fn submit(&self, spec: &RunSpec, secrets: &Secrets, _: &Progress) -> Submitted {
        let request = match self.request(spec, secrets) {
            Ok(request) => request,
            Err(error) => return Submitted::Refused(error),
        };
        let given = self.0.values.give(spec.run, secrets, self.0.settings.masks);
        if let Err(error) = given.await {
            return Submitted::Refused(error);
        }
        let answer = self.ask_to_start(spec, &request).await;
        let started = answer.and_then(|answer| program::read::<Started>("start", &answer));
        match started {
            Ok(started) => Submitted::Done(Self::handle(spec, &started.id.text())),
            Err(error) => {
                let is_unclear = match error.kind() {
                    ErrorKind::Internal => true,
                    // Of a script: something of the run is there that is not known here.
                    ErrorKind::Conflict if !self.is_withdrawn(spec.run) => true,
                    // What it has started may be about to do what it says was not done.
                    _ => !matches!(self.holders(spec.run).await, Ok(None)),
                };
                let error = self.0.values.error(error);
                if is_unclear {
                    Submitted::Unclear(error)
                } else {
                    Submitted::Refused(error)
                }
            }
        }
    }

    async fn find(&self, spec: &RunSpec) -> Result<Option<Handle>> {
        let request =
            json!({ "run": spec.run, "name": spec.name, "settings": self.0.settings.settings });
        let step = Step::new(spec.run).name(spec.name.as_str());
        let answer = self.ask("find", &step, &request).await;
        let found = answer.and_then(|answer| program::read::<Found>("find", &answer));
        let found = found.map_err(|error| self.0.values.error(error))?;
        // Before anybody asks whether a value stands in it.
        if found.id.is_some() {
            self.0.values.recall_soon(spec.run).await;
        }
        Ok(found.id.map(|id| Self::handle(spec, &id.text())))
    }

    async fn at_work(&self, run: RunId) -> Result<Option<String>> {
        let held = self.holders(run).await?;
        let words = |who: &str| {
            format!(
                "the `start` command of before is still at work, and its end is waited for: {who}"
            )
        };
        Ok(match held {
            Some(held) => Some(words(&held.to_string())),
            None if self.0.starts.is_under_way(run) => Some(words("its answer is being read")),
            None => None,
        })
    }

    fn withdraw(&self, run: RunId) {
        self.0.scripts.withdraw(run);
    }

    fn is_withdrawn(&self, run: RunId) -> bool {
        self.0.scripts.is_withdrawn(run)
    }

    async fn end_start(&self, run: RunId) {
        match self.holders(run).await {
            Ok(held) => drop(held.as_ref().map(Holders::kill)),
            Err(error) => {
                tracing::warn!(%run, error = error.report(), "a start that was stopped cannot be ended");
            }
        }
    }

    fn may_be_written(&self, handle: &Handle) -> bool {
        self.0.values.may_be_written(handle)
    }

    async fn forget(&self, run: RunId) {
        self.0.scripts.forget(run);
        self.0.values.withdraw(run).await;
        self.forget_start(run);
    }

    async fn close(&self) {
        self.0.starts.ended().await;
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let (this, run) = (self.clone(), run.clone());
        let levels = async move {
            if !this.0.settings.masks {
                this.0.values.recall_soon(run.run).await;
            }
            poll::watch(this.0.settings.interval.get(), move || {
                let (this, run) = (this.clone(), run.clone());
                async move {
                    let status = this.status(&run).await;
                    status.map_err(|error| this.0.values.error(error))
                }
            })
        };
        levels.flatten_stream().boxed()
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        if self.0.settings.logs.is_none() {
            return poll::no_logs(Backend::watch(self, run));
        }
        let (this, run) = (self.clone(), run.clone());
        let masks = this.0.settings.masks;
        let (watched, watched_run) = (this.clone(), run.clone());
        let watch = move || Backend::watch(&watched, &watched_run);
        let (values, id) = (this.0.values.clone(), run.run);
        let open = move |from| logs::follow(this, run.clone(), from);
        values.log(id, masks, from, open, watch)
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        if self.0.settings.stop.is_none() {
            return Err(Error::unsupported(
                "no `stop` command is configured for this executor",
            ));
        }
        let place = Self::place(run)?;
        let grace = Period::from(grace);
        let seconds = grace.get().as_secs_f64();
        let request = json!({ "run": run.run, "id": place.id, "grace_seconds": seconds, "settings": self.0.settings.settings });
        let step = Step::new(run.run).id(&place.id).grace(grace.get());
        match self.ask("stop", &step, &request).await {
            // What is gone needs no stop; its status tells.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            answer => answer.map(drop).map_err(|error| self.0.values.error(error)),
        }
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        let place = Self::place(run)?;
        if self.0.settings.remove.is_some() {
            let request =
                json!({ "run": run.run, "id": place.id, "settings": self.0.settings.settings });
            let step = Step::new(run.run).id(&place.id);
            match self.ask("remove", &step, &request).await {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.0.values.error(error));
                }
                _ => {}
            }
        }
        Backend::forget(self, run.run).await;
        let clock = self.0.times.join(run.run.to_string());
        match tokio::fs::remove_file(&clock).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(in_file(&clock, error))
            }
            _ => Ok(()),
        }
    }
}

impl Command {
    fn pipe(&self, run: RunId) -> PathBuf {
        self.0.pipes.join(run.to_string())
    }

    /// Who is at work on the start of a run.
    async fn holders(&self, run: RunId) -> Result<Option<Holders>> {
        let pipe = self.pipe(run);
        let held = outlet::after_a_moment(|| outlet::holders(&pipe)).await;
        held.map_err(|error| in_file(&pipe, error))
    }

    /// What a run's `start` may have left: a program that does not end, in spite of all.
    fn forget_start(&self, run: RunId) {
        let path = self.pipe(run);
        if let Err(error) = outlet::remove(&path) {
            tracing::debug!(path = %path.display(), %error, "a pipe that nobody needs is left");
        }
    }

    fn handle(spec: &RunSpec, id: &str) -> Handle {
        let state = json!({ "id": id, "timeout": spec.limits.timeout, "grace": spec.limits.grace });
        Handle::with_state(spec.run, 1, state)
    }
}
