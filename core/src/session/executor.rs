//! The executor contract over a session: the asking half and the answering half.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Items, Service, Session, unknown_method};
use crate::error::{Error, Result};
use crate::executor::{Capabilities, Executor, Handle, Progress, findings};
use crate::finding::Finding;
use crate::log::{LogChunk, LogCursor};
use crate::run::{RunSpec, Status};
use crate::secret::{SecretValue, Secrets};
use crate::unit::Period;

/// Parameters of `start`.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(super) struct StartParams {
    pub(super) spec: RunSpec,
    /// Values by reference: only between a runner and its plugin, never on the link. Traces leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<std::collections::BTreeMap<String, WireValue>>")]
    pub(super) secrets: Option<Box<RawValue>>,
}

/// A value on the wire between a runner and its plugin.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WireValue {
    /// Valid UTF-8.
    Text(String),
    /// Anything else.
    Base64(String),
}

impl WireValue {
    /// A value that is about to be written to the one who uses it.
    pub(crate) fn of(value: &SecretValue) -> Self {
        match value.expose_text() {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => {
                Self::Base64(base64::engine::general_purpose::STANDARD.encode(value.expose()))
            }
        }
    }

    /// The value; an error that does not quote it.
    pub(crate) fn into_value(self) -> Result<SecretValue> {
        match self {
            Self::Text(text) => Ok(SecretValue::new(text.into_bytes())),
            Self::Base64(encoded) => base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map(SecretValue::new)
                .map_err(|_| Error::invalid("a value is not valid base64")),
        }
    }
}

/// Parameters of `find`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct FindParams {
    pub(super) spec: RunSpec,
}

/// The answer to `find`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Found {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Handle>,
}

/// Parameters that name a run.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct RunParams {
    pub(super) run: Handle,
}

/// Parameters of `logs`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct LogsParams {
    pub(super) run: Handle,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<LogCursor>,
}

/// Parameters of `stop`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct StopParams {
    pub(super) run: Handle,
    pub(super) grace: Period,
}

/// The answer to `list`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Listed {
    pub(super) runs: Vec<Handle>,
}

/// The answer to `examine`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
}

/// No parameters, or nothing to say.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(super) struct Empty {}

/// The one function that writes values to a wire: to a plugin that is about to use them.
fn write_secrets(secrets: &Secrets) -> Result<Option<Box<RawValue>>> {
    if secrets.is_empty() {
        return Ok(None);
    }
    let values: std::collections::BTreeMap<&str, WireValue> = secrets
        .iter()
        .map(|(reference, value)| (reference, WireValue::of(value)))
        .collect();
    serde_json::value::to_raw_value(&values)
        .map(Some)
        .map_err(|_| Error::internal("failed to write the secrets of a start"))
}

fn read_secrets(raw: Option<&RawValue>) -> Result<Secrets> {
    let mut secrets = Secrets::none();
    let Some(raw) = raw else { return Ok(secrets) };
    // The cause is left out: it could quote a value.
    let wrong =
        |()| Error::invalid("`secrets` must map references to {\"text\": …} or {\"base64\": …}");
    let values: std::collections::BTreeMap<String, WireValue> =
        serde_json::from_str(raw.get()).map_err(|_| wrong(()))?;
    for (reference, value) in values {
        secrets.insert(reference, value.into_value().map_err(|_| wrong(()))?);
    }
    Ok(secrets)
}

/// The asking half: an executor that lives behind a session.
#[derive(Debug, Clone)]
pub struct RemoteExecutor {
    session: Session,
    carries_secrets: bool,
}

impl RemoteExecutor {
    /// A runner behind its link: no value ever crosses it.
    pub fn new(session: Session) -> Self {
        Self {
            session,
            carries_secrets: false,
        }
    }

    /// A plugin behind a pipe: it gets the values of the runs that it starts.
    pub fn with_secrets(session: Session) -> Self {
        Self {
            session,
            carries_secrets: true,
        }
    }

    /// What a backend with names of its own made of this run, by the mark that it carries.
    pub async fn find(&self, spec: &RunSpec) -> Result<Option<Handle>> {
        let params = FindParams { spec: spec.clone() };
        let found: Found = self.session.call("find", &params).await?;
        Ok(found.run)
    }

    /// What the doctor finds, as the other side tells it: if it is one that answers `examine`.
    pub async fn findings(&self) -> Result<Vec<Finding>> {
        let examined: Examined = self.session.call("examine", &Empty {}).await?;
        Ok(examined.findings)
    }

    /// The session below.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Executor for RemoteExecutor {
    async fn examine(&self) -> Vec<Finding> {
        findings(self.check().await, self.capabilities().await)
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.session.call("capabilities", &Empty {}).await
    }

    async fn check(&self) -> Result<()> {
        self.session
            .call("check", &Empty {})
            .await
            .map(|Empty {}| ())
    }

    async fn preview(&self, _: &RunSpec, _: &Secrets) -> Result<Vec<serde_json::Value>> {
        Ok(Vec::new())
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        if !self.carries_secrets && !secrets.is_empty() {
            return Err(Error::internal("values of secrets never cross the link"));
        }
        let params = StartParams {
            spec: spec.clone(),
            secrets: write_secrets(secrets)?,
        };
        self.session.call_with("start", &params, progress).await
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        self.session
            .subscribe("watch", RunParams { run: run.clone() })
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        self.session.subscribe(
            "logs",
            LogsParams {
                run: run.clone(),
                from,
            },
        )
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        let params = StopParams {
            run: run.clone(),
            grace: grace.into(),
        };
        self.session.call("stop", &params).await.map(|Empty {}| ())
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        self.session
            .call("remove", &RunParams { run: run.clone() })
            .await
            .map(|Empty {}| ())
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        self.session
            .call("list", &Empty {})
            .await
            .map(|listed: Listed| listed.runs)
    }

    /// Closing the session is for whoever opened it.
    async fn close(&self) {}
}

/// The answering half: serves an executor to the other side.
#[derive(Debug, Clone)]
pub struct ExecutorService {
    executor: Arc<dyn Executor>,
}

impl ExecutorService {
    /// Serves this executor.
    pub fn new(executor: Arc<dyn Executor>) -> Self {
        Self { executor }
    }
}

fn params<T: DeserializeOwned>(method: &str, raw: &RawValue) -> Result<T> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let error = if method == "start" {
            redact(&error)
        } else {
            error.to_string()
        };
        Error::invalid(format!("the parameters of `{method}` do not fit: {error}"))
    })
}

/// Where and what kind, without the words of a message that may hold a value.
fn redact(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.contains("secrets") {
        format!("at column {}", error.column())
    } else {
        text
    }
}

/// Keeps a list within one message: a handle works without its state, so the longest states are left out.
fn fit(mut runs: Vec<Handle>) -> Vec<Handle> {
    let length = |value: &serde_json::Value| value.to_string().len();
    // The id and what stands around it take less than 100 bytes; the message around all of it less than 1 KiB.
    let room = super::MAX_MESSAGE - 1024;
    let mut total: usize = runs.iter().map(|run| length(&run.state) + 100).sum();
    if total <= room {
        return runs;
    }
    let mut longest: Vec<usize> = (0..runs.len()).collect();
    longest.sort_by_key(|&at| std::cmp::Reverse(length(&runs[at].state)));
    for at in longest {
        if total <= room {
            break;
        }
        total -= length(&runs[at].state);
        runs[at] = Handle::of(runs[at].run);
    }
    runs
}

fn answer(value: &impl Serialize) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Error::internal("failed to write an answer").with_source(error))
}

#[async_trait]
impl Service for ExecutorService {
    async fn call(
        &self,
        method: &str,
        raw: &RawValue,
        progress: &Progress,
    ) -> Result<Box<RawValue>> {
        match method {
            "capabilities" => answer(&self.executor.capabilities().await?),
            "check" => {
                self.executor.check().await?;
                answer(&Empty {})
            }
            "examine" => answer(&Examined {
                findings: self.executor.examine().await,
            }),
            "start" => {
                let start: StartParams = params(method, raw)?;
                let secrets = read_secrets(start.secrets.as_deref())?;
                answer(&self.executor.start(&start.spec, &secrets, progress).await?)
            }
            "stop" => {
                let stop: StopParams = params(method, raw)?;
                self.executor.stop(&stop.run, stop.grace.get()).await?;
                answer(&Empty {})
            }
            "remove" => {
                let remove: RunParams = params(method, raw)?;
                self.executor.remove(&remove.run).await?;
                answer(&Empty {})
            }
            "list" => answer(&Listed {
                runs: fit(self.executor.list().await?),
            }),
            _ => Err(unknown_method(method)),
        }
    }

    fn open(&self, method: &str, raw: &RawValue) -> Option<Result<Items>> {
        fn items<T: Serialize + 'static>(stream: BoxStream<'static, Result<T>>) -> Items {
            stream.map(|item| answer(&item?)).boxed()
        }
        match method {
            "watch" => Some(
                params(method, raw).map(|watch: RunParams| items(self.executor.watch(&watch.run))),
            ),
            "logs" => Some(
                params(method, raw)
                    .map(|logs: LogsParams| items(self.executor.logs(&logs.run, logs.from))),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;

    #[test]
    fn a_list_that_is_too_long_for_a_message_leaves_out_the_longest_states() {
        let handle = |length: usize| {
            Handle::with_state(RunId::generate(), 1, serde_json::json!("x".repeat(length)))
        };
        let mut runs: Vec<Handle> = (0..20).map(|_| handle(10)).collect();
        runs.extend((0..3).map(|_| handle(500_000)));
        let fitted = fit(runs.clone());
        let ids = |runs: &[Handle]| runs.iter().map(|run| run.run).collect::<Vec<_>>();
        assert_eq!(ids(&fitted), ids(&runs));
        assert_eq!(fitted[..20], runs[..20]);
        assert!(serde_json::to_string(&fitted).unwrap().len() < super::super::MAX_MESSAGE);
        assert_eq!(fitted.iter().filter(|run| run.state.is_null()).count(), 1);
    }
}
