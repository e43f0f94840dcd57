//! The SDK's transport over our HTTP client, so that roots, proxies and time limits are those of every store.

use google_cloud_auth::credentials::{CacheableResource, Credentials};
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Status;
use google_cloud_gax::options::RequestOptions;
use google_cloud_gax::response::Response;
use google_cloud_secretmanager_v1::model::{
    AccessSecretVersionRequest, AccessSecretVersionResponse,
};
use google_cloud_secretmanager_v1::stub::SecretManagerService;

use crate::body::{self, Failed};
use crate::echo;

/// Makes the one request that is needed here.
#[derive(Debug)]
pub(super) struct Http {
    pub client: reqwest::Client,
    pub credentials: Credentials,
    pub endpoint: String,
}

impl SecretManagerService for Http {
    async fn access_secret_version(
        &self,
        request: AccessSecretVersionRequest,
        _: RequestOptions,
    ) -> Result<Response<AccessSecretVersionResponse>, Error> {
        let headers = self.credentials.headers(http::Extensions::new()).await;
        let CacheableResource::New { data: given, .. } = headers.map_err(Error::authentication)?
        else {
            return Err(Error::io("no token although none was at hand"));
        };
        let url = format!("{}/v1/{}:access", self.endpoint, request.name);
        let answer = self
            .client
            .get(url)
            .headers(given.clone())
            .send()
            .await
            .map_err(failed)?;
        let status = answer.status();
        if status.is_success() {
            let body = body::read(answer).await.map_err(failed)?;
            // Its position may tell of values: nothing of the error goes on.
            let found = serde_json::from_slice(&body)
                .map_err(|_| Error::deser("not an answer of Secret Manager"));
            return found.map(Response::from);
        }
        let headers = answer.headers().clone();
        let mut body = body::read(answer).await.map_err(failed)?;
        echo::leave_out_headers(&mut body, &given);
        let body = bytes::Bytes::copy_from_slice(&body);
        Err(match Status::try_from(&body) {
            Ok(said) => {
                Error::service_with_http_metadata(said, Some(status.as_u16()), Some(headers))
            }
            Err(_) => Error::http(status.as_u16(), headers, bytes::Bytes::new()),
        })
    }
}

fn failed(error: impl Into<Failed>) -> Error {
    let error = error.into();
    if error.way().is_some_and(reqwest::Error::is_timeout) {
        Error::timeout(error)
    } else if error.way().is_some_and(reqwest::Error::is_connect) {
        Error::connect(error)
    } else {
        Error::io(error)
    }
}
