//! A control plane from bind to shutdown.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::{Error, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::info;

use crate::access::{ADMIN_TOKEN, NewToken, Token};
use crate::app::App;
use crate::config::Config;
use crate::{api, listen, sweep};

/// Links may take this long to say goodbye.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A control plane that is bound, and not yet serving.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Acceptor>,
}

/// Kept apart because it has no `Debug`.
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// Runs a control plane until `shutdown`, then lets what is under way end, within a bound.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let server = Server::bind(config).await?;
    info!(url = %server.url(), admin_token = %server.admin_token_path().display(), "serving");
    server.serve(shutdown).await;
    Ok(())
}

impl Server {
    /// Opens what is on disk and binds the address. Nobody is answered before [`Server::serve`].
    ///
    /// # Errors
    /// `Invalid` for a config that would send tokens in the clear or names unreadable TLS files, `Conflict` when
    /// another process has the data folder or the address, `Unsupported` when a newer version wrote the data,
    /// `Unavailable` when the disk refuses.
    pub async fn bind(config: Config) -> Result<Self> {
        config.validate()?;
        raise_descriptor_limit();
        let tls = config
            .tls
            .as_ref()
            .map(listen::acceptor)
            .transpose()?
            .map(Acceptor);
        make_private(&config.data_dir)?;
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::AddrInUse => hybrid_runner_core::ErrorKind::Conflict,
                std::io::ErrorKind::PermissionDenied => hybrid_runner_core::ErrorKind::Denied,
                _ => hybrid_runner_core::ErrorKind::Unavailable,
            };
            Error::new(kind, format!("failed to listen on `{}`", config.listen)).with_source(error)
        })?;
        let address = listener.local_addr().map_err(|error| {
            Error::internal("failed to read the address that was bound").with_source(error)
        })?;
        let app = Arc::new(Box::pin(App::open(config)).await?);
        Ok(Self {
            app,
            listener,
            address,
            tls,
        })
    }

    #[cfg(test)]
    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where runners find it.
    pub fn link_url(&self) -> String {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        format!(
            "{scheme}://{}{}",
            self.address,
            hybrid_runner_core::session::LINK_PATH
        )
    }

    /// The file with the first admin's token.
    pub fn admin_token_path(&self) -> PathBuf {
        self.app.config.data_dir.join(ADMIN_TOKEN)
    }

    /// Makes a token; it is safe on disk when this returns.
    pub async fn create_token(&self, new: &NewToken) -> Result<Token> {
        let (stored, secret) = self.app.access.create(new).await?;
        Ok(Token {
            id: stored.id,
            secret,
        })
    }

    /// Serves until `shutdown`, then lets what is under way end, within a bound. Runs go on without it.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self {
            app, listener, tls, ..
        } = self;
        let mut tasks = JoinSet::new();
        let router = api::router(&app);
        let tls = tls.map(|Acceptor(tls)| tls);
        tasks.spawn(listen::serve(listener, tls, router, app.shutdown.clone()));
        tasks.spawn(sweep::sweep(Arc::clone(&app)));
        tokio::select! {
            () = shutdown => info!("shutting down"),
            // Neither ends by itself; if one panicked, a server that does half of its work helps nobody.
            Some(ended) = tasks.join_next() => tracing::error!(?ended, "a part of the server ended"),
        }
        app.shutdown.cancel();
        while tasks.join_next().await.is_some() {}
        app.links.close();
        if tokio::time::timeout(LAST_WORDS, app.links.wait())
            .await
            .is_err()
        {
            info!(links = app.links.len(), "some links did not end in time");
        }
        app.close().await;
    }
}

/// A link needs a descriptor, and the usual soft limit of 1,024 is for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "failed to raise the limit of open files");
    }
}

fn make_private(dir: &Path) -> Result<()> {
    let failed = |error| {
        Error::unavailable(format!(
            "failed to make the data folder `{}`",
            dir.display()
        ))
        .with_source(error)
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let mode = fs::metadata(dir).map_err(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        tracing::warn!(dir = %dir.display(), mode = format!("{:o}", mode & 0o777), "the data folder can be read by everybody on this machine");
    }
    Ok(())
}
