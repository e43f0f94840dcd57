//! Reading requests, so that what is wrong is told in the API's own shape.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use hybrid_runner_core::{Error, ErrorKind};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body. No body reads as `{}`.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| unread(&error))?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text)
            .map(Self)
            .map_err(|error| Error::invalid(format!("the body does not fit: {error}")).into())
    }
}

fn unread(error: &BytesRejection) -> ApiError {
    let status = error.status();
    let kind = ErrorKind::Invalid;
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::new(
            status,
            kind,
            format!("the body is longer than {} bytes", super::MAX_BODY),
        );
    }
    ApiError::new(status, kind, format!("failed to read the body: {error}"))
}

/// The parameters behind `?`.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| {
                Error::invalid(format!("the parameters do not fit: {}", error.body_text())).into()
            })
    }
}
