//! What is to be done. The same type at every hop; holds references, never values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::FailureClass;
use crate::error::{Error, Result};
use crate::id::{AgentId, RunId, SectionName, WorkflowName, shorten};
use crate::incarnation::Incarnation;
use crate::secret::{Reference, Template, references_in};
use crate::unit::{ByteSize, Cpu, Period};

/// One run, or one attempt of it, as it travels from hop to hop. Secret references only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct RunSpec {
    /// Which run; for an executor: which attempt.
    pub run: RunId,
    /// The workflow's name.
    pub name: WorkflowName,
    /// The runner that is to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<AgentId>,
    /// The executor, by its name in the runner's configuration; absent: the runner's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<SectionName>,
    /// The image, for executors that use one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Replaces the image's ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's CMD; no shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// The working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Environment; values may hold references.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Private files: variable → content (usually a reference); the variable gets the file's path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// The private file at `$WORKFLOW_CONFIG`: JSON, or a string as it is. References inside are resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// The variable that also gets the config's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_env: Option<ConfigEnv>,
    /// Time limits.
    #[serde(flatten)]
    pub limits: Limits,
    /// Resources.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// When to try again. Never in the spec of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The instant that a schedule meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub scheduled_at: Option<Timestamp>,
    /// The life of the runner under which its server first sent it; repeated with each delivery. Never in the spec of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sent: Option<Incarnation>,
    /// The highest attempt that was under way, as far as the server knows: a runner that has lost its journal and finds less than that
    /// does not start it again. Never in the spec of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<u32>,
}

/// The name of an environment variable.
pub type ConfigEnv = String;

impl RunSpec {
    /// The least: a run of a command.
    pub fn new(
        run: RunId,
        name: WorkflowName,
        command: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            run,
            name,
            runner: None,
            executor: None,
            image: None,
            command: Some(command.into_iter().map(Into::into).collect()),
            args: None,
            workdir: None,
            env: BTreeMap::new(),
            files: BTreeMap::new(),
            config: None,
            config_env: None,
            limits: Limits::default(),
            resources: Resources::default(),
            retries: None,
            labels: BTreeMap::new(),
            scheduled_at: None,
            first_sent: None,
            reached: None,
        }
    }

    /// The spec of the `n`-th attempt: its id, and nothing that only the runner needs.
    #[must_use]
    pub fn attempt(&self, n: u32) -> Self {
        Self {
            run: self.run.attempt(n),
            retries: None,
            first_sent: None,
            reached: None,
            ..self.clone()
        }
    }

    /// Each reference in `env`, `files` and `config`, once.
    pub fn references(&self) -> Result<Vec<Reference>> {
        let mut found: Vec<Reference> = Vec::new();
        for (name, text) in self.env.iter().chain(&self.files) {
            let template = Template::parse(text).map_err(|error| in_field(name, error))?;
            found.extend(template.references().cloned());
        }
        if let Some(config) = &self.config {
            found.extend(references_in(config).map_err(|error| in_field("config", error))?);
        }
        found.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        found.dedup();
        Ok(found)
    }

    /// Refuses what no backend can run: no command and no image, impossible names of variables; and references where
    /// they would not be resolved.
    pub fn validate(&self) -> Result<()> {
        if self
            .image
            .as_ref()
            .is_some_and(|image| image.trim().is_empty())
        {
            return Err(Error::invalid(
                "`image` is empty: name one, or leave the line out for the image of the executor",
            ));
        }
        if self.image.is_none() && self.command.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid(
                "nothing to run: give `command`, or an `image` that has one",
            ));
        }
        for name in self
            .env
            .keys()
            .chain(self.files.keys())
            .chain(&self.config_env)
        {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Error::invalid(format!(
                    "`{name}` cannot be the name of a variable"
                )));
            }
            if name.starts_with("WORKFLOW_") {
                return Err(Error::invalid(format!(
                    "`{name}` is set by the runner; choose a name without `WORKFLOW_`"
                )));
            }
        }
        let texts = self
            .command
            .iter()
            .flatten()
            .chain(self.args.iter().flatten())
            .chain(self.env.values());
        for text in texts.chain(&self.workdir) {
            if text.contains('\0') {
                return Err(Error::invalid(
                    "a NUL character cannot stand in command, args, workdir or env",
                ));
            }
        }
        self.keep_references_where_they_are_resolved()?;
        self.references().map(drop)
    }

    /// What is not resolved would reach the workload as it is written, in place of the value.
    fn keep_references_where_they_are_resolved(&self) -> Result<()> {
        let command = self.command.iter().flatten().map(|text| ("command", text));
        let args = self.args.iter().flatten().map(|text| ("args", text));
        let image = self.image.iter().map(|text| ("image", text));
        let workdir = self.workdir.iter().map(|text| ("workdir", text));
        let labels = self.labels.values().map(|text| ("labels", text));
        let hidden = command
            .chain(args)
            .chain(image)
            .chain(workdir)
            .chain(labels)
            .find_map(|(field, text)| Some((field, Template::hidden_in(text)?)));
        hidden.map_or(Ok(()), |(field, reference)| {
            Err(Error::invalid(format!(
                "`{field}` has the secret reference `{}`; references belong into `env`, `config` or `files`: what stands here can be seen by others",
                shorten(reference)
            )))
        })
    }
}

fn in_field(name: &str, error: Error) -> Error {
    Error::invalid(format!("in `{name}`")).with_source(error)
}

/// Time limits of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// From accepted to running: queue, pull, pending.
    pub start_timeout: Period,
    /// From running; zero is off. Then stop with `grace`, class `timeout`.
    pub timeout: Period,
    /// Without output; zero is off.
    pub stall_timeout: Period,
    /// Between asking to end and ending by force.
    pub grace: Period,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start_timeout: Period::seconds(15 * 60),
            timeout: Period::ZERO,
            stall_timeout: Period::ZERO,
            grace: Period::seconds(30),
        }
    }
}

/// What a run asks for and may use at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// What it asks for.
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub requests: Amounts,
    /// What it may use at most.
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub limits: Amounts,
}

impl Resources {
    /// Whether nothing is asked for and nothing limited.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

/// Amounts of processor and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Amounts {
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl Amounts {
    /// Whether no amount is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When to try again: the same run, the next attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// How many times after the first.
    pub limit: u32,
    /// How long to wait before each.
    pub delay: Period,
    /// After which failures; empty: those that may pass.
    pub on: FailureFilter,
}

/// Classes of failure.
pub type FailureFilter = Vec<FailureClass>;

impl Default for Retries {
    fn default() -> Self {
        Self {
            limit: 0,
            delay: Period::seconds(300),
            on: Vec::new(),
        }
    }
}

impl Retries {
    /// Whether a failure of this class, in this attempt (from 1), calls for another.
    pub fn wants_another(&self, class: FailureClass, attempt: u32) -> bool {
        attempt <= self.limit
            && if self.on.is_empty() {
                class.may_pass()
            } else {
                self.on.contains(&class)
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RunSpec {
        RunSpec::new(RunId::generate(), "a".parse().unwrap(), ["true"])
    }

    #[test]
    fn a_reference_in_an_argument_is_refused_with_its_field_and_where_it_belongs() {
        for text in [
            "secret:/prod/pw",
            "${secret:/prod/pw}",
            "--password=${secret:vault:/prod/pw#key}",
            "secret:vault:/prod/pw",
            "${secret:/never-closed",
            "secret:arn:aws:secretsmanager:eu-west-1:1:secret:pw",
        ] {
            let mut in_args = spec();
            in_args.args = Some(vec!["-p".to_owned(), text.to_owned()]);
            let refusal = in_args.validate().unwrap_err().report();
            assert!(
                refusal.contains("`args` has") && refusal.contains("`env`"),
                "{refusal}"
            );
            let mut in_command = spec();
            in_command.command = Some(vec![text.to_owned()]);
            let refusal = in_command.validate().unwrap_err().report();
            assert!(refusal.contains("`command` has"), "{refusal}");
        }
    }

    #[test]
    fn what_a_shell_makes_of_a_variable_named_secret_is_no_reference() {
        for text in [
            "echo ${secret:-none} ${secret:0:4} ${secret:?missing}",
            "kubectl create secret:x",
            "secret:plain",
            "secret://host",
            "curl http://secret:/x",
        ] {
            let mut spec = spec();
            spec.args = Some(vec![text.to_owned()]);
            spec.validate()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn an_empty_image_is_refused_with_or_without_a_command() {
        for image in ["", "  "] {
            let mut spec = spec();
            spec.image = Some(image.to_owned());
            assert!(
                spec.validate()
                    .unwrap_err()
                    .message()
                    .contains("`image` is empty")
            );
        }
    }
}
