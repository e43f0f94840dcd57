//! Answers of AWS in words of the contract.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use hybrid_runner_core::error::{Error, causes};

use super::client::Clients;
use crate::Refusal;
use crate::answer::refused;
use crate::web::{advice, code_of, elsewhere};

/// The key of the section that says where the token service is.
const STS: &str = "`sts_endpoint`";

/// What was asked for, for the error.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    clients: &'a Clients,
    /// The right that it takes.
    right: &'a str,
    /// The secret's own name; empty for "who am I".
    id: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn to_read(clients: &'a Clients, right: &'a str, id: &'a str) -> Self {
        Self { clients, right, id }
    }

    pub(super) fn who(clients: &'a Clients) -> Self {
        Self::to_read(clients, "sts:GetCallerIdentity", "")
    }

    /// The error of the SDK: never printed whole, as it may hold an answer.
    pub(super) fn failed<E, R>(&self, error: &SdkError<E, R>) -> Error
    where
        E: ProvideErrorMetadata + StdError + 'static,
        R: std::fmt::Debug + Status + 'static,
    {
        let code = error.code().unwrap_or_default();
        let status = error.raw_response().map(Status::status);
        match error {
            SdkError::ServiceError(_) | SdkError::ResponseError(_)
                if !code.is_empty() || status.is_some() =>
            {
                let region = &self.clients.region;
                let aws = format!("AWS ({region})");
                let keys = "`endpoint` or `region`";
                if let Some(status) = status
                    && let Some(message) = elsewhere(status, &aws, &self.what(), keys)
                {
                    return refused(Refusal::Unreachable, message, status, "");
                }
                let code = if code.is_empty() { "no code" } else { code };
                self.answered(
                    of_code(code, status),
                    code,
                    error.message().unwrap_or_default(),
                )
            }
            SdkError::TimeoutError(_) => self.unreachable("timed out", ""),
            other => self.without_answer(other),
        }
    }

    /// There was no identity, or no way.
    fn without_answer(&self, error: &(dyn StdError + 'static)) -> Error {
        let words = causes(error);
        let mut next = Some(error);
        let mut identity = false;
        while let Some(cause) = next {
            identity |= cause.downcast_ref::<CredentialsError>().is_some();
            if let Some(error) = self.not_granted(cause) {
                return error;
            }
            // Whatever else kept a request from being sent is packed into one as well.
            let connector = cause.downcast_ref::<ConnectorError>();
            if connector.is_some_and(|error| error.is_io() || error.is_timeout()) {
                return self.not_sent(identity, code_of(&words), &words);
            }
            next = cause.source();
        }
        if identity && !matches!(code_of(&words), "timed out" | "connection refused") {
            return self.answered(Refusal::Identity, "no credentials", &words);
        }
        self.not_sent(identity, code_of(&words), &words)
    }

    /// What the token service says that has nothing against the identity.
    fn not_granted(&self, cause: &(dyn StdError + 'static)) -> Option<Error> {
        let said = said::<AssumeRoleError>(cause)
            .or_else(|| said::<AssumeRoleWithWebIdentityError>(cause))?;
        let (who, region) = (&self.clients.identity, &self.clients.region);
        let sts = format!("the token service of AWS ({region})");
        let status = said.status.unwrap_or_default();
        if let Some(message) = elsewhere(status, &sts, &self.what(), STS) {
            return Some(refused(Refusal::Unreachable, message, status, ""));
        }
        if said.code.is_empty() {
            let message = format!(
                "the answer for {who} is none of {sts}; see that it is the right place ({STS}, `proxy`)"
            );
            return Some(refused(Refusal::Unreachable, message, status, ""));
        }
        let refusal = of_code(&said.code, said.status);
        let message = match refusal {
            Refusal::Throttled => format!("{sts} throttles requests for {who}; try again later"),
            Refusal::Unreachable => {
                format!("{sts} failed to give a token for {who}; try again later")
            }
            _ => return None,
        };
        Some(refused(refusal, message, &said.code, &said.words))
    }

    /// Where an identity was to be had from, or at the service itself.
    fn not_sent(&self, identity: bool, code: &str, words: &str) -> Error {
        if !identity {
            return self.unreachable(code, words);
        }
        let who = &self.clients.identity;
        let message = format!("failed to get a token for {who}; {}", advice(code, STS));
        refused(Refusal::Unreachable, message, code, words)
    }

    fn unreachable(&self, code: &str, words: &str) -> Error {
        let message = format!(
            "failed to ask AWS ({}) for {}; {}",
            self.clients.region,
            self.what(),
            advice(
                code,
                if self.id.is_empty() {
                    STS
                } else {
                    "`endpoint`"
                }
            )
        );
        refused(Refusal::Unreachable, message, code, words)
    }

    fn what(&self) -> String {
        if self.id.is_empty() {
            return "the identity".to_owned();
        }
        format!("`{}`", self.id)
    }

    fn answered(&self, refusal: Refusal, code: &str, words: &str) -> Error {
        let (what, who, right) = (self.what(), &self.clients.identity, self.right);
        let region = &self.clients.region;
        let message = match refusal {
            Refusal::NotFound => {
                format!(
                    "AWS ({region}) has no {what}, or not that version of it; create it there, or correct the reference"
                )
            }
            Refusal::Denied => format!("{who} lacks `{right}` on {what}; allow it in its policy"),
            Refusal::Identity => format!(
                "AWS does not accept {who}; see that its keys or its role are right and not expired"
            ),
            Refusal::Disabled => {
                format!(
                    "{what} is deleted, or its key is disabled; restore it, or correct the reference"
                )
            }
            Refusal::Throttled => {
                format!("AWS throttles reads of {what}; raise the quota, or `access.cache`")
            }
            Refusal::Malformed => {
                format!("AWS cannot hold the name or the version of {what}; correct the reference")
            }
            _ => format!("AWS ({region}) failed to read {what}; try again later"),
        };
        refused(refusal, message, code, words)
    }
}

/// What a service said.
struct Said {
    code: String,
    words: String,
    status: Option<u16>,
}

/// What is said by an error of this operation, if it is one.
fn said<E>(cause: &(dyn StdError + 'static)) -> Option<Said>
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let error = cause.downcast_ref::<SdkError<E, HttpResponse>>()?;
    let status = error.raw_response().map(Status::status);
    let is_answer = matches!(
        error,
        SdkError::ServiceError(_) | SdkError::ResponseError(_)
    );
    is_answer.then(|| Said {
        code: error.code().unwrap_or_default().to_owned(),
        words: error.message().unwrap_or_default().to_owned(),
        status,
    })
}

/// The HTTP status of an answer.
pub(super) trait Status {
    fn status(&self) -> u16;
}

impl Status for HttpResponse {
    fn status(&self) -> u16 {
        self.status().as_u16()
    }
}

/// What a code of AWS comes to.
fn of_code(code: &str, status: Option<u16>) -> Refusal {
    match code {
        "ResourceNotFoundException" | "ParameterNotFound" | "ParameterVersionNotFound" => {
            Refusal::NotFound
        }
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => Refusal::Denied,
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidIdentityToken"
        | "NotAuthorized" => Refusal::Identity,
        "InvalidRequestException"
        | "DecryptionFailure"
        | "InvalidKeyId"
        | "KMSDisabledException"
        | "KMSInvalidStateException" => Refusal::Disabled,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "SlowDown" => Refusal::Throttled,
        _ => match status {
            Some(429) => Refusal::Throttled,
            Some(401) => Refusal::Identity,
            Some(403) => Refusal::Denied,
            Some(400..=499) => Refusal::Malformed,
            _ => Refusal::Unreachable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_and_unknown_ones_by_their_status() {
        for (code, status, refusal) in [
            ("ParameterVersionNotFound", 400, Refusal::NotFound),
            ("AccessDeniedException", 400, Refusal::Denied),
            ("ExpiredTokenException", 400, Refusal::Identity),
            ("InvalidRequestException", 400, Refusal::Disabled),
            ("ThrottlingException", 400, Refusal::Throttled),
            ("ValidationException", 400, Refusal::Malformed),
            ("InternalServiceError", 500, Refusal::Unreachable),
            ("no code", 503, Refusal::Unreachable),
            ("no code", 401, Refusal::Identity),
            ("no code", 403, Refusal::Denied),
        ] {
            assert_eq!(of_code(code, Some(status)), refusal, "{code}");
        }
    }
}
