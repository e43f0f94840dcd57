//! Checked → built: the executors and stores of a configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::id::{Owner, SectionName};
use hybrid_runner_core::kind::{self, Context, Kind};
use hybrid_runner_core::secret::{References, Secret, SecretProvider};
use hybrid_runner_secrets::Stores;
use serde_json::Value;

use super::check::Section;
use super::raw::Resolve;
use super::{Config, Error, Problem};

/// The executors and stores of a configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Built {
    /// The executors by name.
    pub executors: BTreeMap<SectionName, Arc<dyn Executor>>,
    /// The one of runs that name none.
    pub default_executor: Option<SectionName>,
    /// The stores.
    pub stores: Arc<Stores>,
}

impl Config {
    /// Builds every executor and store. Whatever is wrong with any is told at once.
    pub fn build(&self, data_dir: &Path, owner: &Owner) -> Result<Built, Error> {
        let mut problems = Vec::new();
        let providers = self.providers(data_dir, owner, &mut problems);
        let stores = match self.stores(providers) {
            Ok(stores) => Some(Arc::new(stores)),
            Err(error) => {
                problems.extend(error.problems);
                None
            }
        };
        let references = references(stores.clone());
        let executors = build_all(
            "executors",
            &self.executors,
            self.kinds.executors(),
            hybrid_runner_executors::KNOWN,
            &|table, name, settings| {
                self.context(data_dir, owner, table, name, settings)
                    .with_references(references.clone())
                    .with_env(self.workload.env())
            },
            &mut problems,
        );
        match stores {
            Some(stores) if problems.is_empty() => Ok(Built {
                default_executor: default_of(self.runner.executor.as_ref(), &executors),
                executors,
                stores,
            }),
            _ => Err(Error { problems }),
        }
    }

    /// Builds every store, and no executor.
    pub(crate) fn build_stores(&self, data_dir: &Path, owner: &Owner) -> Result<Stores, Error> {
        let mut problems = Vec::new();
        let providers = self.providers(data_dir, owner, &mut problems);
        if !problems.is_empty() {
            return Err(Error { problems });
        }
        self.stores(providers)
    }

    fn providers(&self, data_dir: &Path, owner: &Owner, problems: &mut Vec<Problem>) -> Providers {
        // What the workload reads itself needs no client here.
        let built_in = |kind: &str| self.kinds.secrets().iter().any(|one| one.name == kind);
        let needed = |kind: &str| {
            self.runner.resolve == Resolve::Runner
                || built_in(kind)
                || !hybrid_runner_secrets::KNOWN.contains(&kind)
        };
        let needed = self
            .secrets
            .iter()
            .filter(|(_, section)| needed(&section.kind));
        let sections = needed.map(|(name, section)| (name.clone(), section.clone()));
        build_all(
            "secrets",
            &sections.collect(),
            self.kinds.secrets(),
            hybrid_runner_secrets::KNOWN,
            &|table, name, settings| self.context(data_dir, owner, table, name, settings),
            problems,
        )
    }

    fn stores(&self, providers: Providers) -> Result<Stores, Error> {
        let named = self.runner.secrets.as_ref();
        let named = named.filter(|name| providers.contains_key(*name));
        let default = default_of(named, &providers);
        let stores = Stores::new(providers, default).map_err(|error| Error {
            problems: vec![Problem::new("runner.secrets", error.report())],
        })?;
        Ok(stores.audited(self.runner.audit.clone()))
    }

    fn context(
        &self,
        data_dir: &Path,
        owner: &Owner,
        table: &str,
        name: &SectionName,
        settings: Value,
    ) -> Context {
        let dir = data_dir.join(table).join(name.as_str());
        let per_run = self.runner.spool.per_run.get();
        Context::new(name.clone(), settings, dir, owner.clone(), per_run)
            .with_spool_total(self.runner.spool.total.get())
            .with_config_dir(self.folder.clone())
    }
}

/// Lets an executor read the references in its own section, and once more what a run was given.
fn references(stores: Option<Arc<Stores>>) -> References {
    let Some(stores) = stores else {
        return References::none();
    };
    References::through(move |run, reference| {
        let stores = Arc::clone(&stores);
        Box::pin(async move {
            let who = run.map_or_else(|| "executor".to_owned(), |run| run.to_string());
            let found = stores.read(&who, &reference).await?;
            let mut secret = Secret::from(found.value);
            secret.version = found.version;
            Ok(secret)
        })
    })
}

/// The stores by name, before they are put together.
type Providers = BTreeMap<SectionName, Arc<dyn SecretProvider>>;

/// The named one; else the only one.
fn default_of<T>(
    named: Option<&SectionName>,
    all: &BTreeMap<SectionName, T>,
) -> Option<SectionName> {
    let only = || {
        (all.len() == 1)
            .then(|| all.keys().next().cloned())
            .flatten()
    };
    named.cloned().or_else(only)
}

fn build_all<T: ?Sized>(
    table: &str,
    sections: &BTreeMap<SectionName, Section>,
    kinds: &[Kind<T>],
    known: &[&str],
    context: &impl Fn(&str, &SectionName, Value) -> Context,
    problems: &mut Vec<Problem>,
) -> BTreeMap<SectionName, Arc<T>> {
    let what = if table == "executors" {
        "executor"
    } else {
        "secret store"
    };
    let mut built = BTreeMap::new();
    for (name, section) in sections {
        let key = format!("{table}.{name}");
        let problem = |key: String, of: &str, message: String| Problem {
            key,
            message,
            source: section.source(of).cloned(),
        };
        let kind = match kind::find(kinds, what, &section.kind, known) {
            Ok(kind) => kind,
            Err(error) => {
                let message = error.message().to_owned();
                problems.push(problem(format!("{key}.kind"), "kind", message));
                continue;
            }
        };
        let settings = typed(
            Value::Object(section.settings.clone()),
            &(kind.schema)().to_value(),
        );
        match (kind.build)(&context(table, name, settings)) {
            Ok(backend) => {
                built.insert(name.clone(), backend);
            }
            Err(error) => {
                let cause = cause(&error);
                let of = key_in(&cause).unwrap_or("kind").to_owned();
                problems.push(problem(key, &of, cause));
            }
        }
    }
    built
}

/// The error without the words that name the section again.
fn cause(error: &hybrid_runner_core::Error) -> String {
    let report = error.report();
    let behind = report
        .strip_prefix("section [")
        .and_then(|rest| rest.split_once(']'));
    behind.map_or_else(
        || report.clone(),
        |(_, cause)| cause.trim_start_matches([':', ',', ' ']).to_owned(),
    )
}

/// The key that a cause begins with.
fn key_in(cause: &str) -> Option<&str> {
    let begins = ["key `", "unknown field `"];
    let rest = begins.iter().find_map(|begin| cause.strip_prefix(begin))?;
    let (key, _) = rest.split_once('`')?;
    Some(key)
}

/// Text out of a variable becomes the number or the truth value that the kind's schema asks for.
fn typed(mut settings: Value, schema: &Value) -> Value {
    let Value::Object(members) = &mut settings else {
        return settings;
    };
    for (name, value) in members {
        let wants = |wanted: &str| {
            let types = &schema["properties"][name]["type"];
            types == wanted
                || types
                    .as_array()
                    .is_some_and(|types| types.iter().any(|one| one == wanted))
        };
        let Value::String(text) = &*value else {
            continue;
        };
        let parsed: Option<Value> = if wants("integer") || wants("number") || wants("boolean") {
            serde_json::from_str(text).ok()
        } else {
            None
        };
        if let Some(parsed) = parsed.filter(|parsed| parsed.is_number() || parsed.is_boolean()) {
            *value = parsed;
        }
    }
    settings
}
