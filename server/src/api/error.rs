//! The one shape of all errors of the API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hybrid_runner_core::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// An error as it is answered.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Told,
}

/// What is answered instead of what was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    error: Told,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Told {
    /// What can be done: `invalid`, `not_found`, `denied`, `conflict`, `unsupported`, `unavailable`, `internal`.
    kind: &'static str,
    /// What happened and what to do.
    message: String,
    /// What an ambiguous id may have meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<String>,
}

/// A result of the API.
pub(crate) type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        let body = Told {
            kind: kind.as_str(),
            message: message.into(),
            candidates: Vec::new(),
        };
        Self { status, body }
    }

    /// 401: who is it?
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorKind::Denied, message)
    }

    /// 403: known, but not allowed.
    pub(crate) fn forbidden(error: Error) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            ..Self::from(error)
        }
    }

    /// 409 with what an ambiguous id may have meant.
    pub(crate) fn ambiguous(message: String, candidates: Vec<String>) -> Self {
        let mut error = Self::new(StatusCode::CONFLICT, ErrorKind::Conflict, message);
        error.body.candidates = candidates;
        error
    }

    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %error.report(), "a request failed");
        }
        Self::new(status, error.kind(), error.report())
    }
}

impl From<hybrid_runner_store::Error> for ApiError {
    fn from(error: hybrid_runner_store::Error) -> Self {
        let full = matches!(error, hybrid_runner_store::Error::Full(_));
        let answer = Self::from(Error::from(error));
        if full {
            answer.with_status(StatusCode::INSUFFICIENT_STORAGE)
        } else {
            answer
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Answer { error: self.body })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = axum::http::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(axum::http::header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
