//! Both ends of the link by hand.

use futures::{SinkExt as _, StreamExt as _};
use hybrid_runner_core::session::{LINK_PATH, SUBPROTOCOL};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

/// One end of a link.
#[derive(Debug)]
pub struct End(WebSocketStream<TcpStream>);

impl End {
    /// Dials a server with a token, as a runner does.
    pub async fn dial(address: &str, token: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        let mut request = format!("ws://{address}{LINK_PATH}").into_client_request()?;
        let bearer =
            HeaderValue::from_str(&format!("Bearer {token}")).expect("a token fits a header");
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
        let (socket, _) = client_async(request, stream).await?;
        Ok(Self(socket))
    }

    /// Takes the next runner that dials, whatever its token.
    #[expect(
        clippy::result_large_err,
        reason = "the callback's type is tungstenite's"
    )]
    pub async fn accept(listener: &TcpListener) -> Self {
        let agree = |_: &Request, mut response: Response| {
            let protocol = HeaderValue::from_static(SUBPROTOCOL);
            response
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            Ok(response)
        };
        loop {
            let (stream, _) = listener.accept().await.expect("a listener listens");
            if let Ok(socket) = accept_hdr_async(stream, agree).await {
                return Self(socket);
            }
        }
    }

    /// Sends a text as it is.
    pub async fn send(&mut self, text: impl Into<String>) -> Result<(), Error> {
        self.0.send(Message::Text(text.into().into())).await
    }

    /// Sends any frame.
    pub async fn send_frame(&mut self, message: Message) -> Result<(), Error> {
        self.0.send(message).await
    }

    /// The next message that is text; none when the other end has closed.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await? {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(&text).expect("the product sends JSON"));
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits for the runner's hello and welcomes it.
    pub async fn welcome(&mut self) -> Value {
        let hello = self.next().await.expect("a runner says hello first");
        assert_eq!(hello["method"], "hello", "{hello}");
        let welcome =
            json!({"version": "v1-preview", "server": "by-hand", "epoch": 1, "heartbeat": "15s"});
        let answer = json!({"jsonrpc": "2.0", "id": hello["id"], "result": welcome});
        self.send(answer.to_string())
            .await
            .expect("a runner that has just said hello is there");
        hello
    }
}
