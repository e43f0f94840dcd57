//! Answers of Vault in words of the contract.

use hybrid_runner_core::error::{Error, causes};
use serde::Deserialize;

use super::client::{Answer, Client};
use crate::Refusal;
use crate::answer::refused;
use crate::body::Failed;
use crate::web::{advice, code_of, elsewhere};

/// What was asked for, for the error.
pub(super) struct Asked<'a> {
    client: &'a Client,
    path: &'a str,
    login: bool,
}

/// What Vault says of an error; of a version that is deleted it says when.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    errors: Vec<String>,
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    deletion_time: String,
    destroyed: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn to_read(client: &'a Client, path: &'a str) -> Self {
        let login = false;
        Self {
            client,
            path,
            login,
        }
    }

    pub(super) fn to_log_in(client: &'a Client, path: &'a str) -> Self {
        let login = true;
        Self {
            client,
            path,
            login,
        }
    }

    pub(super) fn unreachable(&self, error: &Failed) -> Error {
        let words = causes(error);
        let code = code_of(&words);
        let message = format!(
            "failed to ask `{}` for `{}`; {}",
            self.client.server,
            self.path,
            advice(code, "`address`")
        );
        refused(Refusal::Unreachable, message, code, &words)
    }

    /// The error of an answer that is no success.
    pub(super) fn refused(&self, answer: &Answer) -> Error {
        let said: Said = serde_json::from_slice(&answer.body).unwrap_or_default();
        let gone = said
            .data
            .is_some_and(|data| data.metadata.destroyed || !data.metadata.deletion_time.is_empty());
        let status = answer.status;
        let words = said.errors.join(", ");
        let (server, what) = (&self.client.server, format!("`{}`", self.path));
        if let Some(message) = elsewhere(status.as_u16(), server, &what, "`address`") {
            return refused(Refusal::Unreachable, message, status.as_str(), &words);
        }
        let refusal = match status.as_u16() {
            404 if gone => Refusal::Disabled,
            400..=404 if self.login => Refusal::Identity,
            404 => Refusal::NotFound,
            401 => Refusal::Identity,
            403 => Refusal::Denied,
            429 => Refusal::Throttled,
            400..=499 => Refusal::Malformed,
            _ => Refusal::Unreachable,
        };
        self.of(refusal, status.as_str(), &words)
    }

    /// The token itself is not accepted.
    pub(super) fn not_accepted(&self) -> Error {
        self.of(Refusal::Identity, "403", "the token is not accepted")
    }

    fn of(&self, refusal: Refusal, code: &str, words: &str) -> Error {
        let (server, who, path) = (&self.client.server, &self.client.identity, self.path);
        let message = match refusal {
            Refusal::NotFound => format!(
                "`{server}` has no secret `{path}`, or not that version of it; create it there, or correct the reference or `mount`"
            ),
            Refusal::Denied => format!(
                "{who} lacks `read` on `{path}`; add to one of its policies: path \"{path}\" {{ capabilities = [\"read\"] }}"
            ),
            Refusal::Identity => format!(
                "`{server}` does not accept {who} (`{path}`); see that its credentials are right and not expired"
            ),
            Refusal::Disabled => {
                format!(
                    "that version of `{path}` is deleted or destroyed; undelete it, or write a new one"
                )
            }
            Refusal::Throttled => format!(
                "`{server}` throttles reads of `{path}`; raise its quota, or `access.cache`"
            ),
            Refusal::Malformed => format!("`{server}` cannot read `{path}`; correct the reference"),
            _ => format!(
                "`{server}` failed to read `{path}`: sealed, on standby or overloaded; see to it"
            ),
        };
        refused(refusal, message, code, words)
    }
}
