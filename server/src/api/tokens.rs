//! Who may ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use hybrid_runner_core::AgentId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::error::{Answer, ApiError, Result};
use super::extract::Body;
use crate::access::{NewToken, Role};
use crate::app::App;
use crate::store::time;
use crate::store::tokens::Stored;

/// A token that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRequest {
    /// What it may be used for.
    role: Role,
    /// The runner it is for; with role `runner`, and only there.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    agent: Option<AgentId>,
    /// A name for people; stands in runs that are stopped with it.
    #[serde(default)]
    name: Option<String>,
}

/// A token, without what makes it one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub(super) struct TokenView {
    id: String,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[schema(value_type = String)]
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    revoked: Option<Timestamp>,
    /// The token itself: shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenView {
    fn new(stored: Stored, token: Option<String>) -> Self {
        Self {
            id: stored.id,
            role: stored.role,
            agent: stored.agent.map(|agent| agent.to_string()),
            name: stored.name,
            created: time(stored.created),
            revoked: stored.revoked.map(time),
            token,
        }
    }
}

/// Tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenList {
    /// The oldest first.
    tokens: Vec<TokenView>,
}

/// Makes a token.
#[utoipa::path(post, path = "/api/v1/tokens", request_body = TokenRequest, responses(
    (status = 201, description = "The token; it cannot be shown again", body = TokenView),
    (status = 400, description = "Role and agent do not fit", body = Answer),
    (status = 403, description = "Only an admin may", body = Answer),
))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<TokenView>)> {
    let new = NewToken {
        role: request.role,
        agent: request.agent,
        name: request.name,
    };
    let (stored, secret) = app.access.create(&new).await?;
    info!(
        token = stored.id,
        role = stored.role.as_str(),
        "made a token"
    );
    // For who asked for it, and nobody else, ever.
    let token = secret.expose_text()?.to_owned();
    Ok((
        StatusCode::CREATED,
        Json(TokenView::new(stored, Some(token))),
    ))
}

/// Lists tokens.
#[utoipa::path(get, path = "/api/v1/tokens", responses(
    (status = 200, description = "Tokens, revoked ones too", body = TokenList),
    (status = 403, description = "Only an admin may", body = Answer),
))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Json<TokenList> {
    let tokens = app
        .access
        .all()
        .into_iter()
        .map(|stored| TokenView::new(stored, None))
        .collect();
    Json(TokenList { tokens })
}

/// Makes a token worthless; what is connected with it is cut off.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", params(("id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "Revoked, now or before"),
    (status = 404, description = "There is none", body = Answer),
))]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let revoking = Arc::clone(&app);
    app.to_the_end(async move {
        revoking.access.revoke(&id).await?;
        info!(token = id, "revoked a token");
        Ok::<_, ApiError>(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
