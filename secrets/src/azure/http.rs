//! The SDK's transport over our HTTP client, with a bound on what it reads of an answer, and no credential in a refusal.

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::response::PinnedStream;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request};
use futures::StreamExt as _;
use serde_json::Value;
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
        let refusal = without_escapes(&refusal).unwrap_or_else(|| refusal.to_vec());
        Ok(AsyncRawResponse::from_bytes(status, headers, refusal))
    }
}

/// A document without the characters that JSON escapes: the library for identities cannot read one with them, and Entra ID
/// breaks the lines of each refusal.
fn without_escapes(refusal: &[u8]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(refusal).ok()?;
    let mut todo = vec![&mut document];
    while let Some(value) = todo.pop() {
        match value {
            Value::String(text) => {
                *text = text.replace('"', "'").replace('\\', "/");
                *text = text.replace(char::is_control, " ");
            }
            Value::Array(items) => todo.extend(items),
            Value::Object(members) => todo.extend(members.values_mut()),
            _ => {}
        }
    }
    serde_json::to_vec(&document).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_has_no_escapes_and_means_the_same() {
        let refusal = br#"{"error":"invalid_client","error_description":"AADSTS7000215: \"x\"\r\nTrace ID: 1\u00e4","error_codes":[7000215]}"#;
        let left = String::from_utf8(without_escapes(refusal).unwrap()).unwrap();
        assert!(!left.contains('\\'), "{left}");
        assert!(
            left.contains("AADSTS7000215: 'x'  Trace ID: 1\u{e4}"),
            "{left}"
        );
        assert!(left.contains("[7000215]"), "{left}");
        assert_eq!(without_escapes(b"<html>"), None);
    }
}
