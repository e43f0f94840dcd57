//! `plugin test`, `plugin list`, `plugin serve`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hybrid_runner_core::executor::Capabilities;
use hybrid_runner_core::id::{Owner, SectionName};
use hybrid_runner_core::kind::Kind;
use hybrid_runner_core::plugin::Plugin;
use hybrid_runner_core::plugin::host::PluginSettings;
use hybrid_runner_core::{Error, Executor};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::args::{PluginCommand, PluginList, PluginServe, PluginTest};
use super::exit::{Exit, Failure};
use super::output::Output;
use super::scratch::Scratch;
use super::{Done, offline};
use crate::config::{Config, Inputs};
use crate::conformance::{self, Candidate, Options, Outcome, junit};
use crate::kinds::Kinds;

/// How long a backend may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// `plugin test|list|serve`
pub(crate) async fn plugin(command: PluginCommand, output: Output, kinds: &Kinds) -> Done {
    match command {
        PluginCommand::Test(args) => test(args, output, kinds).await,
        PluginCommand::List(args) => list(args, output, kinds).await,
        PluginCommand::Serve(args) => serve(args, kinds).await,
    }
}

async fn test(args: PluginTest, output: Output, kinds: &Kinds) -> Done {
    let scratch = Scratch::new(None, "plugin-test")?;
    let candidate = candidate(&args, scratch.path().to_owned(), output, kinds)?;
    let told = |outcome: &Outcome| {
        if !output.json {
            tell(outcome, output);
        }
    };
    let report = conformance::run(candidate, &args.only, told).await;
    let report = report.map_err(|error| Failure::new(Exit::No, error.report()))?;
    if let Some(path) = &args.junit {
        std::fs::write(path, junit(&report)).map_err(|error| {
            Failure::usage(format!("failed to write `{}`: {error}", path.display()))
        })?;
    }
    if output.json {
        output.object(&report)?;
    } else {
        output.line(format!(
            "{}: {} passed, {} failed, {} not offered",
            report.software, report.passed, report.failed, report.not_offered
        ))?;
    }
    Ok(if report.is_kept() {
        Exit::Done
    } else {
        Exit::No
    })
}

/// One line; of what failed all that is known.
fn tell(outcome: &Outcome, output: Output) {
    let mut text = match outcome.verdict {
        "passed" => format!(
            "{}  {}",
            output.state_as("succeeded", "passed     "),
            outcome.title()
        ),
        "failed" => format!(
            "{}  {}",
            output.state_as("failed", "failed     "),
            outcome.title()
        ),
        _ => format!(
            "{}  {}",
            output.state_as("stopped", "not offered"),
            outcome.title()
        ),
    };
    let expected = outcome.expected.as_deref().unwrap_or_default();
    match &outcome.came {
        Some(came) => {
            text.extend(["\n    expected ", expected, "\n    came ", came]);
            for message in &outcome.messages {
                text.push_str("\n      ");
                text.push_str(message);
            }
        }
        None if outcome.verdict != "passed" => text.extend([": needs ", expected]),
        None => {}
    }
    // If it cannot be written, the last line cannot either, and that is told.
    drop(output.line(text));
}

fn candidate(
    args: &PluginTest,
    folder: std::path::PathBuf,
    output: Output,
    kinds: &Kinds,
) -> Result<Candidate, Failure> {
    let mut options = Options::new(folder);
    options.image.clone_from(&args.image);
    if let Some(patience) = args.patience {
        options.patience = patience.get();
        options.tick = (patience.get() / 25).max(options.tick);
    }
    let is_needed = args.config.config.is_some() || args.section.is_some();
    let config = if is_needed {
        let inputs = Inputs::of_process(args.config.config.clone()).with_kinds(kinds);
        Some(offline::load(&inputs, output)?.config)
    } else {
        None
    };
    options.config_dir = config.as_ref().and_then(|config| config.folder.clone());
    if let Some(name) = &args.section {
        let config = config
            .as_ref()
            .ok_or_else(|| Failure::usage("no configuration"))?;
        return of_section(config, name, options);
    }
    if args.program.is_empty() {
        return Err(Failure::usage(
            "name the program behind `--`, or a section of the configuration with `--section`",
        ));
    }
    let mut settings = json!({ "command": args.program });
    if let Some(config) = &config {
        take_settings(config, &args.program, &mut settings);
    } else {
        // What is typed is meant from where it is typed.
        options.config_dir = std::env::current_dir().ok();
    }
    Ok(Candidate::program(settings_of(settings)?, options))
}

fn settings_of(settings: Value) -> Result<PluginSettings, Failure> {
    serde_json::from_value(settings)
        .map_err(|error| Failure::usage(format!("the settings of the plugin are wrong: {error}")))
}

/// The settings of the section that has this command, if there is one.
fn take_settings(config: &Config, program: &[String], settings: &mut Value) {
    let sections = config.executors.values().chain(config.secrets.values());
    let of_plugin = sections.filter(|section| section.kind == "plugin");
    let command = json!(program);
    if let Some(section) = of_plugin
        .into_iter()
        .find(|section| section.settings.get("command") == Some(&command))
    {
        *settings = Value::Object(section.settings.clone());
    }
}

fn of_section(config: &Config, name: &str, options: Options) -> Result<Candidate, Failure> {
    let name: SectionName = name.parse()?;
    if let Some(section) = config.executors.get(&name) {
        let settings = Value::Object(section.settings.clone());
        return Ok(match section.kind.as_str() {
            "plugin" => Candidate::program(settings_of(settings)?, options),
            kind => Candidate::section(*config.kinds.executor(kind)?, settings, options),
        });
    }
    match config.secrets.get(&name) {
        Some(section) if section.kind == "plugin" => Ok(Candidate::program(
            settings_of(Value::Object(section.settings.clone()))?,
            options,
        )),
        Some(section) => Err(Failure::usage(format!(
            "`{name}` is a secret store of kind `{}`, which is tested by the project itself",
            section.kind
        ))),
        None => Err(Failure::usage(format!("no section `{name}` is configured"))),
    }
}

/// One line of `plugin list`.
#[derive(Debug, Serialize)]
struct Listed {
    contract: &'static str,
    /// The section; absent for what is compiled in and not configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    kind: String,
    /// `ok`, `failed`, or `available` for what is not configured.
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
}

async fn list(args: PluginList, output: Output, kinds: &Kinds) -> Done {
    let inputs = Inputs::of_process(args.config.config).with_kinds(kinds);
    let config = offline::load(&inputs, output)?.config;
    let agent = config.runner.id.clone();
    let agent = agent.unwrap_or_else(crate::app::default_agent);
    let scratch = Scratch::new(None, "plugin-list")?;
    let built = config.build(scratch.path(), &Owner::of("list", &agent))?;
    let kind_of = |sections: &std::collections::BTreeMap<SectionName, crate::config::Section>,
                   name: &SectionName| {
        sections
            .get(name)
            .map_or_else(String::new, |section| section.kind.clone())
    };
    let executors = built.executors.iter().map(|(name, executor)| {
        let kind = kind_of(&config.executors, name);
        ask(name.to_string(), kind, executor)
    });
    let mut listed: Vec<Listed> = join_all(executors).await;
    for (name, store) in built.stores.all() {
        let kind = kind_of(&config.secrets, &name);
        let checked = timeout(PATIENCE, store.check())
            .await
            .unwrap_or_else(|_| Err(late()));
        listed.push(Listed {
            contract: "secrets",
            name: Some(name.to_string()),
            kind,
            health: if checked.is_ok() { "ok" } else { "failed" },
            why: checked.err().map(|error| error.report()),
            summary: String::new(),
            capabilities: None,
        });
    }
    let well = listed.iter().all(|one| one.health == "ok");
    let compiled = compiled("executor", kinds.executors());
    listed.extend(compiled.chain(self::compiled("secrets", kinds.secrets())));
    show(&listed, output)?;
    Ok(if well { Exit::Done } else { Exit::No })
}

fn late() -> Error {
    Error::unavailable(format!("no answer within {PATIENCE:?}"))
}

async fn ask(name: String, kind: String, executor: &Arc<dyn Executor>) -> Listed {
    let asked = async {
        let can = executor.capabilities().await?;
        Ok::<_, Error>((can, executor.check().await))
    };
    let (can, why) = match timeout(PATIENCE, asked).await {
        Ok(Ok((can, checked))) => (Some(can), checked.err()),
        Ok(Err(error)) => (None, Some(error)),
        Err(_) => (None, Some(late())),
    };
    Listed {
        contract: "executor",
        name: Some(name),
        kind,
        health: if why.is_none() { "ok" } else { "failed" },
        why: why.map(|error| error.report()),
        summary: can.as_ref().map(in_words).unwrap_or_default(),
        capabilities: can,
    }
}

/// What a backend can do, and what it cannot.
fn in_words(can: &Capabilities) -> String {
    let facts = [
        ("streams", can.streams),
        ("resources", can.resources),
        ("images", can.images),
        ("contained", can.contained),
        ("masks", can.masks),
        ("find", can.find),
        ("names of its own", !can.named_start),
    ];
    let have: Vec<&str> = facts
        .iter()
        .filter(|(_, has)| *has)
        .map(|(fact, _)| *fact)
        .collect();
    let mut words = have.join(", ");
    if words.is_empty() {
        words.push_str("no more than the contract");
    }
    if !can.missing.is_empty() {
        words.push_str("; without ");
        words.push_str(&can.missing.join(", "));
    }
    words
}

fn compiled<T: ?Sized>(contract: &'static str, kinds: &[Kind<T>]) -> impl Iterator<Item = Listed> {
    kinds.iter().map(move |kind| Listed {
        contract,
        name: None,
        kind: kind.name.to_owned(),
        health: "available",
        why: None,
        summary: kind.summary.to_owned(),
        capabilities: None,
    })
}

fn show(listed: &[Listed], output: Output) -> Result<(), Failure> {
    if output.json {
        output.object(&listed)?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|one| {
            let told = one.why.clone().unwrap_or_else(|| one.summary.clone());
            let name = one.name.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                one.contract.to_owned(),
                name,
                one.kind.clone(),
                one.health.to_owned(),
                told,
            ]
        })
        .collect();
    output.table(&["CONTRACT", "SECTION", "KIND", "HEALTH", "ABOUT"], &rows)?;
    Ok(())
}

/// Serves a kind of this build to another runner, over stdin and stdout.
async fn serve(args: PluginServe, kinds: &Kinds) -> Done {
    let software = concat!("hybrid-runner ", env!("CARGO_PKG_VERSION"));
    let mut plugin = Plugin::new(format!("{software} ({})", args.kind));
    let store = kinds.secrets().iter().find(|kind| kind.name == args.kind);
    match store {
        Some(kind) => plugin = plugin.secrets(*kind),
        None => plugin = plugin.executor(*kinds.executor(&args.kind)?),
    }
    plugin.serve().await?;
    Ok(Exit::Done)
}
