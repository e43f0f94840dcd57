//! `check`: the doctor. A line for each finding: ok, warning or failed, and what to do.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use futures::future::join_all;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::secret::SecretProvider;
use hybrid_runner_core::{Finding, Health, Result};
use rustix::fs::Access;
use serde::Serialize;

use super::args::ConfigFile;
use super::exit::Exit;
use super::output::Output;
use super::{Done, exec, offline};
use crate::config::{Becomes, Environment, Inputs, Resolve, VARIABLES};
use crate::kinds::Kinds;

/// A finding, and what it is about.
#[derive(Debug, Serialize)]
struct Line {
    part: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(flatten)]
    finding: Finding,
}

/// Variables of the existing chart that are set and do nothing here, and why.
fn idle(environment: &Environment) -> impl Iterator<Item = Line> {
    let idle = VARIABLES
        .iter()
        .filter(|variable| variable.becomes == Becomes::Nothing);
    idle.filter_map(|variable| {
        let (name, _) = variable.find(environment)?;
        Some(Line {
            part: format!("variable {name}"),
            kind: None,
            finding: Finding::ok(format!("without effect: {}", variable.about)),
        })
    })
}

/// Whether lines can be added to the audit file. Nothing is made: it would be of whoever asks, and not of the runner.
fn audit(path: &Path) -> Line {
    let answer = match OpenOptions::new().append(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            let folder = folder.unwrap_or(Path::new("."));
            rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(std::io::Error::from)
        }
        Err(error) => Err(error),
    };
    let finding = match answer {
        Ok(()) => Finding::ok(path.display().to_string()),
        Err(error) => Finding::failed(format!(
            "failed to write to `{}` (`[runner] audit`): {error}; let the user of the runner write there",
            path.display()
        )),
    };
    Line {
        part: "audit".to_owned(),
        kind: None,
        finding,
    }
}

/// `check`
pub(crate) async fn check(args: ConfigFile, output: Output, kinds: &Kinds) -> Done {
    let inputs = Inputs::of_process(args.config).with_kinds(kinds);
    let loaded = offline::load(&inputs, output)?;
    let mut config = loaded.config;
    let file = loaded.file.as_ref();
    let file = file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    let mut lines = vec![Line {
        part: "configuration".to_owned(),
        kind: None,
        finding: Finding::ok(file),
    }];
    lines.extend(idle(&inputs.environment));
    lines.extend(config.runner.audit.as_deref().map(audit));
    exec::local_unless_configured(&mut config);
    let agent = config.runner.id.clone();
    let agent = agent.unwrap_or_else(crate::app::default_agent);
    let built = config.build(&config.runner.data_dir, &Owner::of("check", &agent))?;

    let executors = built
        .executors
        .iter()
        .map(|(name, executor)| async move { (name, executor.examine().await) });
    for (name, findings) in join_all(executors).await {
        let kind = config
            .executors
            .get(name)
            .map(|section| section.kind.clone());
        lines.extend(findings.into_iter().map(|finding| Line {
            part: format!("executor {name}"),
            kind: kind.clone(),
            finding,
        }));
    }
    // What the workload resolves is not for this runner's identity.
    let wrong = match config.runner.resolve {
        Resolve::Workload => Finding::warning,
        Resolve::Runner => Finding::failed,
    };
    let stores = built.stores.all().into_iter();
    let stores = stores.map(|(name, store)| async move { (name, doctor(store.as_ref()).await) });
    for (name, answer) in join_all(stores).await {
        lines.push(Line {
            part: format!("store {name}"),
            kind: config
                .secrets
                .get(&name)
                .map(|section| section.kind.clone()),
            finding: match answer {
                Ok(found) => Finding::ok(found),
                Err(error) => wrong(error.report()),
            },
        });
    }
    print(&lines, output)
}

/// Reachable, and may it be read? And as whom.
async fn doctor(store: &dyn SecretProvider) -> Result<String> {
    store.check().await?;
    let who = store.identity().await?;
    Ok(who.map_or_else(|| "readable".to_owned(), |who| format!("readable as {who}")))
}

fn print(lines: &[Line], output: Output) -> Done {
    if output.json {
        output.object(&lines)?;
    } else {
        for line in lines {
            let health = match line.finding.health {
                Health::Warning => "warning",
                Health::Failed => "failed ",
                _ => "ok     ",
            };
            let kind = line.kind.as_ref();
            let kind = kind.map_or_else(String::new, |kind| format!(" ({kind})"));
            output.line(format!(
                "{health}  {}{kind}: {}",
                line.part, line.finding.message
            ))?;
        }
    }
    let failed = lines
        .iter()
        .any(|line| line.finding.health == Health::Failed);
    Ok(if failed { Exit::No } else { Exit::Done })
}
