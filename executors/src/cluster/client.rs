//! The connection to one cluster, made at its first use.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Uri};
use hybrid_runner_core::error::{Error, Result, causes_unquoted};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::access::Access;
use super::error::told;
use super::lean::{self, Patience};
use super::object::{Kind, Object};
use super::proxy;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a log or a watch may be silent before it is asked for again: what died without a word is found by then. Longer
/// than a watch lives.
const SILENCE: Duration = Duration::from_secs(320);
/// So long an API server that was away may not yet know all Roles.
const FORGETFUL: Duration = Duration::from_secs(30);
/// A program that logs in has done so within this.
const LOGIN: Duration = Duration::from_mins(1);
/// A host that is there accepts a connection within this.
const CONNECT: Duration = Duration::from_secs(5);

/// One cluster, as one user.
pub(crate) struct Cluster {
    access: Access,
    connected: OnceCell<Connected>,
    /// A login that has not ended in time: it is waited for again, so that no other one begins beside it.
    login: Mutex<Option<JoinHandle<Clients>>>,
}

/// For questions, and for what goes on.
type Clients = Result<(Client, Client), kube::Error>;

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// A connection.
pub(crate) struct Connected {
    /// For questions and orders, which are answered at once.
    quick: Client,
    /// For what goes on: watches and logs.
    patient: Client,
    pub(crate) namespace: String,
    /// The API server, for messages.
    pub(crate) server: String,
    /// Who we are, as it was configured, for messages.
    pub(crate) identity: String,
    /// When the API server last did not answer.
    away: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Connected {
    /// Objects of a kind, for questions and orders.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.quick.clone(), &self.namespace)
    }

    /// Objects of a kind, to be watched, or their logs followed.
    pub(crate) fn following<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.patient.clone(), &self.namespace)
    }

    /// Objects of a kind that an executor knows, for questions and orders.
    pub(crate) fn objects(&self, kind: &'static dyn Kind) -> Api<Object> {
        Api::namespaced_with(self.quick.clone(), &self.namespace, &kind)
    }

    /// The same, to be watched.
    pub(crate) fn following_objects(&self, kind: &'static dyn Kind) -> Api<Object> {
        Api::namespaced_with(self.patient.clone(), &self.namespace, &kind)
    }

    /// Notes that the API server does not answer.
    pub(super) fn is_away(&self) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it was away a moment ago, so that it may not know yet what we may do.
    pub(super) fn is_forgetful(&self) -> bool {
        let away = *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|away| away.elapsed() < FORGETFUL)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.quick
    }
}

impl Cluster {
    pub(crate) fn new(access: Access) -> Self {
        Self {
            access,
            connected: OnceCell::new(),
            login: Mutex::default(),
        }
    }

    /// The connection. Made once; what fails is tried anew by the next who asks.
    pub(crate) async fn connected(&self) -> Result<&Connected> {
        self.connected.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connected> {
        let Loaded {
            mut config,
            identity,
            proxy,
        } = self.load().await?;
        config.cluster_url = with_scheme(config.cluster_url)?;
        let server = config.cluster_url.to_string();
        if let Some(provider) = &config.auth_info.auth_provider {
            return Err(Error::invalid(format!(
                "the kubeconfig logs in to `{server}` by `auth-provider` (`{}`), which Kubernetes no longer has; let it log in by a program (`exec`), as \
                 `gke-gcloud-auth-plugin` or `kubelogin`, or by a token",
                provider.name
            )));
        }
        // By our own rule: what the loader makes of NO_PROXY depends on where the configuration comes from.
        config.proxy_url = match (&self.access.proxy, proxy) {
            (None, Some(proxy)) => proxy::to(&config.cluster_url, Some(&proxy)).map_err(|_| {
                let what = "the `proxy-url` of the kubeconfig is not `http://[user:password@]host:port`; set `proxy` in the section";
                Error::invalid(what)
            })?,
            (own, _) => proxy::to(&config.cluster_url, own.as_deref())?,
        };
        // By it the API server tells apart who changed what.
        let agent = HeaderValue::from_static(concat!("hybrid-runner/", env!("CARGO_PKG_VERSION")));
        config.headers.push((USER_AGENT, agent));
        config.connect_timeout = Some(CONNECT);
        config.reset_reader_on_write = true;
        config.default_retry = false;
        config.read_timeout = Some(PATIENCE);
        if let Some(path) = &self.access.ca {
            // The client would not say which file it was.
            std::fs::read(path).map_err(|error| {
                let what = format!("failed to read `{}`, which `ca` names", path.display());
                Error::invalid(what).with_source(error)
            })?;
            config.root_cert_file = Some(path.clone());
            config.root_cert = None;
        }
        if !config.auth_info.token.as_ref().is_none_or(is_token) {
            return Err(Error::invalid(format!(
                "{identity} has a token with signs that no token has, as a line break"
            )));
        }
        let namespace = self.access.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let program = config.auth_info.exec.as_ref();
        let program = program.and_then(|exec| exec.command.clone());
        let unusable = |error| {
            let words = told(&error);
            let ca = self.access.ca.as_ref();
            let ca = ca.filter(|_| words.contains("root certificate"));
            let what = match (&error, &program, ca) {
                (_, _, Some(path)) => {
                    format!(
                        "`{}`, which `ca` names, has no certificates",
                        path.display()
                    )
                }
                (kube::Error::Auth(_), Some(program), None) => format!(
                    "the program `{program}`, with which the kubeconfig logs in to `{server}`, failed here; it must be installed where the runner is"
                ),
                _ => format!("the configuration for `{server}` cannot be used"),
            };
            Error::invalid(what).with_source(words)
        };
        let patience = Patience {
            connect: CONNECT,
            read: SILENCE,
        };
        // A program that logs in is waited for there and then.
        let held = || self.login.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = held().take();
        let mut made = begun.unwrap_or_else(|| {
            tokio::task::spawn_blocking(move || {
                let patient = lean::client(&config, patience)?;
                Ok((Client::try_from(config)?, patient))
            })
        });
        let (quick, patient) = match timeout(LOGIN, &mut made).await {
            Ok(Ok(made)) => made.map_err(unusable)?,
            Ok(Err(_)) => return Err(Error::internal("a client could not be made")),
            Err(_) => {
                *held() = Some(made);
                return Err(Error::unavailable(format!(
                    "the program with which the kubeconfig logs in to `{server}` did not end within {LOGIN:?}"
                )));
            }
        };
        Ok(Connected {
            patient,
            quick,
            namespace,
            identity,
            away: Mutex::default(),
            server: server.trim_end_matches('/').to_owned(),
        })
    }

    /// The kubeconfig of the section, else what the platform has.
    async fn load(&self) -> Result<Loaded> {
        let access = &self.access;
        let options = KubeConfigOptions {
            context: access.context.clone(),
            ..KubeConfigOptions::default()
        };
        if access.kubeconfig.is_some() || access.context.is_some() {
            let of = access.kubeconfig.as_ref();
            let of = of.map_or_else(String::new, |path| format!(" `{}`", path.display()));
            let wrong = |error: KubeconfigError| {
                let message = format!("the kubeconfig{of} cannot be used");
                Error::invalid(message).with_source(causes_unquoted(&error))
            };
            let file = match &access.kubeconfig {
                Some(path) => Kubeconfig::read_from(path),
                None => Kubeconfig::read(),
            };
            let file = file.map_err(wrong)?;
            if let Some(name) = &access.context {
                has_context(&file, name).map_err(|known| {
                    Error::invalid(format!(
                        "the kubeconfig{of} has no context `{name}`; it has {known}"
                    ))
                })?;
            }
            let named = access.context.as_ref();
            let named = named.map_or_else(String::new, |name| format!(", context `{name}`"));
            let proxy = proxy_of(&file, access.context.as_deref());
            let config = Config::from_custom_kubeconfig(file, &options).await;
            return Ok(Loaded {
                config: config.map_err(wrong)?,
                identity: format!("the user of the kubeconfig{of}{named}"),
                proxy,
            });
        }
        let mut config = Config::infer().await.map_err(|error| {
            Error::invalid(
                "there is neither a kubeconfig nor the account of a pod; set `kubeconfig`",
            )
            .with_source(causes_unquoted(&error))
        })?;
        if let Some(name) = &access.token_env {
            let token = std::env::var(name).map(|token| token.trim().to_owned());
            let token = token.ok().filter(|token| !token.is_empty());
            let token = token.ok_or_else(|| {
                Error::invalid(format!(
                    "the variable `{name}`, which `token_env` names, is not set"
                ))
            })?;
            config.auth_info = AuthInfo {
                token: Some(token.into()),
                ..AuthInfo::default()
            };
            return Ok(Loaded {
                config,
                identity: format!("the account of the token in `{name}`"),
                proxy: None,
            });
        }
        Ok(Loaded {
            config,
            identity: "the user of the kubeconfig, or this pod's account".to_owned(),
            proxy: Kubeconfig::read()
                .ok()
                .and_then(|file| proxy_of(&file, None)),
        })
    }
}

/// What is known of a cluster before it is asked.
struct Loaded {
    config: Config,
    /// Who we are to it, as it was configured, for messages.
    identity: String,
    /// The `proxy-url` of the kubeconfig.
    proxy: Option<String>,
}

/// Whether it can be shown: the client panics over another.
fn is_token(token: &SecretString) -> bool {
    HeaderValue::from_str(token.expose_secret()).is_ok()
}

/// The address of a server that has none of the schemes: what is shown to it is not for everybody.
fn with_scheme(server: Uri) -> Result<Uri> {
    if server.scheme().is_some() {
        return Ok(server);
    }
    let whole = server.authority().map(|authority| {
        let whole = Uri::builder().scheme("https").authority(authority.clone());
        whole.path_and_query("/").build()
    });
    match whole {
        Some(Ok(whole)) => Ok(whole),
        _ => Err(Error::invalid(format!(
            "`{server}`, the `server` of the kubeconfig, is not `https://host:port`"
        ))),
    }
}

/// Whether there is a context of this name; if not, those there are, for messages.
fn has_context(file: &Kubeconfig, name: &str) -> std::result::Result<(), String> {
    let mut known = file.contexts.iter().map(|context| context.name.as_str());
    if known.clone().any(|known| known == name) {
        return Ok(());
    }
    let first = known.by_ref().take(10).map(|name| format!("`{name}`"));
    let first = first.collect::<Vec<_>>().join(", ");
    Err(match (first.is_empty(), known.next()) {
        (true, _) => "none".to_owned(),
        (false, None) => first,
        (false, Some(_)) => format!("{first}, and more"),
    })
}

fn proxy_of(file: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let context = context.or(file.current_context.as_deref())?;
    let context = file.contexts.iter().find(|one| one.name == context)?;
    let cluster = &context.context.as_ref()?.cluster;
    let cluster = file.clusters.iter().find(|one| one.name == *cluster)?;
    cluster.cluster.as_ref()?.proxy_url.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_scheme_is_one_that_nobody_listens_to() {
        let of = |server: &'static str| with_scheme(Uri::from_static(server));
        assert_eq!(of("10.0.0.1:443").unwrap(), "https://10.0.0.1:443/");
        assert_eq!(of("api").unwrap(), "https://api/");
        assert_eq!(of("http://api:80/x").unwrap(), "http://api:80/x");
        let error = of("/x").unwrap_err().to_string();
        assert!(error.contains("`https://host:port`"), "{error}");
    }

    #[test]
    fn a_token_of_two_lines_is_none() {
        assert!(is_token(&"a.b-c".into()) && !is_token(&"a\nb".into()));
    }

    #[test]
    fn what_is_wrong_with_a_kubeconfig_is_told_without_its_lines() {
        for text in [
            "users:\n- name: a\n  user: {token: hunter2\nclusters: []\n",
            "users:\n- name: a\n  user: hunter2\n",
            "users: hunter2\n",
        ] {
            let error = Kubeconfig::from_yaml(text).unwrap_err();
            let told = causes_unquoted(&error);
            assert!(
                told.contains("line ") && !told.contains("hunter2"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_context_that_is_not_there_is_answered_with_those_that_are() {
        let named = |names: &[&str]| {
            let contexts = names.iter().map(|name| serde_json::json!({ "name": name }));
            let file = serde_json::json!({ "contexts": contexts.collect::<Vec<_>>() });
            serde_json::from_value::<Kubeconfig>(file).unwrap()
        };
        assert_eq!(has_context(&named(&["a", "b"]), "b"), Ok(()));
        let known = has_context(&named(&["a", "b"]), "c");
        assert_eq!(known, Err("`a`, `b`".to_owned()));
        assert_eq!(has_context(&named(&[]), "c"), Err("none".to_owned()));
        let many = has_context(&named(&["a"; 11]), "c").unwrap_err();
        assert!(many.ends_with("`a`, and more"), "{many}");
    }
}
