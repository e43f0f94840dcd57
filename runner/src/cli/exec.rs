//! `exec`: one workflow here and now, to try an executor or a secret.

use std::path::Path;
use std::time::Duration;

use hybrid_runner_core::executor::{Executor, Progress};
use hybrid_runner_core::id::{Owner, SectionName};
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::{Origin, Secrets};
use hybrid_runner_core::workflow::Workflow;
use hybrid_runner_core::{Error, RunId};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::args::Exec;
use super::exit::{Exit, Failure, local};
use super::follow::{self, Place};
use super::output::Output;
use super::runs;
use super::scratch::Scratch;
use super::{Done, Interrupt, offline};
use crate::app::parts;
use crate::config::{Built, Config, Inputs, Resolve, Section};
use crate::kinds::Kinds;
use crate::supervisor::{Parts, Runner};
use crate::workflow_file;

/// How long the runner may take to put its things away.
const GOODBYE: Duration = Duration::from_secs(5);

/// `exec WORKFLOW`
pub(crate) async fn exec(args: Exec, output: Output, kinds: &Kinds, interrupt: &Interrupt) -> Done {
    let workflow = read_workflow(&args.workflow)?;
    let loaded = offline::load(
        &Inputs::of_process(args.config.config).with_kinds(kinds),
        output,
    )?;
    let mut config = loaded.config;
    local_unless_configured(&mut config);
    let executor = args
        .executor
        .map(|name| choose(&mut config, &name))
        .transpose()?;
    let agent = config
        .runner
        .id
        .clone()
        .unwrap_or_else(crate::app::default_agent);
    let mut spec = workflow.to_spec_on(RunId::generate(), &agent, None);
    spec.executor = executor.or(spec.executor);
    let wanted = spec.executor.clone().or(config.runner.executor.clone());
    if let Some(wanted) = wanted.filter(|wanted| config.executors.contains_key(wanted)) {
        // Of the only run there is: nobody is interested in how the others are.
        config.executors.retain(|name, _| *name == wanted);
        config.runner.executor = Some(wanted);
    }

    let scratch = Scratch::new(args.data_dir, "exec")?;
    add_demo_store(&mut config, scratch.path())?;
    // Others who do the same beside us, or were killed at it, are not to be taken up as ours.
    let owner = Owner::of(&format!("exec {}", scratch.path().display()), &agent);
    let built = config.build(scratch.path(), &owner)?;
    if args.dry_run {
        return dry_run(&spec, &config, &built, output).await;
    }
    let parts = parts(&config, built, agent, scratch.path())?;
    let section = spec
        .executor
        .clone()
        .unwrap_or_else(|| parts.default_executor.clone());
    let settings = config.executors.get(&section);
    let place = Place {
        kind: settings.map_or_else(String::new, |settings| settings.kind.clone()),
        section,
        owner,
    };
    run_once(parts, place, spec, output, interrupt).await
}

/// The workflow in a file; whatever is wrong with it is a matter of usage.
pub(crate) fn read_workflow(path: &Path) -> Result<Workflow, Failure> {
    workflow_file::read(path).map_err(|error| Failure::usage(error.report()))
}

/// Without an executor configured, or implied and in this build: processes of this machine; without a store: variables `SECRET_…`.
pub(crate) fn local_unless_configured(config: &mut Config) {
    let implied = config.runner.executor.as_ref();
    let implied = implied.filter(|_| config.implied_executor);
    let is_missing = implied.is_some_and(|kind| config.kinds.executor(kind.as_str()).is_err());
    if config.executors.is_empty() || is_missing {
        let local: SectionName = "local".parse().expect("a section name");
        config
            .executors
            .insert(local.clone(), Section::of_kind("local"));
        config.runner.executor = Some(local);
        if config.implied_executor {
            config.runner.resolve = Resolve::Runner;
        }
    }
    // A workload that reads its secrets itself reads none of these.
    if config.secrets.is_empty() && config.runner.resolve == Resolve::Runner {
        let env: SectionName = "env".parse().expect("a section name");
        config.secrets.insert(env.clone(), Section::of_kind("env"));
        config.runner.secrets = Some(env);
    }
}

/// The secret of the built-in example.
const DEMO_SECRET: (&str, &str) = ("demo_password", "correct horse battery staple");

/// A store `demo` with the secret of the built-in example, unless one of that name is configured, or workloads read their secrets
/// themselves: they could not read this one.
pub(crate) fn add_demo_store(config: &mut Config, dir: &Path) -> Result<(), Error> {
    let name: SectionName = "demo".parse().expect("a section name");
    if config.secrets.contains_key(&name) || config.runner.resolve == Resolve::Workload {
        return Ok(());
    }
    // The only store is the default one; it stays so beside another.
    if config.runner.secrets.is_none() && config.secrets.len() == 1 {
        config.runner.secrets = config.secrets.keys().next().cloned();
    }
    let folder = dir.join("demo-secrets");
    let (file, value) = DEMO_SECRET;
    let written =
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(file), value));
    written.map_err(|error| {
        Error::unavailable(format!("failed to write `{}`", folder.display())).with_source(error)
    })?;
    let section = Section::of_kind("file").with("path", folder.to_string_lossy().into_owned());
    config.secrets.insert(name, section);
    Ok(())
}

/// The section of that name; else a section of that kind without settings.
fn choose(config: &mut Config, name: &str) -> Result<SectionName, Failure> {
    let section: SectionName = name.parse()?;
    if !config.executors.contains_key(&section) {
        config.kinds.executor(name)?;
        config
            .executors
            .insert(section.clone(), Section::of_kind(name));
    }
    Ok(section)
}

/// Checks the executor, resolves the secrets, and shows what would be made; starts nothing, shows no value.
async fn dry_run(spec: &RunSpec, config: &Config, built: &Built, output: Output) -> Done {
    let name = spec.executor.clone().or(built.default_executor.clone());
    let name = name.ok_or_else(|| Failure::usage("no executor: name one with `--executor`"))?;
    let executor = built.executors.get(&name).ok_or_else(|| {
        let have: Vec<_> = built.executors.keys().map(SectionName::as_str).collect();
        Failure::usage(format!(
            "no executor `{name}`; there is {}",
            have.join(", ")
        ))
    })?;
    executor.check().await?;
    output.note(format!("executor `{name}`: ok"));
    // What is not allowed, or cannot be resolved, would fail the run: the answer is no, but the request was well formed.
    let no = |error: String| Failure::new(Exit::No, error);
    let rules = crate::app::rules(config)?;
    let default_store = built.stores.default_store();
    let allowed = rules.policy.check(spec, &name, default_store.as_ref());
    allowed.map_err(|failure| no(failure.message))?;
    let mut first = spec.attempt(1);
    let secrets = if let Some(workload) = &rules.workload {
        workload.prepare(&mut first)?;
        output.note("its references are resolved by the workload itself");
        Secrets::left_to_the_workload()
    } else {
        let references = spec.references()?;
        let found = built.stores.resolve(spec.run, &references).await;
        let secrets = found.map_err(|error| no(error.report()))?;
        for reference in &references {
            let is_default = secrets.origin(reference.as_str()) == Some(&Origin::Default);
            let how = if is_default {
                "not found: its default is taken"
            } else {
                "found"
            };
            output.note(format!("`{reference}`: {how}"));
        }
        secrets
    };
    let mut shown = json!({ "executor": name, "spec": spec });
    let objects = executor.preview(&first, &secrets).await?;
    if !objects.is_empty() {
        shown["objects"] = objects.into();
    }
    output.object(&shown)?;
    Ok(Exit::Done)
}

async fn run_once(
    parts: Parts,
    place: Place,
    mut spec: RunSpec,
    output: Output,
    interrupt: &Interrupt,
) -> Done {
    let (runner, driver) = Runner::open(parts).await.map_err(local)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    spec.first_sent = Some(runner.incarnation().await?);
    let progress = Progress::to(move |message| output.note(message));
    let handle = runner.start(&spec, &Secrets::none(), &progress).await?;
    let status = follow::local(&runner, &handle, &spec, &place, output, interrupt).await?;
    if let Some(outcome) = status.outcome() {
        runner.remove(&handle).await?;
        interrupt.would_leave(None);
        runs::finish(&follow::as_run(&spec, &status), output)?;
        if !runner.is_forgotten(spec.run) {
            let has_run = status.times.running.is_some();
            output.error(&place.not_removed(spec.run, status.attempt, has_run));
        }
        runner.drain();
        if timeout(GOODBYE, tasks.join_next()).await.is_err() {
            tracing::debug!("the runner did not end in time");
        }
        return Ok(interrupt.exit().unwrap_or(Exit::of_outcome(outcome)));
    }
    Err(Failure::new(
        Exit::No,
        format!("nobody can tell how run {} ended", spec.run),
    ))
}
