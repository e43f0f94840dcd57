//! A way to the API server that can be cut.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on until it is cut.
pub(crate) struct Tunnel {
    address: SocketAddr,
    /// Whether it is open.
    open: watch::Sender<bool>,
    /// Ends with it.
    _task: JoinSet<()>,
}

impl Tunnel {
    /// To this host and port.
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let mut task = JoinSet::new();
        task.spawn(serve(listener, target.to_owned(), open.subscribe()));
        Self {
            address,
            open,
            _task: task,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Breaks all connections, and accepts none for a while.
    pub(crate) async fn cut(&self, time: Duration) {
        self.open.send_replace(false);
        tokio::time::sleep(time).await;
        self.open.send_replace(true);
    }
}

async fn serve(listener: TcpListener, target: String, open: watch::Receiver<bool>) {
    let mut passing = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let (target, mut open) = (target.clone(), open.clone());
        if !*open.borrow_and_update() {
            continue;
        }
        passing.spawn(async move {
            let Ok(mut far) = TcpStream::connect(target).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = open.changed() => {}
            }
        });
        while passing.try_join_next().is_some() {}
    }
}
