//! Login and requests.

use hybrid_runner_core::error::{Error, Result};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::config::{Auth, Settings};
use super::error::Asked;
use crate::body::{self, Failed};
use crate::credential::Source;
use crate::echo;
use crate::remote::Section as _;

/// The header of a token.
const TOKEN: &str = "X-Vault-Token";

/// A client that is logged in.
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
    namespace: Option<String>,
    token: SecretString,
    /// The identity as it was configured, for messages.
    pub identity: String,
    /// The server, for messages.
    pub server: String,
}

/// Logs in. The credentials are read anew each time.
pub(super) async fn connect(settings: &Settings) -> Result<Client> {
    let auth = settings.auth();
    let url = settings.url()?;
    let mut client = Client {
        http: settings.way().client()?,
        server: url.host_str().unwrap_or_default().to_owned(),
        url,
        namespace: settings.namespace(),
        token: SecretString::from(""),
        identity: auth.name(),
    };
    let body = match &auth {
        Auth::Token { token } => {
            client.token = token.read("the token").await?;
            return Ok(client);
        }
        Auth::Approle {
            role_id, secret_id, ..
        } => {
            let secret = secret_id.read("the secret id").await?;
            // On its way into the login.
            json!({"role_id": role_id, "secret_id": secret.expose_secret()})
        }
        Auth::Kubernetes { role, jwt, .. } => {
            by_token(role, &Auth::account_token(jwt.as_ref())).await?
        }
        Auth::Jwt { role, jwt, .. } => by_token(role, jwt).await?,
    };
    client.token = client.log_in(auth.mount(), &body).await?;
    Ok(client)
}

async fn by_token(role: &str, jwt: &Source) -> Result<Value> {
    let token = jwt.read("the token of the identity").await?;
    // On its way into the login.
    Ok(json!({"role": role, "jwt": token.expose_secret()}))
}

/// The answer of a login. No `Debug`.
#[derive(Deserialize)]
struct Login {
    auth: Given,
}

#[derive(Deserialize)]
struct Given {
    client_token: String,
}

/// A status and a body, which may hold values. No `Debug`.
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Zeroizing<Vec<u8>>,
}

impl Client {
    async fn log_in(&self, mount: &str, body: &Value) -> Result<SecretString> {
        let path = format!("auth/{mount}/login");
        let asked = Asked::to_log_in(self, &path);
        let answer = self.send(Method::POST, &path, None, Some(body)).await;
        let answer = answer.map_err(|error| asked.unreachable(&error))?;
        if !answer.status.is_success() {
            return Err(asked.refused(&answer));
        }
        let login: Login = serde_json::from_slice(&answer.body).map_err(|_| {
            Error::internal(format!(
                "`{}` answered the login without a token",
                self.server
            ))
        })?;
        Ok(SecretString::from(login.auth.client_token))
    }

    /// Reads a path.
    pub(super) async fn get(&self, path: &str, version: Option<&str>) -> Result<Answer, Failed> {
        self.send(Method::GET, path, version, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        version: Option<&str>,
        login: Option<&Value>,
    ) -> Result<Answer, Failed> {
        let mut url = self.url.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            // Escapes each part: a name is never anything else.
            parts.pop_if_empty().push("v1").extend(path.split('/'));
        }
        if let Some(version) = version {
            url.query_pairs_mut().append_pair("version", version);
        }
        let mut request = self
            .http
            .request(method, url)
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if !self.token.expose_secret().is_empty() {
            // On its way into the header.
            request = request.header(TOKEN, self.token.expose_secret());
        }
        if let Some(login) = login {
            request = request.json(login);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let mut body = body::read(answer).await?;
        if !status.is_success() {
            self.leave_out_credentials(&mut body, login);
        }
        Ok(Answer { status, body })
    }

    fn leave_out_credentials(&self, refusal: &mut Zeroizing<Vec<u8>>, login: Option<&Value>) {
        let login = Zeroizing::new(login.map(Value::to_string).unwrap_or_default());
        // To be looked for, so that it is not shown.
        let token = self.token.expose_secret().as_bytes();
        echo::leave_out(refusal, [(TOKEN, token)], login.as_bytes());
    }

    /// Whom the token stands for; `None` if it is not accepted.
    pub(super) async fn who(&self) -> Result<Option<String>> {
        let asked = Asked::to_log_in(self, "auth/token/lookup-self");
        let answer = self.get("auth/token/lookup-self", None).await;
        let answer = answer.map_err(|error| asked.unreachable(&error))?;
        match answer.status.as_u16() {
            200 => {}
            401 | 403 => return Ok(None),
            _ => return Err(asked.refused(&answer)),
        }
        // It holds the token itself: only names are taken out.
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let name = told.pointer("/data/display_name").and_then(Value::as_str);
        let policies = told.pointer("/data/policies").and_then(Value::as_array);
        let policies: Vec<_> = policies
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        Ok(Some(format!(
            "{} ({}, policies {})",
            name.unwrap_or(&self.identity),
            self.server,
            policies.join(", ")
        )))
    }
}
