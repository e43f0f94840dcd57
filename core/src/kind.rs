//! The table in which an implementation is found by the name that a configuration gives.
//!
//! Registration is a `const` slice that can be found by grep: no link-time magic.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{self, Error, Result};
use crate::id::{Owner, SectionName};
use crate::secret::{References, SecretValue};

/// What an implementation is given when it is built.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context {
    /// The section's name, as `here` in `[executors.here]`.
    pub name: SectionName,
    /// The section as it was configured, without `kind`; read with `deny_unknown_fields`.
    pub settings: Value,
    /// Where the runner keeps its files.
    pub data_dir: std::path::PathBuf,
    /// Whose objects ours are.
    pub owner: Owner,
    /// The most bytes that one run's spooled log may take.
    pub spool_per_run: u64,
    /// The most bytes that all spooled logs may take together, if there is a limit.
    pub spool_total: Option<u64>,
    /// Reads references that stand in the section.
    pub references: References,
    /// Variables for each workload, which the runner was given for that. Their values are secret.
    pub env: Vec<(String, SecretValue)>,
    /// The folder of the configuration file: what is written there as a relative path is meant from here.
    pub config_dir: Option<std::path::PathBuf>,
    /// Who sees what is said between this and its backend, values left out: `plugin test`. Few have anything to show.
    #[cfg(feature = "plugin-host")]
    pub trace: Option<crate::plugin::host::Trace>,
}

impl Context {
    /// A context with everything in it.
    pub fn new(
        name: SectionName,
        settings: Value,
        data_dir: impl Into<std::path::PathBuf>,
        owner: Owner,
        spool_per_run: u64,
    ) -> Self {
        Self {
            name,
            settings,
            data_dir: data_dir.into(),
            owner,
            spool_per_run,
            spool_total: None,
            references: References::none(),
            env: Vec::new(),
            config_dir: None,
            #[cfg(feature = "plugin-host")]
            trace: None,
        }
    }

    /// Lets references that stand in the section be read.
    #[must_use]
    pub fn with_references(mut self, references: References) -> Self {
        self.references = references;
        self
    }

    /// Gives each workload these variables.
    #[must_use]
    pub fn with_env(mut self, env: Vec<(String, SecretValue)>) -> Self {
        self.env = env;
        self
    }

    /// Says where the configuration file lies.
    #[must_use]
    pub fn with_config_dir(mut self, folder: Option<std::path::PathBuf>) -> Self {
        self.config_dir = folder;
        self
    }

    /// Limits what all spooled logs may take together.
    #[must_use]
    pub fn with_spool_total(mut self, bytes: u64) -> Self {
        self.spool_total = Some(bytes);
        self
    }

    /// Reads the section's settings; an error names the section and the key.
    pub fn settings<T: serde::de::DeserializeOwned>(&self, table: &str) -> Result<T> {
        serde_path_to_error::deserialize(&self.settings).map_err(|error| {
            // Of what is missing or unknown in the section itself the error says the name.
            let is_named = match error.path().iter().count() {
                0 => true,
                1 => error.inner().to_string().starts_with("unknown field"),
                _ => false,
            };
            let wrong = if is_named {
                Error::invalid(self.section(table))
            } else {
                self.wrong(table, &error.path().to_string())
            };
            let inner = error.into_inner();
            // What stands in the wrong place may be what nobody is to see.
            if table == "secrets" {
                wrong.with_source(error::without_value(&inner.to_string()))
            } else {
                wrong.with_source(inner)
            }
        })
    }

    /// The error of a key, for the checks that come after reading.
    pub fn wrong(&self, table: &str, key: &str) -> Error {
        Error::invalid(format!("{}, key `{key}`", self.section(table)))
    }

    fn section(&self, table: &str) -> String {
        format!("section [{table}.{}]", self.name)
    }
}

/// One implementation of a contract: what `kind = "…"` names.
pub struct Kind<T: ?Sized + 'static> {
    /// The name in the configuration, which is also the module's and the feature's.
    pub name: &'static str,
    /// One line for `plugin list` and errors.
    pub summary: &'static str,
    /// Builds one from its section. No I/O beyond what is needed to refuse a wrong setting.
    pub build: fn(&Context) -> Result<Arc<T>>,
    /// The JSON Schema of its section.
    pub schema: fn() -> schemars::Schema,
}

impl<T: ?Sized> Clone for Kind<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Kind<T> {}

impl<T: ?Sized> fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Finds a kind by name, or says what is in this build and the cargo line that adds it.
///
/// `what` is `executor` or `secret store`; `known` are all kinds of the project, in this build or not.
pub fn find<'a, T: ?Sized>(
    kinds: &'a [Kind<T>],
    what: &str,
    name: &str,
    known: &[&str],
) -> Result<&'a Kind<T>> {
    if let Some(kind) = kinds.iter().find(|kind| kind.name == name) {
        return Ok(kind);
    }
    let have = kinds
        .iter()
        .map(|kind| kind.name)
        .collect::<Vec<_>>()
        .join(", ");
    let hint = if known.contains(&name) {
        format!("; build it in with `cargo build -p hybrid-runner --features {name}`")
    } else {
        nearest(
            name,
            kinds
                .iter()
                .map(|kind| kind.name)
                .chain(known.iter().copied()),
        )
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
    };
    Err(Error::invalid(format!(
        "no {what} of kind `{name}` in this build; it has {have}{hint}"
    )))
}

/// The candidate that is nearest to `word`, if one is near enough to be a slip.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| {
            (
                distance(&word.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(
            nearest("dokcer", ["argo", "docker", "local"]),
            Some("docker")
        );
        assert_eq!(nearest("slurm", ["argo", "docker", "local"]), None);
    }

    #[test]
    fn a_wrong_setting_is_told_with_its_section_and_its_key() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            _access: Access,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Access {
            _timeout: crate::unit::Period,
        }
        for (settings, words) in [
            (json!({}), "section [secrets.prod]: missing field `_access`"),
            (
                json!({"_access": {"_timeout": 3}}),
                "section [secrets.prod], key `_access._timeout`: ",
            ),
            (
                json!({"_access": {"_timeuot": "3s"}}),
                "section [secrets.prod], key `_access._timeuot`: unknown field `_timeuot`",
            ),
            (
                json!({"_access": "hunter2, \"expected\" `x`, expected"}),
                "section [secrets.prod], key `_access`: invalid type: string, expected struct Access",
            ),
        ] {
            let context = Context::new(
                "prod".parse().unwrap(),
                settings,
                "/",
                Owner::of("", &"r".parse().unwrap()),
                1,
            );
            let error = context.settings::<Settings>("secrets").unwrap_err();
            assert!(error.report().starts_with(words), "{}", error.report());
        }
    }

    #[test]
    fn an_unknown_kind_tells_what_there_is() {
        const KINDS: &[Kind<dyn fmt::Debug + Send + Sync>] = &[Kind {
            name: "local",
            summary: "",
            build: |_| Err(Error::internal("never built")),
            schema: || schemars::json_schema!({}),
        }];
        let error = find(KINDS, "executor", "argo", &["local", "argo"]).unwrap_err();
        assert!(
            error.message().contains("it has local; build it in with"),
            "{error}"
        );
        let error = find(KINDS, "executor", "locale", &["local"]).unwrap_err();
        assert!(error.message().contains("did you mean `local`?"), "{error}");
    }
}
