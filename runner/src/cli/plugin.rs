//! `plugin test`, `plugin list`, `plugin serve`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hybrid_runner_core::executor::Capabilities;
use hybrid_runner_core::id::{Owner, SectionName};
use hybrid_runner_core::kind::Kind;
use hybrid_runner_core::plugin::host::PluginSettings;
use hybrid_runner_core::plugin::{Contract, Plugin};
use hybrid_runner_core::{Error, Executor};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::args::{PluginCommand, PluginList, PluginServe, PluginTest};
use super::exit::{Exit, Failure, Interrupt};
use super::output::Output;
use super::scratch::Scratch;
use super::{Done, offline};
use crate::config::{Config, Inputs, Section};
use crate::conformance::{self, Candidate, Options, Outcome, Report, junit};
use crate::kinds::Kinds;

/// How long a backend may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the runs of a test may take to be ended and removed when it is broken off.
const CLEANING: Duration = Duration::from_secs(15);

/// `plugin test|list|serve`
pub(crate) async fn plugin(
    command: PluginCommand,
    output: Output,
    kinds: &Kinds,
    interrupt: &Interrupt,
) -> Done {
    match command {
        PluginCommand::Test(args) => test(args, output, kinds, interrupt).await,
        PluginCommand::List(args) => list(args, output, kinds).await,
        PluginCommand::Serve(args) => serve(args, kinds).await,
    }
}

async fn test(args: PluginTest, output: Output, kinds: &Kinds, interrupt: &Interrupt) -> Done {
    let mut file = args.junit.as_deref().map(JUnit::create).transpose()?;
    let scratch = Scratch::new(None, "plugin-test")?;
    let candidate = candidate(&args, scratch.path().to_owned(), output, kinds)?;
    let told = |outcome: &Outcome| {
        if !output.json {
            tell(outcome, output);
        }
    };
    let tried = tokio::select! {
        tried = conformance::run(candidate.clone(), &args.only, told) => Some(tried),
        () = interrupt.raised() => None,
    };
    let Some(report) = tried else {
        return break_off(&candidate, output, interrupt).await;
    };
    let report = report?;
    if let Some(file) = &mut file {
        file.write(&report)?;
    }
    if output.json {
        output.object(&report)?;
    } else {
        for note in &report.notes {
            output.line(format!(
                "{}  {note}",
                output.state_as("stopped", "note       ")
            ))?;
        }
        let what = match report.contract {
            Contract::Secrets => " (a secret store)",
            _ => "",
        };
        output.line(format!(
            "{}{what}: {} passed, {} failed, {} not offered",
            report.software, report.passed, report.failed, report.not_offered
        ))?;
    }
    Ok(if report.is_kept() {
        Exit::Done
    } else {
        Exit::No
    })
}

/// Ends what the test began before it leaves.
async fn break_off(candidate: &Candidate, output: Output, interrupt: &Interrupt) -> Done {
    output.note("interrupted: ending the runs of the test; a second signal leaves them");
    interrupt.would_leave(Some("runs of the test may be left".to_owned()));
    if let Err(error) = candidate.clean_up(CLEANING).await {
        output.error(&format!("runs of the test may be left: {}", error.report()));
    }
    interrupt.would_leave(None);
    Ok(interrupt.exit().unwrap_or(Exit::No))
}

/// The file of `--junit`: made before anything is tried, so that a wrong path is told at once.
struct JUnit {
    path: std::path::PathBuf,
    file: std::fs::File,
}

impl JUnit {
    fn create(path: &std::path::Path) -> Result<Self, Failure> {
        let path = path.to_owned();
        match std::fs::File::create(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Self::failed(&path, &error)),
        }
    }

    fn write(&mut self, report: &Report) -> Result<(), Failure> {
        let written = self.file.write_all(junit(report).as_bytes());
        written.map_err(|error| Self::failed(&self.path, &error))
    }

    fn failed(path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure::usage(format!("failed to write `{}`: {error}", path.display()))
    }
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
    options.contract = args.contract.map(contract);
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
        let candidate = of_section(config, name, options)?;
        let is = candidate.contract();
        return match args.contract.map(contract) {
            Some(asked) if asked != is => Err(Failure::usage(format!(
                "`--contract` does not fit the section `{name}`; leave it out"
            ))),
            _ => Ok(candidate),
        };
    }
    if args.program.is_empty() {
        return Err(Failure::usage(
            "name the program behind `--`, or a section of the configuration with `--section`",
        ));
    }
    let mut settings = json!({ "command": args.program });
    if let Some(config) = &config {
        if let Some((of_section, contract)) = section_of(config, &args.program, options.contract) {
            settings = Value::Object(of_section.settings.clone());
            options.contract = Some(contract);
        }
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

/// The section that has this command, if there is one, and the contract of its table.
fn section_of<'a>(
    config: &'a Config,
    program: &[String],
    contract: Option<Contract>,
) -> Option<(&'a Section, Contract)> {
    let executors = config.executors.values();
    let stores = config.secrets.values();
    let command = json!(program);
    executors
        .map(|section| (section, Contract::Executor))
        .chain(stores.map(|section| (section, Contract::Secrets)))
        .filter(|(_, of)| contract.is_none_or(|asked| asked == *of))
        .find(|(section, _)| {
            section.kind == "plugin" && section.settings.get("command") == Some(&command)
        })
}

fn contract(asked: super::args::Contract) -> Contract {
    match asked {
        super::args::Contract::Executor => Contract::Executor,
        super::args::Contract::Secrets => Contract::Secrets,
    }
}

/// What stands in a section is held to the contract of its table.
fn of_section(config: &Config, name: &str, mut options: Options) -> Result<Candidate, Failure> {
    let name: SectionName = name.parse()?;
    if let Some(section) = config.executors.get(&name) {
        options.contract = Some(Contract::Executor);
        let settings = Value::Object(section.settings.clone());
        return Ok(match section.kind.as_str() {
            "plugin" => Candidate::program(settings_of(settings)?, options),
            kind => Candidate::section(*config.kinds.executor(kind)?, settings, options),
        });
    }
    options.contract = Some(Contract::Secrets);
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
    // The runner's own folder, as for `check`: there stands which runs have values that are not to be told.
    let built = config.build(&config.runner.data_dir, &Owner::of("list", &agent))?;
    let kind_of = |sections: &std::collections::BTreeMap<SectionName, Section>,
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
        words.push_str("the contract alone");
    }
    if !can.missing.is_empty() {
        words.push_str("; without ");
        words.push_str(&can.missing.join(", "));
    }
    for note in &can.notes {
        words.push_str("; ");
        words.push_str(note);
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
