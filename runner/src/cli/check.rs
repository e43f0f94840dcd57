//! `check`: the doctor. A line for each part: ok, warning or failed, and what to do.

use futures::future::join_all;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::secret::SecretProvider;
use hybrid_runner_core::{Error, Result};
use serde::Serialize;

use super::args::ConfigFile;
use super::exit::Exit;
use super::output::Output;
use super::{Done, exec, offline};
use crate::config::{Inputs, Resolve};

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warning,
    Failed,
}

/// One part.
#[derive(Debug, Serialize)]
struct Line {
    state: State,
    part: String,
    kind: Option<String>,
    /// What was found, or what is wrong and what to do.
    message: String,
}

/// `check`
pub(crate) async fn check(args: ConfigFile, output: Output) -> Done {
    let loaded = offline::load(&Inputs::of_process(args.config), output)?;
    let mut config = loaded.config;
    let file = loaded.file.as_ref();
    let mut lines = vec![Line {
        state: State::Ok,
        part: "configuration".to_owned(),
        kind: None,
        message: file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string()),
    }];
    exec::local_unless_configured(&mut config);
    let agent = config.runner.id.clone();
    let agent = agent.unwrap_or_else(crate::app::default_agent);
    let built = config.build(&config.runner.data_dir, &Owner::of("check", &agent))?;

    let executors = built.executors.iter().map(|(name, executor)| async move {
        let answer = executor.check().await.map(|()| "reachable".to_owned());
        (format!("executor {name}"), answer)
    });
    for ((part, answer), section) in join_all(executors)
        .await
        .into_iter()
        .zip(config.executors.values())
    {
        lines.push(line(part, &section.kind, answer, State::Failed));
    }
    // What the workload resolves is not for this runner's identity.
    let wrong = match config.runner.resolve {
        Resolve::Workload => State::Warning,
        Resolve::Runner => State::Failed,
    };
    let stores = built.stores.all().into_iter();
    let stores = stores.map(|(name, store)| async move { (name, doctor(store.as_ref()).await) });
    for (name, answer) in join_all(stores).await {
        let kind = config
            .secrets
            .get(&name)
            .map_or("", |section| section.kind.as_str());
        lines.push(line(format!("store {name}"), kind, answer, wrong));
    }
    print(&lines, output)
}

/// Reachable, and may it be read? And as whom.
async fn doctor(store: &dyn SecretProvider) -> Result<String> {
    store.check().await?;
    let who = store.identity().await?;
    Ok(who.map_or_else(|| "readable".to_owned(), |who| format!("readable as {who}")))
}

fn line(part: String, kind: &str, answer: Result<String, Error>, wrong: State) -> Line {
    let (state, message) = match answer {
        Ok(message) => (State::Ok, message),
        Err(error) => (wrong, error.report()),
    };
    Line {
        state,
        part,
        kind: Some(kind.to_owned()),
        message,
    }
}

fn print(lines: &[Line], output: Output) -> Done {
    if output.json {
        output.object(&lines)?;
    } else {
        for line in lines {
            let state = match line.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Failed => "failed ",
            };
            let kind = line
                .kind
                .as_ref()
                .map_or_else(String::new, |kind| format!(" ({kind})"));
            output.line(format!("{state}  {}{kind}: {}", line.part, line.message))?;
        }
    }
    let failed = lines.iter().any(|line| line.state == State::Failed);
    Ok(if failed { Exit::No } else { Exit::Done })
}
