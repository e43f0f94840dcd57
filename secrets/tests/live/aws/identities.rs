//! The identities that AWS's own platforms give: a token of EKS, an agent beside the pod or the task, an instance.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::harness::{rsa, signed};
use crate::process::Machine;

const EXTERNAL_ID: &str = "the-external-id";
const LATER: u64 = 4_102_444_800;
/// A moment that is over.
const OVER: u64 = 1_700_000_001;

impl Aws {
    /// A section that names no identity, before a front.
    fn section(&self, url: &str) -> Value {
        json!({
            "kind": "aws",
            "endpoint": url,
            "ca": self.fronts.authority.file(),
            "access": {"cache": "0s", "negative_cache": "0s"},
        })
    }

    /// Somebody whose tokens STS can verify.
    async fn issuer(&self) -> (String, KeyPair) {
        let (issuer, key) = (format!("https://{}.example", services::unique()), rsa());
        let known = json!({"issuer": issuer, "key": key.public_key_pem()});
        let url = format!("{}/_issuers", self.text("/url"));
        let answer = services::http()
            .post(url)
            .json(&known)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success());
        (issuer, key)
    }

    /// A session of the role, as an agent or an instance gets one for its pods.
    async fn session(&self, expires: &str) -> Value {
        let asked = json!({"RoleArn": self.text("/role"), "RoleSessionName": "by-agent", "ExternalId": EXTERNAL_ID});
        let made = self.admin("sts", "assume_role", asked).await;
        let of = |key: &str| made["Credentials"][key].clone();
        json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": of("AccessKeyId"),
            "SecretAccessKey": of("SecretAccessKey"),
            "Token": of("SessionToken"),
            "Expiration": expires,
        })
    }
}

/// A pod of EKS with a token of its service account (IRSA).
struct Irsa {
    folder: TempDir,
    issuer: String,
    key: KeyPair,
}

impl Irsa {
    async fn new(aws: &Aws) -> Self {
        let (issuer, key) = aws.issuer().await;
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            issuer,
            key,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Lays a token, as the kubelet does, and gives it.
    fn lay(&self, key: &KeyPair, subject: &str, expires: u64) -> String {
        let claims = json!({"iss": self.issuer, "aud": "sts.amazonaws.com", "sub": subject, "exp": expires, "jti": services::unique()});
        let token = signed(key, &claims);
        std::fs::write(self.file(), &token).unwrap();
        token
    }

    /// As the webhook of EKS sets the variables of a pod. STS is at the front, too.
    fn machine(&self, aws: &Aws, section: Value, url: &str) -> Machine {
        Machine::with(section)
            .variable("AWS_WEB_IDENTITY_TOKEN_FILE", self.file())
            .variable("AWS_ROLE_ARN", aws.text("/workload"))
            .variable("AWS_ROLE_SESSION_NAME", "of-the-pod")
            .variable("AWS_REGION", aws.text("/region"))
            .variable("AWS_ENDPOINT_URL_STS", url)
    }
}

const ACCOUNT: &str = "system:serviceaccount:ingestion:runner";

#[tokio::test]
async fn a_pod_of_eks_reads_by_its_token_and_by_the_next_one_when_its_session_ends() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let name = aws.put("irsa", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let irsa = Irsa::new(&aws).await;
    let first = irsa.lay(&irsa.key, ACCOUNT, LATER);
    let section = aws.section(&front.url());
    let mut pod = irsa.machine(&aws, section, &front.url()).start().await;
    for _ in 0..2 {
        assert_eq!(pod.get(&name).await.unwrap(), "value");
    }
    assert_eq!(
        front.seen("AssumeRoleWithWebIdentity"),
        1,
        "asked each time"
    );
    assert_eq!(front.seen(&first), 1);
    let identity = pod.identity().await.unwrap();
    assert!(
        identity.contains("assumed-role/workload/of-the-pod"),
        "{identity}"
    );
    pod.check().await.unwrap();

    // The kubelet has laid another by then.
    let second = irsa.lay(&irsa.key, ACCOUNT, LATER);
    aws.fronts.expire(&front);
    assert_eq!(pod.get(&name).await.unwrap(), "value");
    assert_eq!((front.seen(&first), front.seen(&second)), (1, 1));
}

#[tokio::test]
async fn a_role_is_assumed_from_the_identity_of_the_platform() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let name = aws.put("chained", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let irsa = Irsa::new(&aws).await;
    irsa.lay(&irsa.key, ACCOUNT, LATER);
    let mut section = aws.section(&front.url());
    section["role"] = json!(aws.text("/role"));
    section["external_id"] = json!(EXTERNAL_ID);
    section["sts_endpoint"] = json!(front.url());
    let mut pod = irsa.machine(&aws, section, &front.url()).start().await;
    assert_eq!(pod.get(&name).await.unwrap(), "value");
    let identity = pod.identity().await.unwrap();
    assert!(
        identity.contains("assumed-role/runner/hybrid-runner"),
        "{identity}"
    );
    assert_eq!(front.seen("AssumeRoleWithWebIdentity"), 1);
    assert_eq!(front.seen("ExternalId=the-external-id"), 1);
}

#[tokio::test]
async fn a_token_that_sts_does_not_believe_is_a_bad_identity_with_its_code_and_not_shown() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let front = aws.fronts.front().await;
    let irsa = Irsa::new(&aws).await;
    let name = SecretName::new("/any");
    for (key, subject, expires, code) in [
        (&irsa.key, ACCOUNT, OVER, "ExpiredTokenException"),
        (&rsa(), ACCOUNT, LATER, "InvalidIdentityToken"),
        (&irsa.key, "a-person", LATER, "AccessDenied"),
    ] {
        let token = irsa.lay(key, subject, expires);
        let section = aws.section(&front.url());
        let mut pod = irsa.machine(&aws, section, &front.url()).start().await;
        let refused = pod.get(&name).await.unwrap_err();
        assert_eq!(refused.refusal, "bad_identity", "{refused:?}");
        assert!(refused.report.contains(code), "{code}: {refused:?}");
        assert!(
            !refused.report.contains(&token[token.len() - 40..]),
            "{refused:?}"
        );
    }
    std::fs::remove_file(irsa.file()).unwrap();
    let section = aws.section(&front.url());
    let mut pod = irsa.machine(&aws, section, &front.url()).start().await;
    let refused = pod.get(&name).await.unwrap_err();
    assert_eq!(refused.refusal, "bad_identity", "{refused:?}");
    assert_eq!(front.seen("GetSecretValue"), 0);
}

/// Whoever gives credentials beside the work: the agent of EKS Pod Identity, that of a task of ECS, an instance.
struct Agent {
    address: std::net::SocketAddr,
    state: Arc<Giving>,
    _serving: JoinSet<()>,
}

struct Giving {
    aws: Aws,
    /// The token that it takes, as it stands in the pod's file.
    token: PathBuf,
    expires: &'static str,
    given: AtomicUsize,
}

async fn give(State(giving): State<Arc<Giving>>, headers: HeaderMap) -> Response {
    let token = std::fs::read_to_string(&giving.token).unwrap_or_default();
    let shown = headers
        .get("authorization")
        .map_or("", |it| it.to_str().unwrap());
    if token == "not accepted" || shown != token {
        let said = json!({"code": "AccessDeniedException", "message": "Unauthorized Exception! EKS does not have permissions to assume the associated role."});
        return (StatusCode::FORBIDDEN, Json(said)).into_response();
    }
    giving.given.fetch_add(1, Ordering::SeqCst);
    Json(giving.aws.session(giving.expires).await).into_response()
}

/// The second version of the metadata service: a token first.
async fn begin(headers: HeaderMap) -> Response {
    if headers
        .get("x-aws-ec2-metadata-token-ttl-seconds")
        .is_none()
    {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let lives = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
    (lives, "of-the-session").into_response()
}

async fn tell(
    State(giving): State<Arc<Giving>>,
    Path(what): Path<String>,
    headers: HeaderMap,
) -> Response {
    let session = headers.get("x-aws-ec2-metadata-token");
    if session.is_none_or(|token| token != "of-the-session") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match what.trim_end_matches('/') {
        "placement/region" => giving.aws.text("/region").into_response(),
        "iam/security-credentials" | "iam/security-credentials-extended" => {
            "runner".into_response()
        }
        what if what.ends_with("/runner") => {
            giving.given.fetch_add(1, Ordering::SeqCst);
            Json(giving.aws.session(giving.expires).await).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Agent {
    async fn new(aws: Aws, token: PathBuf, expires: &'static str) -> Self {
        let state = Arc::new(Giving {
            aws,
            token,
            expires,
            given: AtomicUsize::new(0),
        });
        let app = Router::new()
            .route("/v1/credentials", get(give))
            .route("/latest/api/token", put(begin))
            .route("/latest/meta-data/{*what}", get(tell))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            state,
            _serving: serving,
        }
    }

    fn aws(&self) -> &Aws {
        &self.state.aws
    }

    fn given(&self) -> usize {
        self.state.given.load(Ordering::SeqCst)
    }
}

const IN_TIME: &str = "2099-01-01T00:00:00Z";

#[tokio::test]
async fn a_pod_with_pod_identity_asks_its_agent_by_the_token_of_now() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    let name = aws.put("agent", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("eks-pod-identity-token");
    std::fs::write(&token, "first").unwrap();
    let agent = Agent::new(aws, token.clone(), IN_TIME).await;
    let machine = || {
        Machine::with(agent.aws().section(&front.url()))
            .variable(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://{}/v1/credentials", agent.address),
            )
            .variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token)
            .variable("AWS_REGION", agent.aws().text("/region"))
            // Whom a role would be asked of; the agent's own are used as they are.
            .variable("AWS_ENDPOINT_URL_STS", front.url())
    };
    let mut pod = machine().start().await;
    for _ in 0..2 {
        assert_eq!(pod.get(&name).await.unwrap(), "value");
    }
    assert_eq!(agent.given(), 1);
    let identity = pod.identity().await.unwrap();
    assert!(
        identity.contains("assumed-role/runner/by-agent"),
        "{identity}"
    );
    std::fs::write(&token, "second").unwrap();
    agent.aws().fronts.expire(&front);
    assert_eq!(pod.get(&name).await.unwrap(), "value");
    assert_eq!(agent.given(), 2);

    std::fs::write(&token, "not accepted").unwrap();
    let refused = machine().start().await.get(&name).await.unwrap_err();
    assert_eq!(refused.refusal, "bad_identity", "{refused:?}");
    assert!(refused.report.contains("403"), "{refused:?}");
}

#[tokio::test]
async fn credentials_that_are_about_to_end_are_renewed_before_they_do() {
    let Some(aws) = Aws::new(Service::Ssm) else {
        return services::skipped();
    };
    let name = aws.put("short", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let agent = Agent::new(aws, token.clone(), "2020-01-01T00:00:00Z").await;
    let mut section = agent.aws().section(&front.url());
    section["service"] = json!("ssm");
    let mut pod = Machine::with(section)
        .variable(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://{}/v1/credentials", agent.address),
        )
        .variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", "first")
        .variable("AWS_REGION", agent.aws().text("/region"))
        .start()
        .await;
    for times in 1..=3 {
        assert_eq!(pod.get(&name).await.unwrap(), "value");
        assert_eq!(agent.given(), times);
    }
}

#[tokio::test]
async fn tasks_pods_and_instances_are_asked_at_the_addresses_of_their_platform() {
    let Some(aws) = Aws::new(Service::Secretsmanager) else {
        return services::skipped();
    };
    if !Machine::has_networks() {
        return hybrid_runner_core::testing::skipped("no right to make a network namespace");
    }
    let name = aws.put("address", b"value").await.unwrap();
    let front = aws.fronts.front().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let agent = Agent::new(aws, token.clone(), IN_TIME).await;
    let machine = |at: &str| {
        Machine::with(agent.aws().section(&front.url()))
            .answers(at, agent.address)
            .answers(&front.address.to_string(), front.address)
            .variable("AWS_ENDPOINT_URL_STS", front.url())
            // The usual variables are not for these addresses.
            .variable("HTTP_PROXY", "http://127.0.0.1:1")
    };
    let region = agent.aws().text("/region");
    let task = machine("169.254.170.2:80")
        .variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v1/credentials");
    let uri = "http://169.254.170.23/v1/credentials";
    let pod = machine("169.254.170.23:80").variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri);
    // It tells the region, too.
    let instance = machine("169.254.169.254:80");
    let machines = [
        task.variable("AWS_REGION", &region),
        pod.variable("AWS_REGION", &region),
        instance,
    ];
    for (number, machine) in machines.into_iter().enumerate() {
        let mut machine = machine.start().await;
        assert_eq!(machine.get(&name).await.unwrap(), "value", "{number}");
        let identity = machine.identity().await.unwrap();
        assert!(
            identity.contains("assumed-role/runner/by-agent"),
            "{identity}"
        );
        assert!(identity.contains(&region), "{identity}");
        assert_eq!(agent.given(), 2 * number + 1, "{number}");
        agent.aws().fronts.expire(&front);
        assert_eq!(machine.get(&name).await.unwrap(), "value", "{number}");
        assert_eq!(agent.given(), 2 * number + 2, "{number}");
    }
}
