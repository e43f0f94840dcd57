//! What needs neither a control plane nor a backend: `validate`, `config`, `version`, `completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Kind;
use hybrid_runner_core::workflow::Workflow;
use serde_json::json;

use super::Done;
use super::args::{Cli, Config, ConfigFile, Validate};
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::config::{self, Inputs, Loaded};
use crate::kinds::Kinds;
use crate::workflow_file;

/// `validate WORKFLOW…`
pub(crate) fn validate(args: &Validate, output: Output) -> Done {
    if args.schema {
        output.object(&schemars::schema_for!(Workflow))?;
        return Ok(Exit::Done);
    }
    let mut results = Vec::new();
    let mut exit = Exit::Done;
    for path in &args.workflows {
        let name = path.display().to_string();
        match workflow_file::read(path) {
            Ok(workflow) => {
                let warnings = workflow.warnings();
                for warning in &warnings {
                    output.warning(&format!("{name}: {warning}"));
                }
                results.push(json!({ "file": name, "valid": true, "name": workflow.name, "warnings": warnings }));
                if !output.json {
                    output.line(format!("{name}: ok ({})", workflow.name))?;
                }
            }
            Err(error) => {
                exit = Exit::Usage;
                results.push(json!({ "file": name, "valid": false, "error": error.report() }));
                if !output.json {
                    output.error(&error.report());
                }
            }
        }
    }
    if output.json {
        output.object(&results)?;
    }
    Ok(exit)
}

/// `config lint|show|schema|env`
pub(crate) fn config(args: Config, output: Output, kinds: &Kinds) -> Done {
    match args {
        Config::Lint(file) => lint(file, output, kinds),
        Config::Show(file) => show(file, output, kinds),
        Config::Schema => {
            output.object(&config::schema(kinds))?;
            Ok(Exit::Done)
        }
        Config::Env => {
            let shown = config::env(&Inputs::of_process(None).environment);
            if output.json {
                output.object(&shown)?;
            } else {
                let rows: Vec<_> = shown
                    .into_iter()
                    .map(|shown| vec![shown.key, plain(&shown.value), shown.source])
                    .collect();
                output.table(&["VARIABLE", "VALUE", "BECAME"], &rows)?;
            }
            Ok(Exit::Done)
        }
    }
}

/// Loads the configuration and says what is odd about it.
pub(crate) fn load(inputs: &Inputs, output: Output) -> Result<Loaded, Failure> {
    let loaded = config::load(inputs)?;
    for warning in &loaded.warnings {
        output.warning(warning);
    }
    Ok(loaded)
}

fn lint(file: ConfigFile, output: Output, kinds: &Kinds) -> Done {
    let loaded = load(&Inputs::of_process(file.config).with_kinds(kinds), output)?;
    let agent = loaded
        .config
        .runner
        .id
        .clone()
        .unwrap_or_else(crate::app::default_agent);
    // Nothing is made or reached: the sections are only read.
    loaded
        .config
        .build(&loaded.config.runner.data_dir, &Owner::of("", &agent))?;
    let file = loaded
        .file
        .map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    if output.json {
        output.object(&json!({ "valid": true, "file": file, "warnings": loaded.warnings }))?;
    } else {
        output.line(format!("ok: {file}"))?;
    }
    Ok(Exit::Done)
}

fn show(file: ConfigFile, output: Output, kinds: &Kinds) -> Done {
    let loaded = load(&Inputs::of_process(file.config).with_kinds(kinds), output)?;
    let shown = loaded.show();
    if output.json {
        output.object(&shown)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = shown
        .into_iter()
        .map(|shown| vec![shown.key, plain(&shown.value), shown.source])
        .collect();
    output.table(&["KEY", "VALUE", "FROM"], &rows)?;
    Ok(Exit::Done)
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `version`
pub(crate) fn version(output: Output, kinds: &Kinds) -> Done {
    let version = concat!(env!("CARGO_PKG_VERSION"), "");
    let faults = if cfg!(feature = "_faults") {
        "+faults"
    } else {
        ""
    };
    let features = features();
    if output.json {
        output.object(&json!({
            "version": format!("{version}{faults}"),
            "protocol": hybrid_runner_core::session::PROTOCOL,
            "features": features,
            "executors": names(kinds.executors()),
            "secrets": names(kinds.secrets()),
        }))?;
        return Ok(Exit::Done);
    }
    output.line(format!("hybrid-runner {version}{faults}"))?;
    output.line(format!(
        "protocol   {}",
        hybrid_runner_core::session::PROTOCOL
    ))?;
    output.line(format!("features   {}", features.join(" ")))?;
    output.line(format!("executors  {}", names(kinds.executors()).join(" ")))?;
    output.line(format!("secrets    {}", names(kinds.secrets()).join(" ")))?;
    Ok(Exit::Done)
}

fn features() -> Vec<&'static str> {
    [
        ("server", cfg!(feature = "server")),
        ("local", cfg!(feature = "local")),
        ("docker", cfg!(feature = "docker")),
        ("plugin", cfg!(feature = "plugin")),
        ("argo", cfg!(feature = "argo")),
        ("aws", cfg!(feature = "aws")),
        ("azure", cfg!(feature = "azure")),
        ("gcp", cfg!(feature = "gcp")),
        ("kubernetes", cfg!(feature = "kubernetes")),
        ("vault", cfg!(feature = "vault")),
        ("_faults", cfg!(feature = "_faults")),
    ]
    .into_iter()
    .filter_map(|(name, compiled)| compiled.then_some(name))
    .collect()
}

fn names<T: ?Sized>(kinds: &[Kind<T>]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.name).collect()
}

/// `completions SHELL`
pub(crate) fn completions(shell: Shell) -> Done {
    const NAME: &str = "hybrid-runner";
    // The script for bash takes a dash in the name for a subcommand; only its last lines need the real one.
    const IN_BASH: &str = "hybrid_runner";
    let name = if shell == Shell::Bash { IN_BASH } else { NAME };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
    let script =
        String::from_utf8_lossy(&script).replace(&format!(" {IN_BASH}\n"), &format!(" {NAME}\n"));
    std::io::Write::write_all(&mut std::io::stdout(), script.as_bytes())?;
    Ok(Exit::Done)
}
