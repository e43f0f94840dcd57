//! The REST API under `/api/v1`, and what operators ask at the root.
//!
//! | file | holds |
//! |---|---|
//! | `auth` | who may ask |
//! | `error`, `extract` | errors in one shape, also of what cannot be read |
//! | `view` | runs and runners as they are shown |
//! | `submit`, `runs`, `stop` | a run's way in; list, look, wait; asking it to end |
//! | `logs` | reading and following output |
//! | `runners`, `tokens` | who is connected; who may ask |
//! | `health` | liveness, readiness, metrics |
//! | `document` | the description of all this |
//!
//! What is acknowledged is on disk: every answer to a change waits for the sync, the change itself does not.

mod auth;
mod document;
mod error;
mod extract;
mod health;
mod logs;
mod runners;
mod runs;
mod stop;
mod submit;
mod tokens;
mod view;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use hybrid_runner_core::ErrorKind;
use hybrid_runner_core::session::LINK_PATH;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
pub(crate) use error::ApiError;

/// The longest body: a run must also fit into one message of the link.
const MAX_BODY: usize = 900 << 10;

#[derive(OpenApi)]
#[openapi(
    info(title = "hybrid-runner", description = "The control plane of hybrid-runner."),
    components(schemas(error::Answer)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

/// Everything that the server answers.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let (api, document) = documented().split_for_parts();
    let document = Json(document::document(&document));
    let clients = api
        .route(
            "/api/v1/openapi.json",
            get(move || std::future::ready(document.clone())),
        )
        .route("/metrics", get(health::metrics))
        .layer(from_fn(auth::clients));
    let admins = tokens_router()
        .split_for_parts()
        .0
        .layer(from_fn(auth::admins));
    let link = Router::new().route(LINK_PATH, get(crate::link::connect));
    let closed = clients
        .merge(admins)
        .merge(link)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .fallback(nothing_here)
        .layer(from_fn_with_state(Arc::clone(app), auth::identify));
    let open = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/api/v1/healthz", get(health::healthz))
        .route("/api/v1/readyz", get(health::readyz));
    open.merge(closed).with_state(Arc::clone(app))
}

fn documented() -> OpenApiRouter<Arc<App>> {
    let mut document = Document::openapi();
    document.merge(tokens_router().into_openapi());
    OpenApiRouter::with_openapi(document)
        .routes(routes!(submit::submit, runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(stop::stop))
        .routes(routes!(logs::read))
        .routes(routes!(runners::list))
        .routes(routes!(runners::show))
}

fn tokens_router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
}

async fn nothing_here() -> axum::response::Response {
    let message =
        "there is nothing at this address; `GET /api/v1/openapi.json` lists what there is";
    ApiError::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message).into_response()
}
