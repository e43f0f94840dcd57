//! The executor contract through a plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::timeout;

use super::life::Life;
use super::renewed::{Opened, renewed};
use super::starts::Starts;
use super::{Host, Values, caution};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Capabilities, Executor, Handle, Progress, findings};
use crate::finding::Finding;
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor};
use crate::poll::no_logs;
use crate::run::{RunSpec, Status};
use crate::secret::Secrets;
use crate::session::RemoteExecutor;

/// How often a request is made whose process ends under it.
const ATTEMPTS: u32 = 3;

/// An executor that a plugin serves.
#[derive(Debug, Clone)]
pub struct PluginExecutor {
    host: Host,
    values: Values,
    starts: Starts,
}

/// What became of a start at a backend with names of its own.
#[derive(Debug)]
#[non_exhaustive]
pub enum Submitted {
    /// The backend has it, under this handle.
    Done(Handle),
    /// The plugin said that nothing was made.
    Refused(Error),
    /// Nobody knows: the plugin ended, was silent, or met something unexpected.
    Unclear(Error),
}

/// What came of one question.
enum Answer<T> {
    Given(T),
    Refused(Error),
    /// The process ended, or time was over.
    None(Error),
}

impl PluginExecutor {
    /// The executor behind this plugin.
    pub fn new(host: Host) -> Self {
        let values = host.values();
        Self {
            host,
            values,
            starts: Starts::default(),
        }
    }

    /// The plugin itself.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Asks once.
    async fn ask<T>(
        &self,
        life: &Life,
        method: &str,
        limit: Duration,
        question: &(dyn Fn(RemoteExecutor) -> BoxFuture<'static, Result<T>> + Sync),
    ) -> Answer<T> {
        let remote = RemoteExecutor::with_secrets(life.session.clone());
        match timeout(limit, question(remote)).await {
            Ok(Ok(answer)) => Answer::Given(answer),
            Ok(Err(_)) if life.session.is_closed() => Answer::None(self.gone(life, method).await),
            Ok(Err(error)) => Answer::Refused(self.values.error(error)),
            Err(_) => Answer::None(Error::unavailable(format!(
                "the plugin did not answer `{method}` within {limit:?}"
            ))),
        }
    }

    async fn gone(&self, life: &Life, method: &str) -> Error {
        let why = life.obituary().await;
        let program = self.host.launch().shown();
        let what = format!("the plugin `{program}` ended while it was asked to `{method}`");
        Error::unavailable(what).with_source(why)
    }

    /// Asks, and asks the next process if this one ends meanwhile: for what may be asked twice.
    async fn ask_again<T>(
        &self,
        method: &str,
        limit: Duration,
        question: impl Fn(RemoteExecutor) -> BoxFuture<'static, Result<T>> + Sync,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            let life = self.host.life().await?;
            match self.ask(&life, method, limit, &question).await {
                Answer::Given(answer) => return Ok(answer),
                Answer::Refused(error) => return Err(error),
                Answer::None(error) => {
                    if attempt == ATTEMPTS || !life.session.is_closed() {
                        return Err(error);
                    }
                }
            }
            attempt += 1;
        }
    }

    /// Starts at a backend with names of its own: asked once, never again.
    ///
    /// # Cancel safety
    ///
    /// None: dropped midway it is unclear whether the backend has the run.
    pub async fn submit(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Submitted {
        let life = match self.host.life().await {
            Ok(life) => life,
            Err(error) => return Submitted::Refused(error),
        };
        if let Err(error) = self.values.give(spec.run, secrets, masks(&life)).await {
            return Submitted::Refused(error);
        }
        let limit = self.host.timeouts().start.get();
        let start = start(spec, secrets, &self.masked(progress));
        let (run, busy) = (spec.run, &life.busy);
        let question = |remote| {
            let (busy, answer) = (Busy::new(busy), start(remote));
            self.starts.to_its_end(
                run,
                answer.map(move |answer| {
                    drop(busy);
                    answer
                }),
            )
        };
        match self.ask(&life, "start", limit, &question).await {
            Answer::Given(handle) => Submitted::Done(handle),
            Answer::Refused(error) if error.kind() == ErrorKind::Internal => {
                Submitted::Unclear(error)
            }
            Answer::Refused(error) => Submitted::Refused(error),
            Answer::None(error) => Submitted::Unclear(error),
        }
    }

    /// Whether a start of the run may still be under way, in words where: in the process that runs now, or in one of before.
    ///
    /// # Errors
    ///
    /// It cannot be told.
    pub async fn at_work(&self, run: RunId) -> Result<Option<String>> {
        if self.starts.is_under_way(run) {
            let process = self.host.process().await;
            let process = process.map_or_else(String::new, |id| format!(" (process {id})"));
            return Ok(Some(format!(
                "the plugin{process} has not answered `start` yet, and may still do what it was asked for"
            )));
        }
        let Some(others) = self.host.others().await? else {
            return Ok(None);
        };
        let who: Vec<String> = others.iter().map(|(_, held)| held.to_string()).collect();
        let who = who.join(", ");
        Ok(Some(format!(
            "{who} of the plugin's, from before, may be at work on this start; the end is waited for"
        )))
    }

    /// Ends who is at work on a start that was stopped: the process that was asked, which others are asked again after; and if that is
    /// gone, what it has left.
    pub async fn end_start(&self, run: RunId) {
        if self.starts.is_under_way(run) {
            self.host.close().await;
        } else if let Ok(Some(others)) = self.host.others().await {
            for (path, held) in others {
                held.leader(&path).kill();
            }
        }
    }

    /// What a backend with names of its own made of a run, by the mark that it carries.
    pub async fn find(&self, spec: &RunSpec) -> Result<Option<Handle>> {
        let limit = self.host.timeouts().find.get();
        let run = spec.run;
        let spec = Arc::new(spec.clone());
        let find = |remote: RemoteExecutor| {
            let spec = Arc::clone(&spec);
            async move { remote.find(&spec).await }.boxed()
        };
        let found = self.ask_again("find", limit, find).await?;
        if let Some(other) = found.as_ref().filter(|found| found.run != run) {
            let what = format!(
                "the plugin was asked to `find` run `{run}`, and answered with `{}`",
                other.run
            );
            return Err(Error::internal(what));
        }
        // Before anybody asks whether a value stands in it.
        if found.is_some() {
            self.values.recall_soon(run).await;
        }
        Ok(found)
    }

    /// Forgets what a run was given: the backend does not have it, or has removed it.
    pub async fn forget(&self, run: RunId) {
        self.values.withdraw(run).await;
    }

    /// Whether a handle may be written down: no value of its run stands in it.
    pub fn may_be_written(&self, handle: &Handle) -> bool {
        self.values.may_be_written(handle)
    }

    fn masked(&self, progress: &Progress) -> Progress {
        let (progress, values) = (progress.clone(), self.values.clone());
        Progress::to(move |message| progress.report(&values.text(message)))
    }

    async fn open_watch(&self, run: Handle) -> Result<Opened<Status>> {
        let life = self.host.life().await?;
        if !masks(&life) {
            self.values.recall_soon(run.run).await;
        }
        let id = run.run;
        let mut levels = RemoteExecutor::with_secrets(life.session.clone()).watch(&run);
        let limit = self.host.timeouts().watch.get();
        let first = timeout(limit, levels.next()).await.map_err(|_| {
            Error::unavailable(format!(
                "the plugin told no level of the run within {limit:?}"
            ))
        })?;
        let (this, values) = (self.clone(), self.values.clone());
        let levels = stream::iter(first).chain(levels);
        let items = this
            .explained(&life, "watch", levels)
            .map(move |level| level.map(|level| values.status(id, level)))
            .boxed();
        Ok(Opened { life, items })
    }

    /// The items of a stream; an error says why the plugin ended, if it did.
    fn explained<T: Send + 'static>(
        &self,
        life: &Life,
        method: &'static str,
        items: impl Stream<Item = Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let (this, life) = (self.clone(), life.clone());
        let explain = move |item: Result<T>| {
            let (this, life) = (this.clone(), life.clone());
            async move {
                match item {
                    Err(_) if life.session.is_closed() => Err(this.gone(&life, method).await),
                    item => item.map_err(|error| this.values.error(error)),
                }
            }
        };
        items.then(explain).boxed()
    }

    async fn open_logs(&self, run: Handle, from: Option<LogCursor>) -> Result<Opened<LogChunk>> {
        let life = self.host.life().await?;
        let can = life.welcome.capabilities.as_ref();
        if can.is_some_and(|can| !can.offers("logs")) {
            let items = no_logs(self.watch(&run));
            return Ok(Opened { life, items });
        }
        let (id, masks) = (run.run, masks(&life));
        let (this, watched) = (self.clone(), run.clone());
        let watch = move || Executor::watch(&this, &watched);
        let (this, asked) = (self.clone(), life.clone());
        let open = move |from| {
            let chunks = RemoteExecutor::with_secrets(asked.session.clone()).logs(&run, from);
            this.explained(&asked, "logs", chunks)
        };
        let items = self.values.log(id, masks, from, open, watch);
        Ok(Opened { life, items })
    }
}

fn masks(life: &Life) -> bool {
    let can = life.welcome.capabilities.as_ref();
    can.is_some_and(|can| can.masks)
}

fn start(
    spec: &RunSpec,
    secrets: &Secrets,
    progress: &Progress,
) -> impl Fn(RemoteExecutor) -> BoxFuture<'static, Result<Handle>> + Sync + use<> {
    let given = Arc::new((spec.clone(), secrets.clone(), progress.clone()));
    move |remote: RemoteExecutor| {
        let given = Arc::clone(&given);
        async move { remote.start(&given.0, &given.1, &given.2).await }.boxed()
    }
}

/// Something is under way that must not be broken off.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Executor for PluginExecutor {
    async fn examine(&self) -> Vec<Finding> {
        match self.host.welcome().await {
            Ok(welcome) if welcome.answers("examine") => {}
            Ok(_) => return findings(self.check().await, self.capabilities().await),
            Err(error) => return vec![Finding::of_error(&error)],
        }
        let limit = self.host.timeouts().check.get();
        let examine = |remote: RemoteExecutor| async move { remote.findings().await }.boxed();
        let mut findings = match self.ask_again("examine", limit, examine).await {
            Ok(findings) => findings,
            Err(error) => return vec![Finding::of_error(&error)],
        };
        if let Ok(can) = self.capabilities().await
            && let Some(caution) = caution(&can)
        {
            findings.push(Finding::warning(caution));
        }
        let findings = findings.into_iter();
        findings.map(|one| self.values.finding(one)).collect()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let welcome = self.host.welcome().await?;
        let mut can = welcome.capabilities.clone().ok_or_else(|| {
            let program = self.host.launch().shown();
            Error::invalid(format!(
                "the plugin `{program}` names no `capabilities` in its answer to `hello`"
            ))
        })?;
        let caution = caution(&can);
        for words in can.notes.iter_mut().chain(&mut can.missing) {
            *words = self.values.text(words);
        }
        can.notes.dedup();
        can.notes.extend(caution.map(str::to_owned));
        Ok(can)
    }

    async fn check(&self) -> Result<()> {
        let limit = self.host.timeouts().check.get();
        let check = |remote: RemoteExecutor| async move { remote.check().await }.boxed();
        self.ask_again("check", limit, check).await
    }

    async fn preview(&self, _: &RunSpec, _: &Secrets) -> Result<Vec<serde_json::Value>> {
        Ok(Vec::new())
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        let life = self.host.life().await?;
        self.values.give(spec.run, secrets, masks(&life)).await?;
        let limit = self.host.timeouts().start.get();
        let question = start(spec, secrets, &self.masked(progress));
        let handle = self.ask_again("start", limit, question).await?;
        Ok(self.values.handle(handle))
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let (this, run) = (self.clone(), run.clone());
        renewed(move |_| {
            let (this, run) = (this.clone(), run.clone());
            async move { this.open_watch(run).await }.boxed()
        })
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let (this, run) = (self.clone(), run.clone());
        renewed(move |last: Option<LogChunk>| {
            let (this, run) = (this.clone(), run.clone());
            let from = last.map(|chunk| chunk.next).or_else(|| from.clone());
            async move { this.open_logs(run, from).await }.boxed()
        })
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        let limit = self.host.timeouts().stop.get();
        let run = run.clone();
        let stop = |remote: RemoteExecutor| {
            let run = run.clone();
            async move { remote.stop(&run, grace).await }.boxed()
        };
        self.ask_again("stop", limit, stop).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        let limit = self.host.timeouts().remove.get();
        let handle = run.clone();
        let remove = |remote: RemoteExecutor| {
            let run = handle.clone();
            async move { remote.remove(&run).await }.boxed()
        };
        self.ask_again("remove", limit, remove).await?;
        self.values.withdraw(run.run).await;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        let limit = self.host.timeouts().list.get();
        let list = |remote: RemoteExecutor| async move { remote.list().await }.boxed();
        self.ask_again("list", limit, list).await
    }

    async fn close(&self) {
        self.starts.ended().await;
        self.host.close().await;
    }
}
