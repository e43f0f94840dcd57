//! Answers of the API server in words of the contract.

use hybrid_runner_core::error::{Error, causes};
use kube::core::Status;

use super::client::Client;
use crate::Refusal;
use crate::answer::refused;
use crate::web::{advice, code_of, elsewhere};

/// What the client gives as the reason where an answer was no `Status`.
const ODD: &str = "Failed to parse error data";

/// What was asked for, for the error.
pub(super) struct Asked<'a> {
    client: &'a Client,
    /// The Secret's own name; empty for "who am I".
    name: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn to_read(client: &'a Client, name: &'a str) -> Self {
        Self { client, name }
    }

    /// The client's error. Only the API server's own status is printed of an answer.
    pub(super) fn failed(&self, error: &kube::Error) -> Error {
        match error {
            kube::Error::Api(status) => self.answered(status),
            kube::Error::Auth(_) => {
                self.refusal(Refusal::Identity, "no credentials", &causes(error))
            }
            _ => {
                let words = causes(error);
                let code = code_of(&words);
                let message = format!(
                    "failed to ask `{}` for {}; {}",
                    self.client.server,
                    self.what(),
                    advice(code, "`kubeconfig`, `context`")
                );
                refused(Refusal::Unreachable, message, code, &words)
            }
        }
    }

    fn answered(&self, status: &Status) -> Error {
        let is_odd = status.reason == ODD;
        if is_odd && status.code == 404 {
            let (server, what) = (&self.client.server, self.what());
            let message = format!(
                "the answer of `{server}` for {what} is none of an API server; see that it is one (`kubeconfig`, `context`, `proxy`)"
            );
            return refused(Refusal::Unreachable, message, status.code, "");
        }
        let (server, what) = (&self.client.server, self.what());
        if let Some(message) = elsewhere(status.code, server, &what, "the cluster's `server`") {
            return refused(Refusal::Unreachable, message, status.code, &status.message);
        }
        let refusal = match status.code {
            404 => Refusal::NotFound,
            401 => Refusal::Identity,
            403 => Refusal::Denied,
            429 => Refusal::Throttled,
            400..=499 => Refusal::Malformed,
            _ => Refusal::Unreachable,
        };
        let code = if status.reason.is_empty() || is_odd {
            status.code.to_string()
        } else {
            status.reason.clone()
        };
        self.refusal(refusal, &code, &status.message)
    }

    /// A right that the API server says is missing.
    pub(super) fn lacks(&self, why: &str) -> Error {
        self.refusal(Refusal::Denied, "Forbidden", why)
    }

    /// It is there, and nothing is in it.
    pub(super) fn is_empty(&self) -> Error {
        let what = self.what();
        Error::not_found(format!(
            "{what} has no keys: put the value under a key, as `value`"
        ))
    }

    fn what(&self) -> String {
        if self.name.is_empty() {
            return "the identity".to_owned();
        }
        format!("Secret `{}/{}`", self.client.namespace, self.name)
    }

    fn refusal(&self, refusal: Refusal, code: &str, words: &str) -> Error {
        let (what, who, server) = (self.what(), &self.client.identity, &self.client.server);
        let namespace = &self.client.namespace;
        let message = match refusal {
            Refusal::NotFound => {
                format!("there is no {what}; create it there, or correct the reference")
            }
            Refusal::Denied => format!(
                "{who} may not read {what}; bind a Role in `{namespace}` with apiGroups [\"\"], resources [\"secrets\"], verbs [\"get\"]"
            ),
            Refusal::Identity => format!(
                "`{server}` does not accept {who}; see that its token is right and not expired"
            ),
            Refusal::Throttled => {
                format!("`{server}` throttles reads of {what}; raise `access.cache`")
            }
            Refusal::Malformed => format!("`{server}` cannot read {what}; correct the reference"),
            _ => format!("`{server}` failed to read {what}; try again later"),
        };
        refused(refusal, message, code, words)
    }
}
