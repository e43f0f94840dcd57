//! The SDK's transport over our HTTP client, with a bound on what it reads of an answer.

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::response::PinnedStream;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use futures::StreamExt as _;

use crate::body::{Failed, LONGEST};

#[derive(Debug)]
pub(super) struct Http(pub(super) reqwest::Client);

#[async_trait]
impl HttpClient for Http {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = self.0.execute_request(request).await?;
        let (status, headers, body) = answer.deconstruct();
        let mut read = 0;
        let bounded: PinnedStream = Box::pin(body.map(move |part| {
            let part = part?;
            read += part.len();
            if read > LONGEST {
                return Err(azure_core::Error::new(ErrorKind::Io, Failed::TooLong));
            }
            Ok(part)
        }));
        Ok(AsyncRawResponse::new(status, headers, bounded))
    }
}
