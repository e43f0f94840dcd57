//! The SDK's transport over our HTTP client, so that roots, proxies and time limits are those of every store.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use reqwest::Method;

use crate::body::{self, Failed};
use crate::echo;

#[derive(Debug, Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    /// What a caller inside of the SDK wants, if it is shorter than ours: the metadata service gets a second.
    limit: Option<Duration>,
}

impl Http {
    pub(super) fn new(client: reqwest::Client) -> Self {
        Self {
            client,
            limit: None,
        }
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let other =
            |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::other(error, None);
        let method =
            Method::from_bytes(request.method().as_bytes()).map_err(|error| other(error.into()))?;
        let mut ours = self.client.request(method, request.uri());
        for (name, value) in request.headers() {
            ours = ours.header(name, value);
        }
        if let Some(limit) = self.limit {
            ours = ours.timeout(limit);
        }
        let body = request.body().bytes();
        let body =
            body.ok_or_else(|| other("a body that is a stream is not needed here".into()))?;
        let answer = ours.body(body.to_vec()).send().await.map_err(failed)?;
        let status =
            StatusCode::try_from(answer.status().as_u16()).map_err(|error| other(error.into()))?;
        let headers = answer.headers().clone();
        let mut body = body::read(answer).await.map_err(failed)?;
        if !status.is_success() {
            let given = request.headers().iter();
            let given = given.map(|(name, value)| (name, value.as_bytes()));
            let asked = request.body().bytes().unwrap_or_default();
            echo::leave_out(&mut body, given, asked);
        }
        let mut response = HttpResponse::new(status, SdkBody::from(body.to_vec()));
        for (name, value) in &headers {
            // Of the body as it came; what is left of it may be shorter.
            if name == reqwest::header::CONTENT_LENGTH {
                continue;
            }
            if let Ok(value) = value.to_str() {
                response
                    .headers_mut()
                    .append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

fn failed(error: impl Into<Failed>) -> ConnectorError {
    let error = error.into();
    if error.way().is_some_and(reqwest::Error::is_timeout) {
        ConnectorError::timeout(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl HttpClient for Http {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Self {
            limit: settings.read_timeout(),
            ..self.clone()
        })
    }
}
