//! The SDK's transport over our HTTP client, with a bound on what it reads of an answer, and no credential in a refusal.

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::response::PinnedStream;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request};
use futures::StreamExt as _;
use zeroize::Zeroizing;

use crate::body::{Failed, LONGEST};
use crate::echo;

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
        let answer = AsyncRawResponse::new(status, headers, bounded);
        if status.is_success() {
            return Ok(answer);
        }
        let (status, headers, body) = answer.deconstruct();
        let mut refusal = Zeroizing::new(body.collect().await?.to_vec());
        let given = request.headers().iter();
        let given = given.map(|(name, value)| (name.as_str(), value.as_str().as_bytes()));
        let asked: &[u8] = match request.body() {
            Body::Bytes(bytes) => bytes,
            Body::SeekableStream(_) => &[],
        };
        echo::leave_out(&mut refusal, given, asked);
        Ok(AsyncRawResponse::from_bytes(
            status,
            headers,
            refusal.to_vec(),
        ))
    }
}
