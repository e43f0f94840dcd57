//! The runner as a program: link, supervisor and HTTP in one place.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::id::{AgentId, Owner};
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::{Error, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Built, Config};
use crate::http::{self, Observed};
use crate::link::{Link, Side};
use crate::measure::{Counts, Measured};
use crate::policy::Policy;
use crate::supervisor::{self, Parts, Runner};

#[async_trait]
impl Side for Runner {
    fn executor(&self) -> Arc<dyn Executor> {
        Arc::new(self.clone())
    }

    async fn welcomed(&self, server: &str) {
        if let Err(error) = self.set_server(server).await {
            warn!(
                error = error.report(),
                "failed to remember the control plane"
            );
        }
    }

    async fn incarnation(&self) -> Result<Incarnation> {
        Self::incarnation(self).await
    }
}

/// Runs the runner until `shutdown`, then drains it within `[runner] drain`.
///
/// Runs that survive are let go of, not ended: the exit of the runner is never the exit of the work.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
    let agent = config.runner.id.clone().unwrap_or_else(default_agent);
    let missing = |what: &str, how: &str| Error::invalid(format!("{what} is not set: {how}"));
    let url = config.link.url.as_ref();
    let url = url.ok_or_else(|| {
        missing(
            "[link] url",
            "add `url = \"wss://…\"` under `[link]`, or set SERVER_URL",
        )
    })?;
    let owner = Owner::of(&url.authority(), &agent);
    let data_dir = config.runner.data_dir.clone();
    let built = config
        .build(&data_dir, &owner)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let stores = Arc::clone(&built.stores);
    let counts = Arc::new(Counts::default());
    let mut parts = parts(&config, built, agent.clone(), &data_dir)?;
    for executor in parts.executors.values_mut() {
        *executor = Arc::new(Measured::new(Arc::clone(executor), Arc::clone(&counts)));
    }
    let (runner, driver) = Runner::open(parts).await?;
    let link = Link::new(
        &config.link,
        agent.clone(),
        Arc::new(runner.clone()),
        stores,
        Arc::clone(&counts),
    )?;
    let observed = Observed::new(Arc::new(runner.clone()), link.state(), counts);
    let mut tasks = JoinSet::new();
    let leave = CancellationToken::new();
    if let Some(address) = config.runner.listen {
        let listener = http::bind(address).await?;
        tasks.spawn(http::serve(listener, observed, leave.clone()));
    }
    info!(%agent, server = %url, data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "runner started");
    serve(
        runner,
        driver,
        link,
        tasks,
        leave,
        config.runner.drain,
        shutdown,
    )
    .await;
    info!("runner ended");
    Ok(())
}

/// Runs the tasks until `shutdown`; then: accept nothing more, let go, flush, close.
pub(crate) async fn serve(
    runner: Runner,
    driver: supervisor::Driver,
    link: Link,
    mut tasks: JoinSet<()>,
    leave: CancellationToken,
    drain: Duration,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut driver = JoinSet::from_iter([driver]);
    let close = CancellationToken::new();
    tasks.spawn(link.run(close.clone()));
    tokio::select! {
        () = shutdown => info!(within = ?drain, "draining; a second signal leaves at once"),
        _ = driver.join_next() => warn!("the supervisor ended"),
    }
    runner.drain();
    if timeout(drain, driver.join_next()).await.is_err() {
        warn!(within = ?drain, "not everything could be let go of in time");
    }
    close.cancel();
    leave.cancel();
    while tasks.join_next().await.is_some() {}
}

/// What a runner is made of.
pub(crate) fn parts(
    config: &Config,
    built: Built,
    agent: AgentId,
    data_dir: &Path,
) -> Result<Parts> {
    let default_executor = built.default_executor.ok_or_else(|| {
        let names: Vec<_> = built.executors.keys().map(ToString::to_string).collect();
        Error::invalid(if names.is_empty() {
            no_executor()
        } else {
            format!(
                "which executor is the default? set `executor` under `[runner]` to one of {}",
                names.join(", ")
            )
        })
    })?;
    Ok(Parts {
        agent,
        executors: built.executors,
        default_executor,
        stores: built.stores,
        policy: Policy {
            executors: config.policy.executors.clone().map(|list| list.0),
            images: config.policy.images.clone().map(|list| list.0),
            commands: config.policy.commands.clone().map(|list| list.0),
            secrets: config.policy.secrets.clone().map(|list| list.0),
        },
        data_dir: data_dir.to_owned(),
        max_runs: config.runner.max_runs,
        resolve: config.runner.resolve,
    })
}

/// What `run` says without an executor: the lines to add.
pub(crate) fn no_executor() -> String {
    "no executor is configured: what shall run the work? Add, for processes of this machine,\n\n    [executors.here]\n    kind = \"local\"\n\nto the configuration file, or set EXECUTOR_TYPE=local".to_owned()
}

/// The name of a runner that was given none: the machine's.
pub(crate) fn default_agent() -> AgentId {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let clean: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        .take(128)
        .collect();
    clean
        .parse()
        .unwrap_or_else(|_| "runner".parse().expect("a runner id"))
}
