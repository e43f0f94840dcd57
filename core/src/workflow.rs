//! The workflow file: what people write and submit (format version 1).

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::id::{AgentId, RunId, SectionName, WorkflowName};
use crate::run::{Limits, Resources, Retries, RunSpec};
use crate::secret::Template;
use crate::unit::Period;

/// The newest format version that this build reads.
pub const VERSION: u32 = 1;

/// A workflow as it stands in a file, or in a request's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Workflow {
    /// The version of this format.
    #[serde(default = "version")]
    pub version: u32,
    /// The workflow's name.
    pub name: WorkflowName,
    /// The executor; absent: the runner's default.
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
    /// Environment; scalars are taken as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Private files: variable → content; the variable gets the path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// The private file at `$WORKFLOW_CONFIG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// The variable that also gets the config's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_env: Option<String>,
    /// From accepted to running.
    #[serde(default = "start_timeout")]
    pub start_timeout: Period,
    /// From running; zero is off.
    #[serde(default)]
    pub timeout: Period,
    /// Without output; zero is off.
    #[serde(default)]
    pub stall_timeout: Period,
    /// Between asking to end and ending by force.
    #[serde(default = "grace")]
    pub grace: Period,
    /// Resources.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When to run by itself; used by `deploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

fn version() -> u32 {
    VERSION
}
fn start_timeout() -> Period {
    Limits::default().start_timeout
}
fn grace() -> Period {
    Limits::default().grace
}

/// When a deployed workflow runs by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Schedule {
    /// Five fields, or `@daily` and the like.
    pub cron: String,
    /// An IANA time zone.
    #[serde(default = "utc")]
    pub timezone: String,
    /// Not before: a date or an instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Whether missed instants are made up for.
    #[serde(default)]
    pub catchup: bool,
    /// Runs of it at the same time.
    #[serde(default = "one")]
    pub max_active_runs: u32,
    /// What happens at that limit.
    #[serde(default)]
    pub at_limit: AtLimit,
    /// Spread of the start.
    #[serde(default)]
    pub jitter: Period,
    /// Deployed, but not running by itself.
    #[serde(default)]
    pub paused: bool,
}

fn utc() -> String {
    "UTC".to_owned()
}
fn one() -> u32 {
    1
}

/// What happens to an instant while `max_active_runs` are active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AtLimit {
    /// It is left out.
    #[default]
    Skip,
    /// It waits.
    Queue,
}

impl Workflow {
    /// Refuses what no runner can run, and a format that is newer than this build.
    pub fn validate(&self) -> Result<()> {
        if self.version == 0 || self.version > VERSION {
            return Err(Error::invalid(format!(
                "`version: {}` is not known: this build reads version {VERSION}",
                self.version
            )));
        }
        self.to_spec(RunId::generate()).validate()
    }

    /// What is odd but allowed: one line each.
    pub fn warnings(&self) -> Vec<String> {
        let slip = |name: &str, text: &str| {
            Template::looks_like_a_slip(text).then(|| {
                format!("`{name}` contains `secret:/` but is no reference; inside a string write `${{secret:/…}}`")
            })
        };
        self.env
            .iter()
            .chain(&self.files)
            .filter_map(|(name, text)| slip(name, text))
            .collect()
    }

    /// The run of this workflow with that id.
    pub fn to_spec(&self, run: RunId) -> RunSpec {
        RunSpec {
            executor: self.executor.clone(),
            image: self.image.clone(),
            command: self.command.clone(),
            args: self.args.clone(),
            workdir: self.workdir.clone(),
            env: self.env.clone(),
            files: self.files.clone(),
            config: self.config.clone(),
            config_env: self.config_env.clone(),
            limits: Limits {
                start_timeout: self.start_timeout,
                timeout: self.timeout,
                stall_timeout: self.stall_timeout,
                grace: self.grace,
            },
            resources: self.resources.clone(),
            retries: self.retries.clone(),
            labels: self.labels.clone(),
            ..RunSpec::new(run, self.name.clone(), [] as [&str; 0])
        }
    }

    /// The run of this workflow with that id on that runner.
    pub fn to_spec_on(
        &self,
        run: RunId,
        runner: &AgentId,
        scheduled_at: Option<Timestamp>,
    ) -> RunSpec {
        RunSpec {
            runner: Some(runner.clone()),
            scheduled_at,
            ..self.to_spec(run)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_comes_back_as_it_was_and_strangers_are_refused() {
        let json = r#"{"name":"a","command":["true"],"env":{"A":"${secret:/b}"}}"#;
        let workflow: Workflow = serde_json::from_str(json).unwrap();
        workflow.validate().unwrap();
        let again: Workflow =
            serde_json::from_str(&serde_json::to_string(&workflow).unwrap()).unwrap();
        assert_eq!(again, workflow);
        assert!(serde_json::from_str::<Workflow>(r#"{"name":"a","comand":["true"]}"#).is_err());
    }

    #[test]
    fn nothing_to_run_and_a_newer_format_are_refused() {
        for wrong in [
            r#"{"name":"a"}"#,
            r#"{"name":"a","command":["x"],"version":2}"#,
            r#"{"name":"a","command":["x"],"env":{"WORKFLOW_NAME":"x"}}"#,
        ] {
            assert!(
                serde_json::from_str::<Workflow>(wrong)
                    .unwrap()
                    .validate()
                    .is_err(),
                "{wrong}"
            );
        }
    }
}
