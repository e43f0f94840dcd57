//! Answers of Key Vault and Entra ID in words of the contract.

use std::error::Error as StdError;

use azure_core::error::{ErrorKind, ErrorResponse};
use azure_core::http::StatusCode;
use hybrid_runner_core::error::{Error, causes};

use super::client::Client;
use crate::Refusal;
use crate::answer::refused;
use crate::web::{advice, code_of, elsewhere};

/// What was asked for, for the error.
pub(super) struct Asked<'a> {
    client: &'a Client,
    /// The secret's own name; empty for "who am I".
    name: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn to_read(client: &'a Client, name: &'a str) -> Self {
        Self { client, name }
    }

    pub(super) fn who(client: &'a Client) -> Self {
        Self { client, name: "" }
    }

    /// The error of the SDK: never printed whole, as it may hold an answer.
    pub(super) fn failed(&self, error: azure_core::Error) -> Error {
        if let ErrorKind::HttpResponse { status, .. } = error.kind() {
            let status = *status;
            return self.answered(status, error);
        }
        let is_token = matches!(error.kind(), ErrorKind::Credential);
        if is_unreadable(&error) && is_token {
            let who = &self.client.identity;
            let message = format!(
                "who was asked for a token for {who} gave an answer that is none of Entra ID; see that it is the right place (`authority`, `proxy`)"
            );
            return refused(Refusal::Unreachable, message, "odd answer", "");
        }
        if is_unreadable(&error) {
            let (vault, what) = (&self.client.vault, self.what());
            let message = format!(
                "the answer of `{vault}` for {what} is none of a key vault; see that it is one (`vault`, `proxy`)"
            );
            // Its words may hold what was read.
            return refused(Refusal::Unreachable, message, "odd answer", "");
        }
        let words = causes(&error);
        if is_without_answer(&error) {
            return self.unreachable(code_of(&words), &words);
        }
        if !is_token {
            return self.unreachable(code_of(&words), &words);
        }
        let who = &self.client.identity;
        match status_of(&error) {
            Some(429) => refused(
                Refusal::Throttled,
                format!("Entra ID throttles requests for {who}; try again later"),
                429,
                &words,
            ),
            Some(status @ (408 | 500..=599)) => refused(
                Refusal::Unreachable,
                format!("Entra ID failed to give a token for {who}; try again later"),
                status,
                &words,
            ),
            _ => self.refusal(Refusal::Identity, code_of_entra(&words), &words),
        }
    }

    fn answered(&self, status: StatusCode, error: azure_core::Error) -> Error {
        let (vault, number) = (&self.client.vault, u16::from(status));
        if let Some(message) = elsewhere(number, vault, &self.what(), "`vault` or `endpoint`") {
            return refused(Refusal::Unreachable, message, number, "");
        }
        let detail = ErrorResponse::try_from(error)
            .ok()
            .and_then(|answer| answer.error);
        let code = detail.as_ref().and_then(|detail| detail.code.clone());
        let inner = detail
            .as_ref()
            .and_then(|detail| detail.inner_error.as_ref()?.code.clone());
        let words = detail.and_then(|detail| detail.message).unwrap_or_default();
        let code = inner.or(code).unwrap_or_else(|| status.to_string());
        self.refusal(of_code(status, &code), &code, &words)
    }

    fn unreachable(&self, code: &str, words: &str) -> Error {
        let (vault, what) = (&self.client.vault, self.what());
        let keys = "`vault`, `endpoint`, `authority`";
        let message = format!("failed to ask `{vault}` for {what}; {}", advice(code, keys));
        refused(Refusal::Unreachable, message, code, words)
    }

    fn what(&self) -> String {
        if self.name.is_empty() {
            return "the identity".to_owned();
        }
        format!("`{}`", self.name)
    }

    fn refusal(&self, refusal: Refusal, code: &str, words: &str) -> Error {
        let (vault, who, what) = (&self.client.vault, &self.client.identity, self.what());
        let message = match refusal {
            Refusal::NotFound => format!(
                "`{vault}` has no secret {what}, or not that version of it, or it was deleted; create it there, or correct the reference"
            ),
            Refusal::Denied => format!(
                "{who} lacks `Microsoft.KeyVault/vaults/secrets/getSecret/action` on {what} in `{vault}`; give it the role `Key Vault Secrets User`"
            ),
            Refusal::Identity => format!(
                "Azure does not accept {who}; see that its secret or its token is right and not expired"
            ),
            Refusal::Disabled => {
                format!(
                    "{what} in `{vault}` is disabled or expired; enable it, or correct the reference"
                )
            }
            Refusal::Throttled => format!(
                "`{vault}` throttles reads of {what}; raise `access.cache`, or use another vault"
            ),
            Refusal::Malformed => {
                format!(
                    "`{vault}` cannot hold the name or the version of {what}; correct the reference"
                )
            }
            _ => format!("`{vault}` failed to read {what}; try again later"),
        };
        refused(refusal, message, code, words)
    }
}

/// The status of an answer somewhere down the causes.
fn status_of(error: &azure_core::Error) -> Option<u16> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        let error = cause.downcast_ref::<azure_core::Error>();
        if let Some(ErrorKind::HttpResponse { status, .. }) = error.map(azure_core::Error::kind) {
            return Some(u16::from(*status));
        }
        next = cause.source();
    }
    None
}

/// Whether there was an answer, and nobody could read it.
fn is_unreadable(error: &azure_core::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        let is_data = cause
            .downcast_ref::<azure_core::Error>()
            .is_some_and(|error| matches!(error.kind(), ErrorKind::DataConversion));
        if is_data || cause.is::<serde_json::Error>() {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Whether nobody answered, somewhere down the causes: at the vault, at Entra ID, at the metadata service.
fn is_without_answer(error: &azure_core::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<azure_core::Error>()
            && matches!(error.kind(), ErrorKind::Connection | ErrorKind::Io)
        {
            return true;
        }
        if let Some(error) = cause.downcast_ref::<reqwest::Error>() {
            return !error.is_status();
        }
        next = cause.source();
    }
    false
}

/// The code of Entra ID in its words (`AADSTS7000215: …`).
fn code_of_entra(words: &str) -> &str {
    let Some(at) = words.find("AADSTS") else {
        return "no credentials";
    };
    let code = &words[at..];
    code.find(|c: char| !c.is_ascii_alphanumeric())
        .map_or(code, |end| &code[..end])
}

/// What a status and a code come to. Disabled and forbidden are both 403: only the inner code tells.
fn of_code(status: StatusCode, code: &str) -> Refusal {
    let state = ["Disabled", "Expired", "NotYetValid"]
        .iter()
        .any(|word| code.contains(word));
    match u16::from(status) {
        404 => Refusal::NotFound,
        401 => Refusal::Identity,
        403 if state => Refusal::Disabled,
        403 => Refusal::Denied,
        409 => Refusal::Disabled,
        429 => Refusal::Throttled,
        408 | 500..=599 => Refusal::Unreachable,
        _ => Refusal::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        for (status, code, refusal) in [
            (StatusCode::NotFound, "SecretNotFound", Refusal::NotFound),
            (StatusCode::Forbidden, "ForbiddenByRbac", Refusal::Denied),
            (StatusCode::Forbidden, "SecretDisabled", Refusal::Disabled),
            (StatusCode::Unauthorized, "Unauthorized", Refusal::Identity),
            (StatusCode::TooManyRequests, "Throttled", Refusal::Throttled),
            (StatusCode::ServiceUnavailable, "", Refusal::Unreachable),
            (StatusCode::BadRequest, "BadParameter", Refusal::Malformed),
        ] {
            assert_eq!(of_code(status, code), refusal, "{code}");
        }
        assert_eq!(code_of_entra("x AADSTS7000215: bad"), "AADSTS7000215");
        assert_eq!(code_of_entra("nothing"), "no credentials");
    }
}
