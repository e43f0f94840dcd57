//! A proxy for CONNECT: whatever host is asked for, one front answers. So a store is called by its real name.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The proxy; it ends with this value.
#[derive(Debug)]
pub(crate) struct Tunnel {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Tunnel {
    pub(crate) async fn to(front: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, front, Arc::clone(&seen)));
            }
        });
        Self {
            address,
            asked,
            _serving: serving,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://user:pass@{}", self.address)
    }

    /// Panics unless it was asked for this host and port, with its password.
    #[track_caller]
    pub(crate) fn assert_asked(&self, host: &str) {
        let asked = self.asked();
        let begin = format!("CONNECT {host} ");
        let head = asked.iter().find(|head| head.starts_with(&begin));
        let head = head.unwrap_or_else(|| panic!("`{host}` is not among {asked:?}"));
        assert!(head.contains("Basic dXNlcjpwYXNz"), "{head}");
    }

    /// The hosts that were asked for, and what authorized it.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, front: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    asked.lock().unwrap().push(head);
    let Ok(mut there) = TcpStream::connect(front).await else {
        return;
    };
    if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
        // Either side may hang up.
        drop(copy_bidirectional(&mut stream, &mut there).await);
    }
}
