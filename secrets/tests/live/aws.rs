//! AWS: Secrets Manager and Parameter Store by moto, with signatures and permissions checked.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use hybrid_runner_core::ErrorKind;
use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::{ProviderHarness, Trouble};
use hybrid_runner_secrets::aws::{AccessKey, Service, Settings, provider};
use hybrid_runner_secrets::{Refusal, Source};
use serde_json::{Value, json};

use crate::front::{Answer, Front, SAID};
use crate::harness::{Dialect, Fronts, assert_says, nobody, refused, uncached};
use crate::services;
use crate::tunnel::Tunnel;

mod identities;

const JSON: &str = "application/x-amz-json-1.1";

pub(crate) struct Aws {
    service: Service,
    store: Value,
    fronts: Fronts,
    prefix: String,
}

fn says(code: &str) -> String {
    format!(r#"{{"__type":"{code}","message":"{SAID}"}}"#)
}

impl Aws {
    fn new(service: Service) -> Option<Self> {
        let store = services::of("aws")?;
        let dialect = Dialect {
            read: if service == Service::Ssm {
                "GetParameter"
            } else {
                "GetSecretValue"
            },
            throttled: (400, JSON, says("ThrottlingException")),
            failing: (500, JSON, says("InternalServiceError")),
            expired: (400, JSON, says("ExpiredTokenException")),
        };
        Some(Self {
            service,
            fronts: Fronts::new(store["url"].as_str().unwrap(), dialect),
            store,
            prefix: format!("/contract-{}", services::unique()),
        })
    }

    fn text(&self, pointer: &str) -> String {
        self.store
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The section of somebody, before a front.
    fn settings(&self, who: &str, url: &str) -> Settings {
        let mut settings = Settings::default();
        settings.service = self.service;
        settings.region = Some(self.text("/region"));
        settings.endpoint = Some(url.to_owned());
        settings.sts_endpoint = Some(url.to_owned());
        settings.ca = Some(self.fronts.authority.file());
        let secret_key = Source::value(self.text(&format!("/{who}/secret_key")));
        settings.access_key = Some(AccessKey::new(self.text(&format!("/{who}/id")), secret_key));
        settings.access = uncached();
        settings
    }

    fn before(&self, front: &Front) -> Arc<dyn SecretProvider> {
        provider(self.settings("reader", &front.url())).unwrap()
    }

    /// One call of boto3 as the administrator, at the store itself.
    async fn admin(&self, service: &str, call: &str, args: Value) -> Value {
        let url = format!("{}/_admin", self.text("/url"));
        let body = json!({"service": service, "call": call, "args": args}).to_string();
        let answer = services::http().post(url).body(body).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{call}: {}",
            answer.text().await.unwrap()
        );
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    fn name(&self, label: &str) -> String {
        format!("{}/{label}", self.prefix)
    }

    /// Lays one more version, and gives its name.
    async fn lay(&self, name: &str, value: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(value).ok();
        if self.service == Service::Ssm {
            let text = text.filter(|text| !text.is_empty() && text.len() <= 8 * 1024)?;
            let args =
                json!({"Name": name, "Value": text, "Type": "SecureString", "Overwrite": true});
            let made = self.admin("ssm", "put_parameter", args).await;
            return Some(made["Version"].to_string());
        }
        if value.is_empty() {
            return None; // AWS takes no empty secret.
        }
        let mut args = match text {
            Some(text) => json!({"SecretString": text}),
            None => {
                json!({"SecretBinaryBase64": base64::engine::general_purpose::STANDARD.encode(value)})
            }
        };
        let filter = json!({"Filters": [{"Key": "name", "Values": [name]}]});
        let known = self.admin("secretsmanager", "list_secrets", filter).await;
        let exists = known["SecretList"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["Name"] == name);
        let (call, key) = if exists {
            ("put_secret_value", "SecretId")
        } else {
            ("create_secret", "Name")
        };
        args[key] = json!(name);
        let made = self.admin("secretsmanager", call, args).await;
        Some(made["VersionId"].as_str().unwrap().to_owned())
    }
}

#[async_trait]
impl ProviderHarness for Aws {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        self.before(&*self.fronts.front().await)
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        let name = self.name(label);
        self.lay(&name, value).await?;
        Some(SecretName::new(name))
    }

    fn missing(&self, label: &str) -> SecretName {
        SecretName::new(self.name(label))
    }

    async fn put_versions(&self, label: &str, values: &[&[u8]]) -> Option<Vec<SecretName>> {
        let mut names = Vec::new();
        for value in values {
            let mut name = SecretName::new(self.name(label));
            name.version = Some(self.lay(&name.name, value).await?);
            names.push(name);
        }
        Some(names)
    }

    async fn deleted(&self) -> Option<SecretName> {
        let name = self.put("deleted", b"gone").await?;
        if self.service == Service::Ssm {
            self.admin("ssm", "delete_parameter", json!({"Name": name.name}))
                .await;
        } else {
            self.admin(
                "secretsmanager",
                "delete_secret",
                json!({"SecretId": name.name}),
            )
            .await;
        }
        Some(name)
    }

    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        Some(provider(self.settings("reader", &nobody("https"))).unwrap())
    }

    fn shown(&self) -> Vec<String> {
        self.fronts.shown()
    }

    async fn in_trouble(&self, trouble: Trouble) -> Option<Arc<dyn SecretProvider>> {
        let front = self.fronts.in_trouble(trouble).await?;
        let provider = self.before(&front);
        if trouble == Trouble::Expired {
            provider
                .get(&SecretName::new(self.name("text")))
                .await
                .unwrap();
            self.fronts.expire(&front);
        }
        Some(provider)
    }
}

mod secretsmanager_keeps_the_contract {
    use super::*;
    crate::contract!(Aws::new(Service::Secretsmanager));
}

mod ssm_keeps_the_contract {
    use super::*;
    crate::contract!(Aws::new(Service::Ssm));
}

/// Rights are by action here, so that a whole principal is denied and not one secret.
#[tokio::test]
async fn who_lacks_a_right_is_told_which() {
    for service in [Service::Secretsmanager, Service::Ssm] {
        let Some(aws) = Aws::new(service) else {
            return services::skipped();
        };
        let name = aws.put("denied", b"hunter2").await.unwrap();
        let front = aws.fronts.front().await;
        let error = refused(provider(aws.settings("nobody", &front.url())), &name).await;
        let right = if service == Service::Ssm {
            "ssm:GetParameter"
        } else {
            "secretsmanager:GetSecretValue"
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        let said = [right, &name.name, "AccessDeniedException", "user/nobody"];
        assert_says(&error, &said);
        assert_eq!(
            front.seen("GetSecretValue") + front.seen("GetParameter"),
            1,
            "not asked again"
        );
        let denied = provider(aws.settings("nobody", &front.url())).unwrap();
        let error = denied.check().await.unwrap_err();
        assert_says(&error, &[right, "`probe`"]);
    }
}

#[tokio::test]
async fn a_bad_identity_is_told_apart_from_a_missing_right() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let front = aws.fronts.front().await;
    let with = |id: &str| {
        let mut settings = aws.settings("reader", &front.url());
        settings.access_key = Some(AccessKey::new(id, Source::value("hunter2-hunter2")));
        settings
    };
    for (id, code) in [
        (aws.text("/reader/id"), "InvalidSignatureException"),
        (
            "AKIAXXXXXXXXXXXXXXXX".to_owned(),
            "UnrecognizedClientException",
        ),
    ] {
        let error = refused(provider(with(&id)), &SecretName::new("/a")).await;
        assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
        assert_says(&error, &[code]);
        assert!(!error.report().contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_and_again_when_its_session_ends() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let name = aws.put("role", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let mut settings = aws.settings("reader", &front.url());
    settings.role = Some(aws.text("/role"));
    settings.external_id = Some("the-external-id".to_owned());
    let provider = provider(settings).unwrap();
    let identity = provider.identity().await.unwrap().unwrap();
    assert!(
        identity.contains("assumed-role/runner/hybrid-runner"),
        "{identity}"
    );
    assert!(identity.contains("us-east-1"), "{identity}");
    assert_eq!(provider.get(&name).await.unwrap().value.expose(), b"value");
    assert_eq!(front.seen("ExternalId=the-external-id"), 1);
    aws.fronts.expire(&front);
    assert_eq!(provider.get(&name).await.unwrap().value.expose(), b"value");
    assert_eq!(front.seen("ExternalId=the-external-id"), 2);
    provider.check().await.unwrap();
}

#[tokio::test]
async fn a_role_is_not_assumed_with_another_external_id_or_none() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let front = aws.fronts.front().await;
    for external_id in [None, Some("of-somebody-else".to_owned())] {
        let mut settings = aws.settings("reader", &front.url());
        settings.role = Some(aws.text("/role"));
        settings.external_id = external_id;
        let error = refused(provider(settings), &SecretName::new("/any")).await;
        assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
        let said = ["the role `arn:", "AccessDenied", "sts:AssumeRole"];
        assert_says(&error, &said);
    }
    assert_eq!(front.seen("GetSecretValue"), 0);
}

#[tokio::test]
async fn a_token_service_that_is_busy_or_down_has_nothing_against_the_role() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let xml = |code: &str| {
        format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        )
    };
    for (answer, refusal, says) in [
        (
            Answer::Says(400, "text/xml", xml("Throttling")),
            Refusal::Throttled,
            "`Throttling`",
        ),
        (
            Answer::Says(503, "text/xml", xml("ServiceUnavailable")),
            Refusal::Unreachable,
            "the token service of AWS",
        ),
        (Answer::Elsewhere, Refusal::Unreachable, "`sts_endpoint`"),
    ] {
        let front = aws.fronts.front().await;
        front.trouble("AssumeRole", u32::MAX, answer);
        let mut settings = aws.settings("reader", &front.url());
        settings.role = Some(aws.text("/role"));
        let error = refused(provider(settings), &SecretName::new("/any")).await;
        assert_eq!(Refusal::of(&error), refusal, "{error:?}");
        assert_says(&error, &[says]);
    }
}

#[tokio::test]
async fn the_service_is_called_by_its_own_name_through_a_proxy() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let name = aws.put("proxy", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let tunnel = Tunnel::to(front.address).await;
    let mut settings = aws.settings("reader", "");
    (settings.endpoint, settings.sts_endpoint) = (None, None);
    settings.proxy = Some(tunnel.url());
    let secret = provider(settings).unwrap().get(&name).await.unwrap();
    assert_eq!(secret.value.expose(), b"value");
    tunnel.assert_asked("secretsmanager.us-east-1.amazonaws.com:443");
}

#[tokio::test]
async fn a_hundred_runs_that_start_at_once_make_one_call() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let name = aws.put("once", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let mut settings = aws.settings("reader", &front.url());
    settings.access = hybrid_runner_secrets::decorate::Access::default();
    let provider = provider(settings).unwrap();
    let all = futures::future::join_all((0..100).map(|_| provider.get(&name))).await;
    assert!(
        all.iter()
            .all(|one| one.as_ref().unwrap().value.expose() == b"value")
    );
    assert_eq!(front.seen("GetSecretValue"), 1);
}

#[tokio::test]
async fn a_stage_a_label_and_an_arn_are_names_too() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let names = aws.put_versions("staged", &[b"old", b"new"]).await.unwrap();
    let provider = aws.provider().await;
    let mut previous = SecretName::new(names[0].name.clone());
    previous.stage = Some("AWSPREVIOUS".to_owned());
    assert_eq!(
        provider.get(&previous).await.unwrap().value.expose(),
        b"old"
    );
    let asked = json!({"SecretId": names[0].name});
    let told = aws.admin("secretsmanager", "describe_secret", asked).await;
    let arn = SecretName::new(told["ARN"].as_str().unwrap());
    assert_eq!(provider.get(&arn).await.unwrap().value.expose(), b"new");

    let aws = Aws::new(Service::Ssm).unwrap();
    let names = aws
        .put_versions("labelled", &[b"old", b"new"])
        .await
        .unwrap();
    let args = json!({"Name": names[0].name, "ParameterVersion": 1, "Labels": ["stable"]});
    aws.admin("ssm", "label_parameter_version", args).await;
    let mut stable = SecretName::new(names[0].name.clone());
    stable.stage = Some("stable".to_owned());
    assert_eq!(
        aws.provider()
            .await
            .get(&stable)
            .await
            .unwrap()
            .value
            .expose(),
        b"old"
    );
}
