//! Identity and client.

use hybrid_runner_core::error::{Error, Result, causes_unquoted};
use kube::Config;
use kube::client::{ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use secrecy::ExposeSecret as _;
use tower::util::option_layer;

use super::config::Settings;
use super::http::Layered;
use crate::remote::Section as _;

/// A client with one identity.
pub(crate) struct Client {
    pub kube: kube::Client,
    pub namespace: String,
    /// The identity as it was configured, for messages.
    pub identity: String,
    /// The API server, for messages.
    pub server: String,
}

/// Reads the kubeconfig or the pod's account, and makes a client.
pub(super) async fn connect(settings: &Settings) -> Result<Client> {
    let (mut config, identity) = load(settings).await?;
    let server = config.cluster_url.to_string();
    // The client panics over one that cannot be shown.
    let token = config.auth_info.token.as_ref();
    if token.is_some_and(|token| http::HeaderValue::from_str(token.expose_secret()).is_err()) {
        return Err(Error::invalid(format!(
            "{identity} has a token with signs that no token has, as a line break"
        )));
    }
    // By our own rule: what the loader makes of NO_PROXY depends on where the configuration comes from.
    config.proxy_url = proxy(settings, &server)?;
    config.connect_timeout = Some(settings.access.timeout.get());
    config.read_timeout = Some(settings.access.timeout.get());
    config.default_retry = false;
    if let Some(path) = &settings.ca {
        config.root_cert_file = Some(path.clone());
        config.root_cert = None;
    }
    let namespace = settings
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let unusable = |error| {
        Error::invalid(format!("the configuration for `{server}` cannot be used"))
            .with_source(error)
    };
    // Outside, too, so that what reads refusals knows what was shown. A program that makes tokens is not run twice.
    let shown = match config.auth_info.exec {
        None => config.auth_layer().map_err(unusable)?,
        Some(_) => None,
    };
    let kube = ClientBuilder::try_from(config)
        .map_err(unusable)?
        .with_layer(&Layered)
        .with_layer(&option_layer(shown))
        .build();
    Ok(Client {
        kube,
        namespace,
        identity,
        server: server.trim_end_matches('/').to_owned(),
    })
}

fn proxy(settings: &Settings, server: &str) -> Result<Option<http::Uri>> {
    let url = server
        .parse()
        .map_err(|error| Error::invalid(format!("`{server}` is no URL")).with_source(error))?;
    let proxy = settings.way().proxy_for(&url)?;
    // A proxy's URL may hold a password: nothing of the error goes on.
    proxy
        .map(|proxy| {
            proxy
                .as_str()
                .parse()
                .map_err(|_| Error::invalid("the proxy's URL cannot be used"))
        })
        .transpose()
}

/// The kubeconfig of the section, else what the platform has.
async fn load(settings: &Settings) -> Result<(Config, String)> {
    let options = KubeConfigOptions {
        context: settings.context.clone(),
        ..KubeConfigOptions::default()
    };
    let named = settings
        .context
        .as_ref()
        .map_or_else(String::new, |name| format!(", context `{name}`"));
    if let Some(path) = &settings.kubeconfig {
        let wrong = |error: KubeconfigError| {
            let message = format!("the kubeconfig `{}` cannot be used", path.display());
            Error::invalid(message).with_source(causes_unquoted(&error))
        };
        let file = Kubeconfig::read_from(path).map_err(wrong)?;
        let config = Config::from_custom_kubeconfig(file, &options)
            .await
            .map_err(wrong)?;
        return Ok((config, format!("the user of `{}`{named}", path.display())));
    }
    if settings.context.is_some() {
        let config = Config::from_kubeconfig(&options).await;
        let config = config.map_err(|error| {
            Error::invalid("the kubeconfig cannot be used").with_source(causes_unquoted(&error))
        })?;
        return Ok((config, format!("the user of the kubeconfig{named}")));
    }
    let config = Config::infer().await.map_err(|error| {
        Error::invalid("there is neither a kubeconfig nor the account of a pod; set `kubeconfig`")
            .with_source(causes_unquoted(&error))
    })?;
    Ok((
        config,
        "the user of the kubeconfig, or this pod's account".to_owned(),
    ))
}
