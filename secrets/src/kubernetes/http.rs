//! What stands between the client and the API server: a bound on what is read of an answer, and no credential in a refusal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};

use futures::future::{BoxFuture, ready};
use futures::{FutureExt as _, TryFutureExt as _};
use http::response::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use kube::client::{Body, DynBody};
use serde_json::json;
use tower::{BoxError, Layer, Service};
use zeroize::Zeroizing;

use crate::body::LONGEST;
use crate::echo;

/// The layer of [`Http`].
pub(super) struct Layered;

impl<S> Layer<S> for Layered {
    type Service = Http<S>;

    fn layer(&self, inner: S) -> Http<S> {
        Http(Arc::new(Mutex::new(inner)))
    }
}

/// Asks what is below, and reads the answer. Clones are the same one, which what shows tokens wants: below is a client that can
/// only be moved.
pub(super) struct Http<S>(Arc<Mutex<S>>);

impl<S> Clone for Http<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Http<S> {
    fn below(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Read = Either<Limited<Box<DynBody>>, Full<bytes::Bytes>>;

impl<S> Service<Request<Body>> for Http<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Read>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.below().poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let given = request.headers().clone();
        let asked = self.below().call(request);
        asked.and_then(|answer| read(answer, given)).boxed()
    }
}

/// The client takes an answer that sends elsewhere for a good one: it is told what it knows as a refusal.
fn refused(mut head: Parts, mut refusal: Vec<u8>) -> Response<Read> {
    if head.status.is_redirection() {
        let code = head.status.as_u16();
        let status = json!({ "status": "Failure", "message": "", "reason": "", "code": code });
        refusal = status.to_string().into_bytes();
        head.status = StatusCode::BAD_GATEWAY;
    }
    Response::from_parts(head, Either::Right(Full::from(refusal)))
}

// As an `async fn` it would not be seen to be `Send`.
fn read(
    answer: Response<Box<DynBody>>,
    given: HeaderMap,
) -> impl Future<Output = Result<Response<Read>, BoxError>> + Send {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LONGEST);
    if head.status.is_success() || head.status.is_informational() {
        let answer = Response::from_parts(head, Either::Left(body));
        return ready(Ok(answer)).left_future();
    }
    let whole = body.collect();
    let refusal = whole.map_ok(move |whole| {
        let mut refusal = Zeroizing::new(whole.to_bytes().to_vec());
        echo::leave_out_headers(&mut refusal, &given);
        refused(head, refusal.to_vec())
    });
    refusal.right_future()
}
