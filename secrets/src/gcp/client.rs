//! Identity and client of the SDK.

use std::path::{Path, PathBuf};

use google_cloud_auth::build_errors;
use google_cloud_auth::credentials::{
    self, Credentials, external_account, mds, service_account, user_account,
};
use google_cloud_secretmanager_v1::client::SecretManagerService;
use hybrid_runner_core::error::{Error, Result};
use serde_json::Value;

use super::config::Settings;
use super::http::Http;
use crate::echo;
use crate::remote::Section as _;

/// Where the platform has its metadata server.
const METADATA: &str = "http://metadata.google.internal";
/// What a token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A client with one identity.
pub(crate) struct Client {
    pub secrets: SecretManagerService,
    /// The identity as it was configured, for messages.
    pub identity: String,
    /// Whether the metadata server knows more about it.
    metadata: Option<String>,
    /// `projects/…`, with the location of regional secrets.
    pub parent: String,
    /// Where federations have their tokens, which are others from time to time.
    subjects: Vec<PathBuf>,
    http: reqwest::Client,
}

/// An identity, before it is used.
struct Chosen {
    credentials: Credentials,
    name: String,
    project: Option<String>,
    metadata: Option<String>,
    subjects: Vec<PathBuf>,
}

/// Makes a client. Nobody is logged in yet: the SDK does so at the first request.
pub(super) async fn connect(settings: &Settings) -> Result<Client> {
    let http = settings.way().client()?;
    let chosen = choose(settings)?;
    let transport = Http {
        client: http.clone(),
        credentials: chosen.credentials,
        endpoint: settings.endpoint(),
    };
    let set = settings
        .project
        .clone()
        .or_else(|| std::env::var("GOOGLE_CLOUD_PROJECT").ok());
    let mut client = Client {
        secrets: SecretManagerService::from_stub::<Http>(transport),
        identity: chosen.name,
        metadata: chosen.metadata,
        parent: String::new(),
        subjects: chosen.subjects,
        http,
    };
    let project = match set.filter(|project| !project.is_empty()).or(chosen.project) {
        Some(project) => project,
        None => client
            .ask_metadata("project/project-id")
            .await
            .ok_or_else(|| {
                Error::invalid(
                    "no project is known: set `project` in the section, or GOOGLE_CLOUD_PROJECT",
                )
            })?,
    };
    let place = settings
        .location
        .as_ref()
        .map_or_else(String::new, |at| format!("/locations/{at}"));
    client.parent = format!("projects/{project}{place}");
    Ok(client)
}

/// The file of the section, the metadata server of the section, or the platform's own chain.
fn choose(settings: &Settings) -> Result<Chosen> {
    if let Some(path) = &settings.credentials {
        return from_file(path);
    }
    if let Some(url) = &settings.metadata {
        only_one_metadata_server(url)?;
        let credentials = mds::Builder::default()
            .with_endpoint(url)
            .build()
            .map_err(unusable)?;
        return Ok(Chosen {
            credentials,
            name: "the account of this machine".to_owned(),
            project: None,
            metadata: Some(url.clone()),
            subjects: Vec::new(),
        });
    }
    // The chain may lead to a service account's key.
    have_cryptography();
    let credentials = credentials::Builder::default()
        .with_scopes([SCOPE])
        .build()
        .map_err(unusable)?;
    let from_file = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").is_some();
    let host = std::env::var("GCE_METADATA_HOST")
        .map_or_else(|_| METADATA.to_owned(), |host| format!("http://{host}"));
    Ok(Chosen {
        credentials,
        name: "the identity of the platform".to_owned(),
        project: None,
        metadata: (!from_file).then_some(host),
        subjects: remember_chain(),
    })
}

/// The SDK takes the one in the variable, whatever it is told.
fn only_one_metadata_server(url: &str) -> Result<()> {
    match std::env::var("GCE_METADATA_HOST") {
        Ok(host) if format!("http://{host}") != url.trim_end_matches('/') => {
            Err(Error::invalid(format!(
                "the variable GCE_METADATA_HOST (`{host}`) would go before `metadata` in the section; remove one of them"
            )))
        }
        _ => Ok(()),
    }
}

fn unusable(error: build_errors::Error) -> Error {
    Error::invalid("the credentials cannot be used").with_source(error)
}

/// A service account signs by what the process has for that; the SDK panics where it has nothing.
fn have_cryptography() {
    // Whoever was first has chosen.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// Google's library shows what is in a file of credentials by requests that we do not see: whatever is secret in it, however deep.
/// Where federations have their tokens.
fn remember(json: &Value) -> Vec<PathBuf> {
    let mut subjects = Vec::new();
    let mut todo = vec![json];
    while let Some(value) = todo.pop() {
        for (key, member) in value.as_object().into_iter().flatten() {
            match (key.as_str(), member) {
                ("client_secret" | "refresh_token" | "private_key", Value::String(value)) => {
                    echo::remember(value);
                }
                ("file", Value::String(path)) => subjects.push(PathBuf::from(path)),
                ("headers", Value::Object(headers)) => {
                    for value in headers.values().filter_map(Value::as_str) {
                        // Behind its scheme, if it has one.
                        echo::remember(value.rsplit(' ').next().unwrap_or(value));
                    }
                }
                _ => todo.push(member),
            }
        }
        todo.extend(value.as_array().into_iter().flatten());
    }
    subjects
}

/// Remembers what is in the file that the platform's chain finds, if it finds one.
fn remember_chain() -> Vec<PathBuf> {
    let named = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
    let usual = std::env::home_dir()
        .map(|home| home.join(".config/gcloud/application_default_credentials.json"));
    let text = named.or(usual).map(std::fs::read);
    let Some(Ok(text)) = text else {
        return Vec::new();
    };
    // What is no JSON has nothing that could be shown.
    remember(&serde_json::from_slice(&text).unwrap_or_default())
}

fn from_file(path: &Path) -> Result<Chosen> {
    let failed = || {
        Error::denied(format!(
            "failed to read `{}` (`credentials`)",
            path.display()
        ))
    };
    let text = std::fs::read(path).map_err(|error| failed().with_source(error))?;
    // Its position may tell of the key: nothing of the error goes on.
    let json: Value = serde_json::from_slice(&text)
        .map_err(|_| failed().with_source(Error::invalid("not JSON")))?;
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
    let subjects = remember(&json);
    let project = text("project_id").or_else(|| text("quota_project_id"));
    let kind = text("type").unwrap_or_default();
    let name = match kind.as_str() {
        "service_account" => format!(
            "the service account `{}`",
            text("client_email").unwrap_or_default()
        ),
        "external_account" => format!("the federation `{}`", text("audience").unwrap_or_default()),
        _ => format!("the login in `{}`", path.display()),
    };
    let credentials = match kind.as_str() {
        "service_account" => {
            have_cryptography();
            service_account::Builder::new(json).build()
        }
        "external_account" => external_account::Builder::new(json)
            .with_scopes([SCOPE])
            .build(),
        "authorized_user" => user_account::Builder::new(json).build(),
        _ => {
            let what =
                "a `service_account`, an `external_account` or an `authorized_user` is known here";
            let path = path.display();
            return Err(Error::invalid(format!(
                "`{path}` (`credentials`) cannot be used: {what}"
            )));
        }
    };
    Ok(Chosen {
        credentials: credentials.map_err(unusable)?,
        name,
        project,
        metadata: None,
        subjects,
    })
}

impl Client {
    /// What the metadata server says, if there is one and it answers.
    async fn ask_metadata(&self, what: &str) -> Option<String> {
        let url = format!("{}/computeMetadata/v1/{what}", self.metadata.as_ref()?);
        let answer = self
            .http
            .get(url)
            .header("Metadata-Flavor", "Google")
            .send()
            .await
            .ok()?;
        let answer = answer.error_for_status().ok()?.text().await.ok()?;
        Some(answer.trim().to_owned()).filter(|text| !text.is_empty() && text.len() < 256)
    }

    /// Before words are told of somebody who was shown the token of a federation.
    pub(super) fn remember_subjects(&self) {
        for token in self.subjects.iter().map(std::fs::read_to_string) {
            echo::remember(token.unwrap_or_default().trim());
        }
    }

    pub(super) async fn who(&self) -> String {
        let account = self
            .ask_metadata("instance/service-accounts/default/email")
            .await;
        format!(
            "{} ({})",
            account.as_deref().unwrap_or(&self.identity),
            self.parent
        )
    }
}
