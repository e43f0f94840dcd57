//! The plugin's side: serves kinds over stdin and stdout.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;

use super::hello::{Contract, PluginHello, PluginWelcome};
use super::lines::Lines;
use super::store::StoreService;
use crate::error::{Error, Result};
use crate::executor::{Executor, Progress};
use crate::kind::{Context, Kind};
use crate::secret::{SecretName, SecretProvider, SecretValue};
use crate::session::hello::negotiate;
use crate::session::{
    Closed, ExecutorService, Items, Options, Service, Session, Transport, unknown_method,
};

/// Requests that a plugin answers at once: a thousand runs being started, and as many more questions.
const AT_ONCE: usize = 16 << 10;

/// A program that serves executors and secret stores to a runner. See the [module](super).
#[derive(Debug)]
pub struct Plugin {
    software: String,
    executor: Option<Kind<dyn Executor>>,
    secrets: Option<Kind<dyn SecretProvider>>,
    put: Option<PutValue>,
}

/// Puts a value into a store, for a test, under a name with this label; none if the store cannot hold it.
pub type PutValue = fn(&Context, &str, &SecretValue) -> Result<Option<SecretName>>;

impl Plugin {
    /// A plugin; `software` is its name and version, for people.
    pub fn new(software: impl Into<String>) -> Self {
        Self {
            software: software.into(),
            executor: None,
            secrets: None,
            put: None,
        }
    }

    /// Serves this executor. It is built from the settings of the section that asks.
    #[must_use]
    pub fn executor(mut self, kind: Kind<dyn Executor>) -> Self {
        self.executor = Some(kind);
        self
    }

    /// Serves this secret store.
    #[must_use]
    pub fn secrets(mut self, kind: Kind<dyn SecretProvider>) -> Self {
        self.secrets = Some(kind);
        self
    }

    /// How a conformance test puts values into the store. Without it, only what needs none is tried.
    #[must_use]
    pub fn put(mut self, put: PutValue) -> Self {
        self.put = Some(put);
        self
    }

    /// Answers over stdin and stdout until stdin is closed. Our own log belongs on stderr.
    pub async fn serve(self) -> Result<()> {
        let (stdin, stdout) = stdio();
        self.serve_over(Lines::new(stdin, stdout)).await
    }

    /// Answers over some transport until it is closed.
    pub async fn serve_over(self, transport: impl Transport) -> Result<()> {
        let service = PluginService {
            plugin: self,
            built: OnceLock::new(),
        };
        let options = Options {
            max_in_flight: AT_ONCE,
            ..Options::default()
        };
        let (_session, driver) = Session::start(transport, Arc::new(service), options);
        match driver.await {
            Closed::Transport(error) => Err(error),
            Closed::Protocol(what) => Err(Error::invalid(what)),
            _ => Ok(()),
        }
    }
}

/// Where messages come from.
pub type Input = Pin<Box<dyn AsyncRead + Send>>;
/// Where messages go to.
pub type Output = Pin<Box<dyn AsyncWrite + Send>>;

/// Standard input and output of this process, without a thread in between where they are pipes.
pub fn stdio() -> (Input, Output) {
    use std::os::fd::AsFd as _;
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let input = input.and_then(pipe::Receiver::from_owned_fd);
    let output = std::io::stdout().as_fd().try_clone_to_owned();
    let output = output.and_then(pipe::Sender::from_owned_fd);
    (
        input.map_or_else(
            |_| Box::pin(tokio::io::stdin()) as Input,
            |pipe| Box::pin(pipe),
        ),
        output.map_or_else(
            |_| Box::pin(tokio::io::stdout()) as Output,
            |pipe| Box::pin(pipe),
        ),
    )
}

struct PluginService {
    plugin: Plugin,
    /// What `hello` asked for.
    built: OnceLock<Box<dyn Service>>,
}

impl PluginService {
    async fn hello(&self, raw: &RawValue) -> Result<Box<RawValue>> {
        let hello: PluginHello = serde_json::from_str(raw.get()).map_err(|error| {
            Error::invalid("the parameters of `hello` do not fit").with_source(error)
        })?;
        negotiate(&hello.versions)?;
        let mut welcome = PluginWelcome::new(&self.plugin.software);
        let service: Box<dyn Service> = match hello.contract {
            Contract::Executor => {
                let kind = self.plugin.executor.ok_or_else(|| self.no("executor"))?;
                let executor = (kind.build)(&hello.context())?;
                welcome.capabilities = Some(executor.capabilities().await?);
                welcome.methods = vec!["examine".to_owned()];
                Box::new(ExecutorService::new(executor))
            }
            Contract::Secrets => {
                let kind = self.plugin.secrets.ok_or_else(|| self.no("secret store"))?;
                let store = (kind.build)(&hello.context())?;
                let put = self.plugin.put.map(|put| (put, hello.context()));
                welcome.put = put.is_some();
                welcome.methods = vec!["identity".to_owned()];
                Box::new(StoreService::new(store).with_put(put))
            }
        };
        self.built
            .set(service)
            .map_err(|_| Error::conflict("`hello` is said once"))?;
        serde_json::value::to_raw_value(&welcome)
            .map_err(|error| Error::internal("failed to write an answer").with_source(error))
    }

    fn no(&self, what: &str) -> Error {
        Error::unsupported(format!("`{}` is no {what}", self.plugin.software))
    }

    fn built(&self) -> Result<&dyn Service> {
        let built = self.built.get().map(|service| &**service);
        built.ok_or_else(|| Error::invalid("`hello` comes first"))
    }
}

#[async_trait]
impl Service for PluginService {
    async fn call(
        &self,
        method: &str,
        params: &RawValue,
        progress: &Progress,
    ) -> Result<Box<RawValue>> {
        match method {
            "hello" => self.hello(params).await,
            "" => Err(unknown_method(method)),
            _ => self.built()?.call(method, params, progress).await,
        }
    }

    fn open(&self, method: &str, params: &RawValue) -> Option<Result<Items>> {
        self.built.get()?.open(method, params)
    }
}
