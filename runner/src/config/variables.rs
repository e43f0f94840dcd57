//! Variables that others gave us: the seed's five and those of the existing Helm chart.
//!
//! One table says what each becomes. `HYBRID_RUNNER__SECTION__KEY` is ours and stands in
//! [`super::layer`].

use secrecy::SecretString;

use hybrid_runner_core::kind::nearest;
use hybrid_runner_core::{Error, Result};

/// A variable that a chart, a document or a script already sets.
#[derive(Debug)]
#[non_exhaustive]
pub struct Variable {
    /// Its present name.
    pub name: &'static str,
    /// Older names of the same; the present one wins.
    pub aliases: &'static [&'static str],
    /// What it becomes.
    pub becomes: Becomes,
    /// Whether its value may not be shown.
    pub secret: bool,
    /// One line for `config env`.
    pub about: &'static str,
}

/// What a variable becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Becomes {
    /// A key of the configuration.
    Key(&'static str),
    /// The executor and its section.
    Executor,
    /// Variables for each workload, `[K:V, K:V]`.
    ExtraEnvs,
    /// A setting of the executor that the variables select.
    Workload,
    /// Nothing: the reason is in `about`.
    Nothing,
}

use Becomes::{Executor, ExtraEnvs, Key, Nothing, Workload};

const fn variable(name: &'static str, becomes: Becomes, about: &'static str) -> Variable {
    Variable {
        name,
        aliases: &[],
        becomes,
        secret: false,
        about,
    }
}

const fn renamed(
    name: &'static str,
    aliases: &'static [&'static str],
    becomes: Becomes,
    about: &'static str,
) -> Variable {
    Variable {
        aliases,
        ..variable(name, becomes, about)
    }
}

const fn secret(name: &'static str, becomes: Becomes, about: &'static str) -> Variable {
    Variable {
        secret: true,
        ..variable(name, becomes, about)
    }
}

/// Every variable that we know, the seed's five first.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    variable("AGENT_ID", Key("runner.id"), "the runner's name at its control plane"),
    secret("AUTH_TOKEN", Key("link.token"), "the token for the control plane"),
    variable("SERVER_URL", Key("link.url"), "the control plane; without a path: /api/v1/link"),
    renamed("INGESTION_IMAGE", &["ARGO_INGESTION_IMAGE"], Workload, "the image of workloads that name none"),
    Variable { aliases: &["ARGO_EXTRA_ENVS_NOOP", "ARGO_EXTRA_ENVS"], ..secret("INGESTION_EXTRA_ENVS", ExtraEnvs, "variables for each workload, `[K:V, K:V]`") },
    variable("EXECUTOR_TYPE", Executor, "`argo`, `simpleK8s`, or a kind of executor; any case"),
    variable("METRICS_SERVER_PORT", Key("runner.listen"), "the port of /metrics, on all addresses"),
    variable("METRICS_SERVER_PATH", Nothing, "the path is always /metrics"),
    variable("SERVER_HOST_API_URL", Workload, "the API that workloads report to"),
    variable("SECRETS_MANAGER", Workload, "the secret store that workloads use"),
    variable("RECONNECT_DELAY_SECONDS", Nothing, "the delay grows from 0.2 s to 30 s with jitter"),
    variable("DYNAMIC_INGESTION_VERSION_ENABLED", Nothing, "the workflow names its image"),
    variable("ARGO_PIPELINE_TYPE_CONFIGS", Workload, "settings by pipeline type, JSON"),
    variable("SIMPLEK8S_PIPELINE_TYPE_CONFIGS", Workload, "settings by pipeline type, JSON"),
    renamed("INGESTION_NAMESPACE", &["ARGO_NAMESPACE", "SIMPLEK8S_NAMESPACE"], Workload, "the namespace of workloads"),
    renamed("INGESTION_DISABLE_VERSION_VALIDATION", &["ARGO_DISABLE_VERSION_VALIDATION"], Nothing, "versions are reported, never compared here"),
    renamed("INGESTION_SERVICE_ACCOUNT_NAME", &["ARGO_WORKFLOW_EXECUTOR_SERVICE_ACCOUNT_NAME"], Workload, "the service account of workloads"),
    renamed("INGESTION_IMAGE_PULL_SECRETS", &["ARGO_IMAGE_PULL_SECRETS"], Workload, "pull secrets, separated by commas"),
    renamed("INGESTION_AUTOMOUNT_SA_TOKEN", &["ARGO_AUTOMOUNT_SA_TOKEN"], Workload, "whether workloads get the account's token"),
    renamed("INGESTION_CUSTOMER_TOLERATION", &["ARGO_WORKFLOW_CUSTOMER_TOLERATION"], Workload, "a toleration for workloads"),
    renamed("INGESTION_CPU_LIMIT", &["ARGO_WORKFLOW_CPU_LIMIT"], Workload, "resources of workloads"),
    renamed("INGESTION_CPU_REQUEST", &["ARGO_WORKFLOW_CPU_REQUEST"], Workload, "resources of workloads"),
    renamed("INGESTION_MEMORY_LIMIT", &["ARGO_WORKFLOW_MEMORY_LIMIT"], Workload, "resources of workloads"),
    renamed("INGESTION_MEMORY_REQUEST", &["ARGO_WORKFLOW_MEMORY_REQUEST"], Workload, "resources of workloads"),
    renamed("INGESTION_AUTOMATION_WORKFLOW_CPU_LIMIT", &["ARGO_AUTOMATION_WORKFLOW_CPU_LIMIT"], Workload, "resources of automations"),
    renamed("INGESTION_AUTOMATION_WORKFLOW_CPU_REQUEST", &["ARGO_AUTOMATION_WORKFLOW_CPU_REQUEST"], Workload, "resources of automations"),
    renamed("INGESTION_AUTOMATION_WORKFLOW_MEMORY_LIMIT", &["ARGO_AUTOMATION_WORKFLOW_MEMORY_LIMIT"], Workload, "resources of automations"),
    renamed("INGESTION_AUTOMATION_WORKFLOW_MEMORY_REQUEST", &["ARGO_AUTOMATION_WORKFLOW_MEMORY_REQUEST"], Workload, "resources of automations"),
    variable("ARGO_INGESTION_CONTAINER_SPEC_FILE_PATH", Workload, "a file of container settings"),
    variable("ARGO_INGESTION_WORKFLOW_SPEC_FILE_PATH", Workload, "a file of workflow settings"),
    variable("PIPELINE_SERVICE_CLIENT_ENDPOINT", Nothing, "Workflows go through the Kubernetes API, Argo's own server is not needed"),
    secret("ARGO_TOKEN", Workload, "the token for the Kubernetes API, instead of the pod's own"),
    variable("ARGO_SECONDS_AFTER_COMPLETION_TTL", Workload, "how long Argo keeps an ended workflow"),
    variable("ARGO_SERVER_CERTIFICATE_PATH", Nothing, "Argo's own server is not needed"),
    variable("ARGO_TEST_CONNECTION_BACKOFF_TIME", Nothing, "automations are watched, not polled"),
];

/// The seed's variables: set by hand as well as by the chart, so that they alone select nothing.
const SEED: &[&str] = &[
    "AGENT_ID",
    "AUTH_TOKEN",
    "SERVER_URL",
    "METRICS_SERVER_PORT",
    "METRICS_SERVER_PATH",
];

impl Variable {
    /// The name under which it is set, present name first, and its value; an empty one counts as not set.
    pub(crate) fn find<'a>(
        &self,
        environment: &'a super::Environment,
    ) -> Option<(&'static str, &'a str)> {
        std::iter::once(self.name)
            .chain(self.aliases.iter().copied())
            .find_map(|name| {
                let value = environment.get(name)?;
                (!value.is_empty()).then_some((name, value.as_str()))
            })
    }

    /// Whether it tells that the existing chart, or a workload of it, is what we run under.
    pub(crate) fn is_of_the_chart(&self) -> bool {
        !SEED.contains(&self.name) && self.becomes != Executor
    }
}

/// The kind of executor that `EXECUTOR_TYPE` names.
pub(crate) fn executor_kind(value: &str) -> Result<&'static str> {
    let wanted = value.trim().to_lowercase();
    EXECUTOR_TYPES
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, kind)| *kind)
        .ok_or_else(|| {
            let hint = nearest(&wanted, EXECUTOR_TYPES.iter().map(|(name, _)| *name))
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Error::invalid(format!(
                "`{}` is no executor; known are {}{hint}",
                value.trim(),
                EXECUTOR_TYPES
                    .iter()
                    .map(|(name, _)| *name)
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
        })
}

const EXECUTOR_TYPES: &[(&str, &str)] = &[
    ("argo", "argo"),
    ("simplek8s", "kubernetes"),
    ("kubernetes", "kubernetes"),
    ("docker", "docker"),
    ("local", "local"),
];

/// Reads `[K:V, K:V]`, with or without the brackets.
///
/// A value may contain `:`, and `,` too as long as what follows it does not look like `NAME:`, where a name with a `-` or `.` has a
/// blank before it. No error holds a value.
pub(crate) fn extra_envs(text: &str) -> Result<Vec<(String, SecretString)>> {
    let text = text.trim();
    let inside = match text.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').ok_or_else(|| {
            Error::invalid(
                "the closing `]` is missing; the whole is written `[NAME:VALUE, NAME:VALUE]`",
            )
        })?,
        None => text.strip_suffix(']').unwrap_or(text),
    };
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (at, piece) in inside.split(',').enumerate() {
        let named = piece
            .split_once(':')
            .map(|(name, value)| (name.trim(), value));
        match (named, pairs.last_mut()) {
            (Some((name, value)), _) if is_name(name, at == 0 || piece.starts_with(' ')) => {
                pairs.push((name.to_owned(), value.trim().to_owned()));
            }
            (_, Some((_, value))) => {
                value.push(',');
                value.push_str(piece.trim_end());
            }
            (_, None) if piece.trim().is_empty() => {}
            (_, None) => {
                return Err(Error::invalid(format!(
                    "entry {} is not `NAME:VALUE`; the whole is written `[NAME:VALUE, NAME:VALUE]`",
                    at + 1
                )));
            }
        }
    }
    Ok(pairs
        .into_iter()
        .map(|(name, value)| (name, SecretString::from(value)))
        .collect())
}

/// Whether this names a variable: one of a shell, or where it stands apart one that Kubernetes takes, too.
fn is_name(text: &str, stands_apart: bool) -> bool {
    let more = if stands_apart { "_-." } else { "_" };
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        extra_envs(text)
            .unwrap()
            .into_iter()
            .map(|(name, value)| (name, value.expose_secret().to_owned()))
            .collect()
    }

    #[test]
    fn extra_variables_keep_colons_and_commas_in_their_values() {
        for (text, expected) in [
            ("", &[][..]),
            ("[]", &[]),
            ("[A:1]", &[("A", "1")]),
            ("[A:1, B:x:y]", &[("A", "1"), ("B", "x:y")]),
            ("[ARN:arn:aws:x,B:]", &[("ARN", "arn:aws:x"), ("B", "")]),
            ("[HOSTS:a,b, C:d]", &[("HOSTS", "a,b"), ("C", "d")]),
            ("A:1,B:2", &[("A", "1"), ("B", "2")]),
            ("[A:1, my-key:x.y]", &[("A", "1"), ("my-key", "x.y")]),
            ("[A:h-1:9092,h-2:9092]", &[("A", "h-1:9092,h-2:9092")]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect();
            assert_eq!(pairs(text), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_entry_is_named_by_its_place_and_never_shown() {
        assert!(extra_envs("[A:1, B:2").is_err());
        let error = extra_envs("[hunter2]").unwrap_err();
        assert!(error.message().contains("entry 1"), "{error}");
        assert!(!error.message().contains("hunter2"), "{error}");
    }

    #[test]
    fn executors_are_named_in_any_case() {
        assert_eq!(executor_kind("simpleK8s").unwrap(), "kubernetes");
        assert_eq!(executor_kind("ARGO").unwrap(), "argo");
        assert!(
            executor_kind("dokcer")
                .unwrap_err()
                .message()
                .contains("did you mean `docker`?")
        );
    }

    #[test]
    fn no_variable_stands_in_the_table_twice() {
        let mut names: Vec<_> = VARIABLES
            .iter()
            .flat_map(|variable| {
                std::iter::once(variable.name).chain(variable.aliases.iter().copied())
            })
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
