//! The runner as a program: link, supervisor and HTTP in one place.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::id::{AgentId, Owner};
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::{Error, Result};
use hybrid_runner_secrets::workload::Workload;
use secrecy::ExposeSecret;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Built, Config, Resolve};
use crate::http::{self, Observed};
use crate::link::{Link, Side};
use crate::measure::{Counts, Measured};
use crate::policy::Policy;
use crate::reload::{Reload, Target};
use crate::spool::{Room, Spooled};
use crate::supervisor::{self, Parts, Rules, Runner};

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
///
/// # Errors
///
/// `Invalid` for a configuration that cannot be used, `Conflict` if another process has the data folder or the address,
/// `Unavailable` if the disk refuses. A control plane that cannot be reached, or refuses, is no error: see `/readyz`.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
    run_reloading(config, shutdown, None).await
}

/// The same, and reads the configuration again when it changes.
pub(crate) async fn run_reloading(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
    reload: Option<Reload>,
) -> Result<()> {
    let agent = config.runner.id.clone().unwrap_or_else(default_agent);
    let url = config.link.url.as_ref().ok_or_else(|| {
        Error::invalid(
            "[link] url is not set: add `url = \"wss://…\"` under `[link]`, or set SERVER_URL",
        )
    })?;
    let listener = match config.runner.listen {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let data_dir = &config.runner.data_dir;
    let owner = owner(data_dir, &url.authority(), &agent)?;
    let built = config
        .build(data_dir, &owner)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let stores = Arc::clone(&built.stores);
    let counts = Arc::new(Counts::default());
    let mut parts = parts(&config, built, agent.clone(), data_dir)?;
    for executor in parts.executors.values_mut() {
        *executor = Arc::new(Measured::new(Arc::clone(executor), Arc::clone(&counts)));
    }
    let (runner, driver) = Runner::open(parts).await?;
    let side = Arc::new(runner.clone());
    let link = Link::new(
        &config.link,
        agent.clone(),
        side,
        Arc::clone(&stores),
        Arc::clone(&counts),
    )?;

    let close = CancellationToken::new();
    let mut tasks = JoinSet::new();
    if let Some(listener) = listener {
        let reads = Arc::clone(&stores);
        let observed = Observed::new(Arc::new(runner.clone()), link.state(), counts, reads);
        tasks.spawn(http::serve(listener, observed, close.clone()));
    }
    tasks.spawn(link.run(close.clone()));
    if let Some(reload) = reload {
        let target = Target {
            runner: runner.clone(),
            stores,
            data_dir: data_dir.clone(),
            owner,
        };
        let closed = close.clone();
        tasks.spawn(async move {
            closed.run_until_cancelled(reload.watch(target)).await;
        });
    }
    info!(%agent, server = %url, data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "runner started");
    let ended = until(shutdown, &runner, driver, &mut tasks, config.runner.drain).await;
    close.cancel();
    while tasks.join_next().await.is_some() {}
    info!("runner ended");
    ended
}

/// Waits for `shutdown`; then accepts nothing more and lets go of the runs. The link is still up meanwhile.
async fn until(
    shutdown: impl Future<Output = ()> + Send,
    runner: &Runner,
    driver: supervisor::Driver,
    tasks: &mut JoinSet<()>,
    drain: Duration,
) -> Result<()> {
    let mut driver = JoinSet::from_iter([driver]);
    // Neither ends by itself: a runner that does half of its work helps nobody.
    let broken = |part: &str| Err(Error::internal(format!("{part} broke down")));
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        _ = driver.join_next() => return broken("the supervisor"),
        Some(_) = tasks.join_next() => broken("the link or the listener"),
    };
    info!(within = ?drain, "draining; a second signal leaves at once");
    runner.drain();
    if timeout(drain, driver.join_next()).await.is_err() {
        warn!(within = ?drain, "not everything could be let go of in time");
    }
    ended
}

/// Whose our backend objects are: the control plane that this data folder was first used with.
///
/// It is remembered, so that an address that changes orphans nothing; a folder that was lost finds its own again as long
/// as the address is the same.
fn owner(data_dir: &Path, server: &str, agent: &AgentId) -> Result<Owner> {
    let path = data_dir.join("owner");
    let failed = |what: &str, error: std::io::Error| {
        Error::unavailable(format!("failed to {what} `{}`", path.display())).with_source(error)
    };
    match std::fs::read_to_string(&path) {
        Ok(known) if !known.trim().is_empty() => return Ok(Owner::of(known.trim(), agent)),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", error)),
    }
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir);
    made.map_err(|error| failed("make the folder of", error))?;
    // Under another name first: half of it would be another owner.
    let fresh = data_dir.join("owner.new");
    let written = File::create(&fresh).and_then(|mut file| {
        writeln!(file, "{server}")?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        File::open(data_dir)?.sync_all()
    });
    written.map_err(|error| failed("write", error))?;
    Ok(Owner::of(server, agent))
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
    let rules = rules(config)?;
    let room = room(config);
    let executors = built.executors.into_iter().map(|(name, executor)| {
        let spooled = Spooled::new(executor, data_dir, name.as_str(), room.clone());
        (name, Arc::new(spooled) as Arc<dyn Executor>)
    });
    Ok(Parts {
        agent,
        executors: executors.collect(),
        default_executor,
        stores: built.stores,
        policy: rules.policy,
        data_dir: data_dir.to_owned(),
        max_runs: config.runner.max_runs,
        resolve: config.runner.resolve,
        workload: rules.workload,
    })
}

/// What copies of logs may take.
fn room(config: &Config) -> Room {
    /// Of memory, where a runner with the limit of our own manifest has 256 MiB.
    const MEMORY_PER_RUN: u64 = 16 << 20;
    const MEMORY: u64 = 64 << 20;
    let spool = config.runner.spool;
    let (per_run, total) = (spool.per_run.get(), spool.total.get());
    if config.is_in_memory {
        Room::new(per_run.min(MEMORY_PER_RUN), total.min(MEMORY))
    } else {
        Room::new(per_run, total)
    }
}

/// What a configuration that is read again may change.
pub(crate) fn rules(config: &Config) -> Result<Rules> {
    let policy = Policy {
        executors: config.policy.executors.clone().map(|list| list.0),
        images: config.policy.images.clone().map(|list| list.0),
        commands: config.policy.commands.clone().map(|list| list.0),
        secrets: config.policy.secrets.clone().map(|list| list.0),
    };
    let workload = workload(config)?;
    Ok(Rules { policy, workload })
}

/// What workloads that resolve their secrets themselves are given: the default store's settings, else what the chart's
/// variable names.
fn workload(config: &Config) -> Result<Option<Workload>> {
    if config.runner.resolve == Resolve::Runner {
        return Ok(None);
    }
    let only = (config.secrets.len() == 1).then(|| config.secrets.keys().next());
    let store = config.runner.secrets.as_ref().or(only.flatten());
    if let Some((name, section)) = store.and_then(|name| config.secrets.get_key_value(name)) {
        return Workload::of_section(name, &section.kind, &section.settings).map(Some);
    }
    // No values: a name of a store, and of a namespace.
    let set = |name: &str| {
        config
            .workload
            .settings
            .get(name)
            .map(ExposeSecret::expose_secret)
    };
    let namespace = set("INGESTION_NAMESPACE");
    Ok(set("SECRETS_MANAGER").map(|provider| Workload::of_chart(provider, namespace)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_outlives_the_address_and_is_found_again_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let agent: AgentId = "a".parse().unwrap();
        let of =
            |folder: &str, server: &str| owner(&dir.path().join(folder), server, &agent).unwrap();
        let first = of("one", "127.0.0.1:1");
        assert_eq!(
            of("one", "127.0.0.1:2"),
            first,
            "another address, the same folder"
        );
        assert_eq!(
            of("two", "127.0.0.1:1"),
            first,
            "the folder was lost, the address is the same"
        );
        assert_ne!(of("three", "127.0.0.1:2"), first);
    }
}
