//! An admission webhook that answers: always no.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::place::Place;

/// It ends with this value.
pub(crate) struct Webhook {
    pub(crate) url: String,
    /// Its certificate.
    pub(crate) pem: String,
    _serving: JoinSet<()>,
}

impl Webhook {
    /// Says no to everything, in these words, where the API server of a place can reach it.
    pub(crate) async fn that_says(words: &'static str, place: &Place) -> Self {
        // The address that we have on the way there; nothing is sent.
        let way = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        way.connect(place.server_address()).await.unwrap();
        let own = way.local_addr().unwrap().ip();
        let listener = TcpListener::bind((own, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([address.ip().to_string()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let listener = Tls {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(server)),
        };
        let app = Router::new().route("/", post(async move |asked| no(asked, words)));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url: format!("https://{address}/"),
            pem: certificate.pem(),
            _serving: serving,
        }
    }
}

fn no(Json(asked): Json<Value>, words: &str) -> Json<Value> {
    let uid = asked["request"]["uid"].clone();
    Json(json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": { "uid": uid, "allowed": false, "status": { "code": 403, "message": words } },
    }))
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                continue;
            };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
