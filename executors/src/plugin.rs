//! A program of yours that speaks the contract over stdin and stdout. `docs/plugins.md` is its tutorial.
//!
//! One process serves all runs of the section. A backend with names of its own ([`Capabilities::named_start`] is off) is
//! asked once for each run, with a claim on disk before it: see `claims`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, Progress};
use hybrid_runner_core::finding::Finding;
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, Launch, PluginExecutor, PluginSettings, Submitted};
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{LogChunk, LogCursor, RunId};

use crate::claims::{Backend, Claims};
use crate::settings;

/// The executor's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn Executor> = Kind {
    name: "plugin",
    summary: "a program of yours that speaks the contract over stdin and stdout",
    build: |context| Ok(Arc::new(Plugin::new(context)?)),
    schema: || schemars::schema_for!(PluginSettings),
};

/// An executor that a program serves. See the [module](self).
#[derive(Debug)]
pub struct Plugin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    named: PluginExecutor,
    unnamed: Claims<PluginExecutor>,
}

impl Plugin {
    /// The executor of a section. Starts nothing yet.
    pub fn new(context: &Context) -> Result<Self> {
        let section: PluginSettings = settings::read(context)?;
        let launch = Launch::new(Contract::Executor, context, &section, |name| {
            std::env::var_os(name)
        })
        .map_err(|error| {
            Error::invalid(format!("section [executors.{}]", context.name)).with_source(error)
        })?;
        Ok(Self::of(Host::new(launch), context))
    }

    /// The executor behind a plugin that is launched in some way of its own.
    pub fn of(host: Host, context: &Context) -> Self {
        let named = PluginExecutor::new(host);
        let unnamed = Claims::new(named.clone(), &context.data_dir, &context.owner);
        Self(Arc::new(Inner { named, unnamed }))
    }

    /// The plugin itself.
    pub fn host(&self) -> &Host {
        self.0.named.host()
    }
}

impl Inner {
    /// The executor that fits what the plugin says of its backend.
    async fn fitting(&self) -> Result<&dyn Executor> {
        let named = Executor::capabilities(&self.named).await?.named_start;
        Ok(if named { &self.named } else { &self.unnamed })
    }
}

/// The stream of the fitting executor.
fn fitting<T: Send + 'static>(
    inner: &Arc<Inner>,
    open: impl FnOnce(&dyn Executor) -> BoxStream<'static, Result<T>> + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let inner = Arc::clone(inner);
    let stream = async move {
        match inner.fitting().await {
            Ok(executor) => open(executor),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    };
    stream::once(stream).flatten().boxed()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Executor for Plugin {
    async fn capabilities(&self) -> Result<Capabilities> {
        Executor::capabilities(&self.0.named).await
    }

    async fn check(&self) -> Result<()> {
        self.0.fitting().await?.check().await
    }

    async fn examine(&self) -> Vec<Finding> {
        match self.0.fitting().await {
            Ok(executor) => executor.examine().await,
            Err(error) => vec![Finding::of_error(&error)],
        }
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
        self.0.fitting().await?.start(spec, secrets, progress).await
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let run = run.clone();
        fitting(&self.0, move |executor| executor.watch(&run))
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let run = run.clone();
        fitting(&self.0, move |executor| executor.logs(&run, from))
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        self.0.fitting().await?.stop(run, grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        self.0.fitting().await?.remove(run).await
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        self.0.fitting().await?.list().await
    }

    async fn close(&self) {
        // The plugin itself, too.
        Executor::close(&self.0.unnamed).await;
    }
}

#[async_trait]
impl Backend for PluginExecutor {
    async fn capabilities(&self) -> Result<Capabilities> {
        Executor::capabilities(self).await
    }

    async fn check(&self) -> Result<()> {
        Executor::check(self).await
    }

    async fn examine(&self) -> Vec<Finding> {
        Executor::examine(self).await
    }

    async fn submit(&self, spec: &RunSpec, secrets: &Secrets, progress: &Progress) -> Submitted {
        Self::submit(self, spec, secrets, progress).await
    }

    async fn find(&self, spec: &RunSpec) -> Result<Option<Handle>> {
        Self::find(self, spec).await
    }

    async fn at_work(&self, run: RunId) -> Result<Option<String>> {
        Self::at_work(self, run).await
    }

    fn withdraw(&self, _: RunId) {
        // Its starts wait for no turn.
    }

    fn is_withdrawn(&self, _: RunId) -> bool {
        false
    }

    async fn end_start(&self, run: RunId) {
        Self::end_start(self, run).await;
    }

    fn may_be_written(&self, handle: &Handle) -> bool {
        Self::may_be_written(self, handle)
    }

    async fn forget(&self, run: RunId) {
        Self::forget(self, run).await;
    }

    async fn close(&self) {
        Executor::close(self).await;
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        Executor::watch(self, run)
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        Executor::logs(self, run, from)
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        Executor::stop(self, run, grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        Executor::remove(self, run).await
    }
}
