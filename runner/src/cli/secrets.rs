//! `secrets check`: reads references, to try a store.

use futures::future::join_all;
use hybrid_runner_core::Error;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::secret::Reference;
use hybrid_runner_secrets::{Found, Refusal};
use serde_json::{Value, json};

use super::args::{Secrets, SecretsCheck};
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Done, exec, offline};
use crate::config::Inputs;
use crate::kinds::Kinds;

/// `secrets check`
pub(crate) async fn secrets(args: Secrets, output: Output, kinds: &Kinds) -> Done {
    match args {
        Secrets::Check(args) => check(args, output, kinds).await,
    }
}

/// Each reference with its store and version, or why there is none. Never the value, never its length.
async fn check(args: SecretsCheck, output: Output, kinds: &Kinds) -> Done {
    let parsed = args.references.iter().map(|text| parse(text));
    let references = parsed.collect::<Result<Vec<_>, _>>();
    let references = references.map_err(|error| Failure::usage(error.report()))?;
    let loaded = offline::load(
        &Inputs::of_process(args.config.config).with_kinds(kinds),
        output,
    )?;
    let mut config = loaded.config;
    exec::local_unless_configured(&mut config);
    let agent = config.runner.id.clone();
    let agent = agent.unwrap_or_else(crate::app::default_agent);
    let built = config.build(&config.runner.data_dir, &Owner::of("", &agent))?;

    let stores = &built.stores;
    let verified = references
        .iter()
        .try_for_each(|reference| stores.verify(reference));
    verified.map_err(|error| Failure::usage(error.report()))?;
    let reads = references
        .iter()
        .map(|reference| stores.read("secrets check", reference));
    let answers = join_all(reads).await;
    let mut exits = Vec::new();
    let mut told = Vec::new();
    let mut rows = Vec::new();
    for (reference, answer) in references.iter().zip(answers) {
        let name = reference.to_string();
        match answer {
            Ok(found) => {
                told.push(object(&name, &found));
                rows.push(row(name, &found));
            }
            Err(error) => {
                exits.push(exit_of(&error));
                told.push(json!({"reference": name, "outcome": "failed", "kind": error.kind(), "error": error.report()}));
                if !output.json {
                    output.error(&error.report());
                }
            }
        }
    }
    if output.json {
        output.object(&told)?;
    } else if !rows.is_empty() {
        output.table(&["REFERENCE", "STORE", "VERSION", "FOUND"], &rows)?;
    }
    // What they have in common, if they do.
    let first = exits.first().copied().unwrap_or(Exit::Done);
    let same = exits.iter().all(|exit| *exit == first);
    Ok(if same { first } else { Exit::No })
}

/// Of a reference that cannot be read.
fn exit_of(error: &Error) -> Exit {
    match Refusal::of(error) {
        Refusal::Unreachable | Refusal::Throttled => Exit::Unreachable,
        Refusal::Denied | Refusal::Identity => Exit::Refused,
        _ => Exit::No,
    }
}

/// A reference as it stands in a workflow: whole, or within a larger string.
fn parse(text: &str) -> hybrid_runner_core::Result<Reference> {
    let within = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'));
    within.unwrap_or(text).parse()
}

fn object(name: &str, found: &Found) -> Value {
    json!({
        "reference": name,
        "outcome": if found.by_default { "default" } else { "found" },
        "store": found.store,
        "version": found.version,
    })
}

fn row(name: String, found: &Found) -> Vec<String> {
    let how = if found.by_default {
        "no, its default is taken"
    } else {
        "yes"
    };
    let version = found.version.clone().unwrap_or_else(|| "-".to_owned());
    vec![name, found.store.to_string(), version, how.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_reference_is_taken_as_it_stands_in_a_workflow() {
        for text in [
            "secret:/db/password",
            "${secret:/db/password}",
            "/db/password",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), "secret:/db/password");
        }
    }
}
