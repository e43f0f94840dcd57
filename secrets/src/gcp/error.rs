//! Answers of Secret Manager in words of the contract.

use google_cloud_auth::errors::CredentialsError;
use google_cloud_gax::error::Error as Failure;
use google_cloud_gax::error::rpc::Code;
use hybrid_runner_core::error::{Error, causes};

use super::client::Client;
use crate::Refusal;
use crate::answer::refused;
use crate::web::{advice, code_of, elsewhere};

/// What was asked for, for the error.
pub(super) struct Asked<'a> {
    client: &'a Client,
    /// The version's own name.
    name: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn to_read(client: &'a Client, name: &'a str) -> Self {
        Self { client, name }
    }

    /// The error of the SDK: never printed whole, as it may hold an answer.
    pub(super) fn failed(&self, error: &Failure) -> Error {
        if let Some(status) = error.status() {
            let refusal = of_code(status.code, error.http_status_code());
            return self.refusal(refusal, status.code.name(), &status.message);
        }
        if let Some(status) = error.http_status_code() {
            let what = format!("`{}`", self.name);
            if let Some(message) = elsewhere(status, "Google", &what, "`endpoint`") {
                return refused(Refusal::Unreachable, message, status, "");
            }
            return self.refusal(
                of_code(Code::Unknown, Some(status)),
                &status.to_string(),
                "",
            );
        }
        self.client.remember_subjects();
        let words = causes(error);
        if error.is_authentication() && !is_transient(error) {
            return self.refusal(Refusal::Identity, "no credentials", &words);
        }
        let code = if error.is_timeout() {
            "timed out"
        } else {
            code_of(&words)
        };
        let (who, name) = (&self.client.identity, self.name);
        let message = if error.is_authentication() {
            // By the library's own client, for which the section's keys are nothing.
            format!(
                "failed to get a token for {who}; see that this machine may reach whoever gives it (`credentials`, `metadata`; HTTPS_PROXY and SSL_CERT_FILE count there)"
            )
        } else {
            let advice = advice(code, "`endpoint`");
            format!("failed to ask Google for `{name}`; {advice}")
        };
        refused(Refusal::Unreachable, message, code, &words)
    }

    fn refusal(&self, refusal: Refusal, code: &str, words: &str) -> Error {
        let (who, name) = (&self.client.identity, self.name);
        let message = match refusal {
            Refusal::NotFound => {
                format!("Google has no `{name}`; create it there, or correct the reference")
            }
            Refusal::Denied => format!(
                "{who} lacks `secretmanager.versions.access` on `{name}`; give it `roles/secretmanager.secretAccessor`"
            ),
            Refusal::Identity => {
                format!(
                    "Google does not accept {who}; see that its credentials are right and not expired"
                )
            }
            Refusal::Disabled => {
                format!("`{name}` is disabled or destroyed; enable it, or ask for another version")
            }
            Refusal::Throttled => {
                format!("Google throttles reads of `{name}`; raise the quota, or `access.cache`")
            }
            Refusal::Malformed => {
                format!("Google cannot hold the name `{name}`; correct the reference")
            }
            _ => format!("Google failed to read `{name}`; try again later"),
        };
        refused(refusal, message, code, words)
    }
}

/// Whether the identity could not be had for now, and not at all.
fn is_transient(error: &Failure) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<CredentialsError>() {
            return error.is_transient();
        }
        next = cause.source();
    }
    false
}

/// What a code comes to.
fn of_code(code: Code, http: Option<u16>) -> Refusal {
    match code {
        Code::NotFound => Refusal::NotFound,
        Code::PermissionDenied => Refusal::Denied,
        Code::Unauthenticated => Refusal::Identity,
        Code::FailedPrecondition => Refusal::Disabled,
        Code::ResourceExhausted => Refusal::Throttled,
        Code::InvalidArgument | Code::OutOfRange => Refusal::Malformed,
        Code::Unknown => match http {
            Some(401) => Refusal::Identity,
            Some(403) => Refusal::Denied,
            Some(404) => Refusal::NotFound,
            Some(429) => Refusal::Throttled,
            Some(400..=499) => Refusal::Malformed,
            _ => Refusal::Unreachable,
        },
        _ => Refusal::Unreachable,
    }
}
