//! `resolve = "workload"`: the workload reads its secrets itself, as OpenMetadata's ingestion containers do.
//!
//! The runner hands over the store's settings, in the variables that those containers read, and each reference as the
//! id that the store knows; never a value, and never a credential.
//!
//! | store | provider | variables |
//! |---|---|---|
//! | `aws` | `aws`, `aws-ssm` | `AWS_DEFAULT_REGION` |
//! | `azure` | `azure-kv` | `AZURE_KEY_VAULT_NAME`, `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` |
//! | `gcp` | `gcp` | `GOOGLE_CLOUD_PROJECT` |
//! | `kubernetes` | `kubernetes` | `KUBERNETES_NAMESPACE`, `KUBERNETES_IN_CLUSTER` or `KUBERNETES_KUBECONFIG_PATH` |
//! | `vault` | `openbao` | `OPENBAO_ADDRESS`, `_MOUNT`, `_NAMESPACE`, `_AUTH_METHOD`, `_AUTH_PATH`, `_ROLE_ID`, `_CA_CERT_PATH` |

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::{Reference, Template};
use serde_json::{Map, Value};

use crate::names;

/// Where a configuration of OpenMetadata says which store it reads: of a pipeline, of an automation, of an application.
const SERVERS: [&str; 3] = [
    "/workflowConfig/openMetadataServerConfig",
    "/openMetadataServerConnection",
    "/openMetadataServerConfig",
];

/// What a workload needs to read a store itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    store: Option<SectionName>,
    provider: String,
    variables: Vec<(String, String)>,
}

impl Workload {
    /// The store of a section, built or not: none of it is needed here but its settings.
    pub fn of_section(
        name: &SectionName,
        kind: &str,
        settings: &Map<String, Value>,
    ) -> Result<Self> {
        let section = Section { name, settings };
        let (provider, variables) = match kind {
            "aws" => section.aws()?,
            "azure" => section.azure()?,
            "gcp" => section.gcp()?,
            "kubernetes" => section.kubernetes(),
            "vault" => section.vault()?,
            _ => {
                return Err(section.wrong(&format!(
                    "a workload cannot read a store of kind `{kind}` itself; it can read aws, azure, gcp, kubernetes and vault, or set `resolve = \"runner\"`"
                )));
            }
        };
        let named = |(key, value): (&str, String)| (key.to_owned(), value);
        Ok(Self {
            store: Some(name.clone()),
            provider: provider.to_owned(),
            variables: variables.into_iter().map(named).collect(),
        })
    }

    /// The store that the existing chart names in `SECRETS_MANAGER`; whoever names it there gives its variables too.
    pub fn of_chart(provider: &str, namespace: Option<&str>) -> Self {
        let mut variables = Vec::new();
        if provider == "kubernetes" {
            variables.push(("KUBERNETES_IN_CLUSTER".to_owned(), "true".to_owned()));
            if let Some(namespace) = namespace {
                variables.push(("KUBERNETES_NAMESPACE".to_owned(), namespace.to_owned()));
            }
        }
        Self {
            store: None,
            provider: provider.to_owned(),
            variables,
        }
    }

    /// Makes a spec ready: variables, provider and loader in OpenMetadata's configuration, references as the store's own ids.
    ///
    /// Refuses what such a workload cannot read: it knows one store, whole values and no versions, and would take the reference itself
    /// for the password otherwise.
    pub fn prepare(&self, spec: &mut RunSpec) -> Result<()> {
        for (name, text) in &spec.files {
            if Template::parse(text)?.references().next().is_some() {
                return Err(Error::invalid(format!(
                    "`files.{name}` cannot be resolved by the workload; set `resolve = \"runner\"`"
                )));
            }
        }
        for text in spec.env.values_mut() {
            self.own(text)?;
        }
        if let Some(config) = &mut spec.config {
            self.all(config)?;
            for server in SERVERS {
                if let Some(Value::Object(server)) = config.pointer_mut(server) {
                    server.insert(
                        "secretsManagerProvider".to_owned(),
                        self.provider.as_str().into(),
                    );
                    server.insert("secretsManagerLoader".to_owned(), "env".into());
                }
            }
        }
        for (name, value) in &self.variables {
            spec.env
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        Ok(())
    }

    fn all(&self, value: &mut Value) -> Result<()> {
        match value {
            Value::String(text) => self.own(text),
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.all(item)),
            Value::Object(members) => members.values_mut().try_for_each(|member| self.all(member)),
            _ => Ok(()),
        }
    }

    /// A reference as the store's own id.
    fn own(&self, text: &mut String) -> Result<()> {
        let whole = text.starts_with("secret:");
        for reference in Template::parse(text)?.references() {
            let why = self.unreadable(reference, whole);
            if let Some(why) = why {
                return Err(Error::invalid(format!(
                    "`{reference}` cannot be resolved by the workload: {why}; set `resolve = \"runner\"`, or write it otherwise"
                )));
            }
        }
        if whole {
            let reference: Reference = text.parse()?;
            *text = format!("secret:{}", self.id(&reference.name.name));
        }
        Ok(())
    }

    fn unreadable(&self, reference: &Reference, whole: bool) -> Option<&'static str> {
        let name = &reference.name;
        if !whole {
            return Some("it reads whole values, not a part of a text");
        }
        if reference.store.is_some() && reference.store != self.store {
            return Some("it knows one store, the default one");
        }
        if reference.key.is_some() {
            return Some("it knows no `#key`");
        }
        (name.version.is_some() || name.stage.is_some() || reference.default.is_some())
            .then_some("it knows no `?version=`, `?stage=` or `?default=`")
    }

    /// The id that the store knows.
    fn id(&self, name: &str) -> String {
        let relative = name.strip_prefix('/').unwrap_or(name);
        match self.provider.trim_start_matches("managed-") {
            "azure-kv" => names::azure(relative),
            "gcp" => names::gcp(relative),
            "kubernetes" => names::kubernetes(name),
            "openbao" => relative.to_owned(),
            _ if name.starts_with('/') => names::with_slashes(name, "_+=.@-"),
            _ => name.to_owned(),
        }
    }
}

/// A section, as it was configured.
struct Section<'a> {
    name: &'a SectionName,
    settings: &'a Map<String, Value>,
}

type Given = (&'static str, Vec<(&'static str, String)>);

impl Section<'_> {
    fn wrong(&self, what: &str) -> Error {
        Error::invalid(format!("section [secrets.{}]: {what}", self.name))
    }

    fn text(&self, key: &str) -> Option<String> {
        self.settings.get(key)?.as_str().map(str::to_owned)
    }

    fn needed(&self, key: &str) -> Result<String> {
        self.text(key).ok_or_else(|| {
            self.wrong(&format!(
                "`{key}` is missing: with `resolve = \"workload\"` it is handed to the workload"
            ))
        })
    }

    /// The settings that are there, each under its variable.
    fn optional(&self, pairs: &[(&str, &'static str)]) -> Vec<(&'static str, String)> {
        let given = |(key, variable): &(&str, &'static str)| Some((*variable, self.text(key)?));
        pairs.iter().filter_map(given).collect()
    }

    fn aws(&self) -> Result<Given> {
        let ssm = self.text("service").as_deref() == Some("ssm");
        let provider = if ssm { "aws-ssm" } else { "aws" };
        Ok((
            provider,
            vec![("AWS_DEFAULT_REGION", self.needed("region")?)],
        ))
    }

    fn azure(&self) -> Result<Given> {
        let host = |url: String| {
            let (_, rest) = url.split_once("://")?;
            rest.split(['.', ':', '/']).next().map(str::to_owned)
        };
        let vault = self
            .text("vault")
            .or_else(|| self.text("endpoint").and_then(host));
        let vault = vault.map_or_else(|| self.needed("vault"), Ok)?;
        let mut variables = self.optional(&[
            ("tenant", "AZURE_TENANT_ID"),
            ("client_id", "AZURE_CLIENT_ID"),
        ]);
        variables.push(("AZURE_KEY_VAULT_NAME", vault));
        Ok(("azure-kv", variables))
    }

    fn gcp(&self) -> Result<Given> {
        Ok((
            "gcp",
            vec![("GOOGLE_CLOUD_PROJECT", self.needed("project")?)],
        ))
    }

    fn kubernetes(&self) -> Given {
        let mut variables = self.optional(&[
            ("namespace", "KUBERNETES_NAMESPACE"),
            ("kubeconfig", "KUBERNETES_KUBECONFIG_PATH"),
        ]);
        // Its own default is `false`, even in a pod.
        let in_cluster = !self.settings.contains_key("kubeconfig");
        variables.push(("KUBERNETES_IN_CLUSTER", in_cluster.to_string()));
        ("kubernetes", variables)
    }

    fn vault(&self) -> Result<Given> {
        let mut variables = self.optional(&[
            ("namespace", "OPENBAO_NAMESPACE"),
            ("ca", "OPENBAO_CA_CERT_PATH"),
        ]);
        variables.push(("OPENBAO_ADDRESS", self.needed("address")?));
        variables.push((
            "OPENBAO_MOUNT",
            self.text("mount").unwrap_or_else(|| "secret".to_owned()),
        ));
        let auth = self.settings.get("auth").and_then(Value::as_object);
        let of = |key: &str| {
            auth.and_then(|auth| auth.get(key)?.as_str())
                .map(str::to_owned)
        };
        let method = of("method").unwrap_or_else(|| "token".to_owned());
        if !matches!(method.as_str(), "token" | "approle") {
            return Err(self.wrong(&format!(
                "a workload cannot log in by `{method}`; it can by `token` and `approle`"
            )));
        }
        // The token and the secret id are values: the workload's own place has them.
        variables.extend(of("role_id").map(|id| ("OPENBAO_ROLE_ID", id)));
        variables.extend(of("mount").map(|path| ("OPENBAO_AUTH_PATH", path)));
        variables.push(("OPENBAO_AUTH_METHOD", method));
        Ok(("openbao", variables))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_runner_core::RunId;
    use serde_json::json;

    fn workload(kind: &str, settings: Value) -> Result<Workload> {
        let Value::Object(settings) = settings else {
            panic!("a section is a table")
        };
        Workload::of_section(&"prod".parse().unwrap(), kind, &settings)
    }

    fn spec(config: Value) -> RunSpec {
        let mut spec = RunSpec::new(RunId::generate().attempt(1), "w".parse().unwrap(), ["run"]);
        spec.config = Some(config);
        spec
    }

    fn pipeline() -> Value {
        json!({
            "source": {"password": "secret:/prod/orders-db/pass"},
            "workflowConfig": {"openMetadataServerConfig": {"secretsManagerProvider": "db", "hostPort": "http://om/api"}},
        })
    }

    #[test]
    fn each_store_is_handed_over_as_the_containers_expect() {
        for (kind, settings, provider, id, variables) in [
            (
                "aws",
                json!({"region": "eu-west-1"}),
                "aws",
                "/prod/orders-db/pass",
                &[("AWS_DEFAULT_REGION", "eu-west-1")][..],
            ),
            (
                "aws",
                json!({"region": "r", "service": "ssm"}),
                "aws-ssm",
                "/prod/orders-db/pass",
                &[("AWS_DEFAULT_REGION", "r")],
            ),
            (
                "azure",
                json!({"vault": "kv1", "client_secret": "hunter2"}),
                "azure-kv",
                "prod-orders-db-pass",
                &[("AZURE_KEY_VAULT_NAME", "kv1")],
            ),
            (
                "azure",
                json!({"endpoint": "https://kv2.vault.azure.cn/", "tenant": "t"}),
                "azure-kv",
                "prod-orders-db-pass",
                &[("AZURE_KEY_VAULT_NAME", "kv2"), ("AZURE_TENANT_ID", "t")],
            ),
            (
                "gcp",
                json!({"project": "p1"}),
                "gcp",
                "prod_ordersdb_pass",
                &[("GOOGLE_CLOUD_PROJECT", "p1")],
            ),
            (
                "kubernetes",
                json!({"namespace": "n"}),
                "kubernetes",
                "prod-orders-db-pass",
                &[
                    ("KUBERNETES_NAMESPACE", "n"),
                    ("KUBERNETES_IN_CLUSTER", "true"),
                ],
            ),
            (
                "vault",
                json!({"address": "https://v:8200", "auth": {"method": "approle", "role_id": "r", "secret_id": "hunter2"}}),
                "openbao",
                "prod/orders-db/pass",
                &[
                    ("OPENBAO_ADDRESS", "https://v:8200"),
                    ("OPENBAO_MOUNT", "secret"),
                    ("OPENBAO_ROLE_ID", "r"),
                    ("OPENBAO_AUTH_METHOD", "approle"),
                ],
            ),
        ] {
            let mut spec = spec(pipeline());
            workload(kind, settings)
                .unwrap()
                .prepare(&mut spec)
                .unwrap();
            let config = spec.config.as_ref().unwrap();
            let server = &config["workflowConfig"]["openMetadataServerConfig"];
            assert_eq!(server["secretsManagerProvider"], provider, "{kind}");
            assert_eq!(server["secretsManagerLoader"], "env");
            assert_eq!(server["hostPort"], "http://om/api");
            assert_eq!(config["source"]["password"], format!("secret:{id}"));
            for (name, value) in variables {
                assert_eq!(spec.env[*name], *value, "{kind}");
            }
            assert_eq!(spec.env.len(), variables.len(), "{kind}: {:?}", spec.env);
            assert!(!format!("{spec:?}").contains("hunter2"), "{kind}");
        }
    }

    #[test]
    fn what_the_workload_cannot_read_is_refused() {
        let aws = workload("aws", json!({"region": "r"})).unwrap();
        for (reference, words) in [
            ("mysql://u:${secret:/a}@db", "whole values"),
            ("secret:test:/a", "one store"),
            ("secret:/a#user", "`#key`"),
            ("secret:/a?version=3", "`?version=`"),
            ("secret:/a?default=x", "`?default=`"),
        ] {
            let error = aws
                .prepare(&mut spec(json!({"a": [reference]})))
                .unwrap_err();
            assert!(error.message().contains(words), "{reference}: {error}");
        }
        let mut files = spec(json!({}));
        files.files.insert("KEY".to_owned(), "secret:/a".to_owned());
        assert!(aws.prepare(&mut files).is_err());
        let mut own = spec(json!({"a": "secret:prod:/a"}));
        own.env
            .insert("AWS_DEFAULT_REGION".to_owned(), "mine".to_owned());
        aws.prepare(&mut own).unwrap();
        assert_eq!(
            own.env["AWS_DEFAULT_REGION"], "mine",
            "the workflow's own wins"
        );
        for (kind, settings, words) in [
            ("file", json!({"path": "/x"}), "kind `file`"),
            ("gcp", json!({}), "`project`"),
            (
                "vault",
                json!({"address": "a", "auth": {"method": "jwt"}}),
                "`jwt`",
            ),
        ] {
            let error = workload(kind, settings).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }

    #[test]
    fn the_charts_own_setting_is_taken_as_it_is() {
        let mut spec = spec(pipeline());
        Workload::of_chart("managed-azure-kv", None)
            .prepare(&mut spec)
            .unwrap();
        let config = spec.config.unwrap();
        let server = &config["workflowConfig"]["openMetadataServerConfig"];
        assert_eq!(server["secretsManagerProvider"], "managed-azure-kv");
        assert_eq!(config["source"]["password"], "secret:prod-orders-db-pass");
        let mut spec = self::spec(pipeline());
        Workload::of_chart("kubernetes", Some("n"))
            .prepare(&mut spec)
            .unwrap();
        assert_eq!(spec.env["KUBERNETES_IN_CLUSTER"], "true");
    }
}
