//! Who may ask.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use hybrid_runner_core::Error;

use super::error::{ApiError, Result};
use crate::access::{Caller, Role};
use crate::app::App;

/// Lets in who has a token, and says who it is.
pub(super) async fn identify(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let header = request.headers().get(AUTHORIZATION);
    let header = header.ok_or_else(|| {
        ApiError::unauthorized("this needs a token: send `Authorization: Bearer hr_…`; the admin's is in `admin.token` in the server's data folder")
    })?;
    let token = header.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    let caller = token.and_then(|token| app.access.authenticate(token));
    let caller = caller
        .ok_or_else(|| ApiError::unauthorized("this token is not known here, or was revoked"))?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Lets clients and admins through.
pub(super) async fn clients(request: Request, next: Next) -> Result<Response> {
    require(&request, &[Role::Client, Role::Admin])?;
    Ok(next.run(request).await)
}

/// Lets admins through.
pub(super) async fn admins(request: Request, next: Next) -> Result<Response> {
    require(&request, &[Role::Admin])?;
    Ok(next.run(request).await)
}

fn require(request: &Request, roles: &[Role]) -> Result<()> {
    let role = request
        .extensions()
        .get::<Caller>()
        .map(|caller| caller.role);
    match role {
        Some(role) if roles.contains(&role) => Ok(()),
        Some(role) => Err(ApiError::forbidden(Error::denied(format!(
            "a token of role `{}` may not do this; it needs role `{}`",
            role.as_str(),
            roles
                .iter()
                .map(|role| role.as_str())
                .collect::<Vec<_>>()
                .join("` or `")
        )))),
        None => Err(ApiError::unauthorized("this needs a token")),
    }
}
