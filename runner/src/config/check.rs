//! Raw → checked: newtypes and invariants. All problems at once, each with its source.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::AgentId;
use hybrid_runner_core::id::{SectionName, shorten};
use hybrid_runner_core::kind::nearest;
use hybrid_runner_core::secret::{Reference, SecretValue};
use hybrid_runner_core::unit::{ByteSize, Period};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::layer::Layers;
use super::raw::{LogFormat, Raw, RawLink, RawPolicy, RawRunner, RawServer, RawToken, Resolve};
use super::variables::{Becomes, VARIABLES, extra_envs};
use super::{Environment, Problem, origin};
use crate::kinds::Kinds;

/// A checked configuration. What a command needs beyond it (a URL, an executor) that command asks for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// Runner → control plane.
    pub link: Link,
    /// The runner itself.
    pub runner: Runner,
    /// What may run here.
    pub(crate) policy: RawPolicy,
    /// The executors by name.
    pub executors: BTreeMap<SectionName, Section>,
    /// The stores by name.
    pub secrets: BTreeMap<SectionName, Section>,
    /// The control plane.
    pub server: Server,
    /// What variables of the existing chart say about workloads.
    pub workload: Workload,
    /// The executor stands there only because such variables are set.
    pub implied_executor: bool,
    /// The folder of the file; what is relative in it is meant from there.
    pub folder: Option<PathBuf>,
    /// State and logs lie in memory, since there is no disk to be written.
    pub is_in_memory: bool,
    /// What a section's `kind` may name.
    pub kinds: Kinds,
}

/// `[link]`, checked.
#[derive(Debug)]
#[non_exhaustive]
pub struct Link {
    /// The control plane.
    pub url: Option<LinkUrl>,
    /// Where the token comes from.
    pub token: Option<TokenSource>,
    /// TLS settings.
    pub tls: Tls,
    /// The way through a proxy.
    pub proxy: Proxy,
    /// How often silence is broken.
    pub heartbeat: Duration,
}

/// The files of the link's TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// Trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Where the token comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TokenSource {
    /// A file, read at each connect.
    File(PathBuf),
    /// A variable of our environment.
    Env(String),
    /// A secret, resolved at each connect.
    Secret(Reference),
    /// The token itself.
    Value(SecretString),
}

/// The way to the control plane.
#[derive(Clone)]
#[non_exhaustive]
pub enum Proxy {
    /// `HTTPS_PROXY`, `NO_PROXY` and so on; never for loopback.
    Environment(Arc<Matcher>),
    /// None.
    Direct,
    /// This one; its URL may hold a password.
    Via(SecretString),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment(_) => "Environment",
            Self::Direct => "Direct",
            Self::Via(_) => "Via(***)",
        })
    }
}

/// `ws://` or `wss://` with host, port and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUrl(Url);

impl LinkUrl {
    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == "wss"
    }

    /// The host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, 443 or 80 if none is written.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// `host:port`, as a CONNECT request or a certificate error has it.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.0.host_str().unwrap_or_default(), self.port())
    }

    /// Whether it stays on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.host())
    }
}

impl fmt::Display for LinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LinkUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example =
            "write `wss://host`, with port and path if they differ from 443 and /api/v1/link";
        if !text.contains("://") {
            return Err(format!("`{}` has no scheme: {example}", shorten(text)));
        }
        let mut url =
            Url::parse(text.trim()).map_err(|error| format!("not a URL ({error}): {example}"))?;
        let scheme = match url.scheme() {
            "ws" | "http" => "ws",
            "wss" | "https" => "wss",
            other => {
                return Err(format!(
                    "`{}://` is not spoken here: {example}",
                    shorten(other)
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "a URL with user or password in it: the token belongs into `link.token`".to_owned(),
            );
        }
        let rest = url
            .as_str()
            .split_once(':')
            .map_or("", |(_, rest)| rest)
            .to_owned();
        url = Url::parse(&format!("{scheme}:{rest}"))
            .map_err(|error| format!("not a URL ({error}): {example}"))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("no host: {example}"));
        }
        if url.path() == "/" {
            url.set_path(hybrid_runner_core::session::LINK_PATH);
        }
        Ok(Self(url))
    }
}

/// `[runner]`, checked.
#[derive(Debug)]
#[non_exhaustive]
pub struct Runner {
    /// Its name at the control plane.
    pub id: Option<AgentId>,
    /// The default executor.
    pub executor: Option<SectionName>,
    /// The default store.
    pub secrets: Option<SectionName>,
    /// Who resolves references.
    pub resolve: Resolve,
    /// State and logs.
    pub data_dir: PathBuf,
    /// Runs at the same time.
    pub max_runs: u32,
    /// Bound of a drain.
    pub drain: Duration,
    /// Bounds of the logs on disk.
    pub spool: Spool,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub listen: Option<SocketAddr>,
    /// Our own log.
    pub log: Log,
    /// A file that gets a line for each secret that was read.
    pub audit: Option<PathBuf>,
}

/// Bounds of the logs on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spool {
    /// Of one run.
    pub per_run: ByteSize,
    /// Of all.
    pub total: ByteSize,
}

/// Our own log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// Directives, as `info` or `info,hybrid_runner=debug`.
    pub level: String,
    /// How it is written.
    pub format: LogFormat,
}

/// `[executors.NAME]` or `[secrets.NAME]`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Section {
    /// What implements it.
    pub kind: String,
    /// The rest, read by the kind.
    pub settings: Map<String, Value>,
    /// Where the kind, and each of the settings, was written: by their keys, as `resources.limits.cpu`.
    pub sources: BTreeMap<String, String>,
}

impl Section {
    /// A section of a kind, without settings.
    pub fn of_kind(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            settings: Map::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Where a key was written, or the first below it; else the kind.
    pub(crate) fn source(&self, key: &str) -> Option<&String> {
        let key = key.split('[').next()?;
        let is_of = |one: &str| {
            one.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let found = self.sources.iter().find(|(one, _)| is_of(one));
        let found = found.map(|(_, source)| source);
        found.or_else(|| self.sources.get("kind"))
    }

    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }
}

/// `[server]`, checked.
#[derive(Debug)]
#[non_exhaustive]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Runs, logs, tokens.
    pub data_dir: PathBuf,
    /// How long ended runs are kept.
    pub keep_runs: Duration,
    /// How long their logs are kept.
    pub keep_logs: Duration,
    /// After this time away a runner's runs are lost.
    pub runner_lost_after: Duration,
    /// How often silence on a link is broken.
    pub heartbeat: Duration,
    /// Whether a plain listener outside of loopback is wanted.
    pub insecure: bool,
}

/// What variables of the existing chart say about workloads; used by the container executors.
#[derive(Default)]
#[non_exhaustive]
pub struct Workload {
    /// By the variable's present name.
    pub settings: BTreeMap<&'static str, SecretString>,
    /// Variables for each workload.
    pub extra_envs: Vec<(String, SecretString)>,
}

impl Workload {
    /// Variables for each workload, as an executor takes them.
    pub(crate) fn env(&self) -> Vec<(String, SecretValue)> {
        // Into the executor, which keeps them as secret.
        let pair = |(name, value): &(String, SecretString)| {
            (name.clone(), SecretValue::new(value.expose_secret()))
        };
        self.extra_envs.iter().map(pair).collect()
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.settings.keys().copied();
        f.debug_set()
            .entries(names.chain(self.extra_envs.iter().map(|(name, _)| name.as_str())))
            .finish()
    }
}

/// Checks the whole; all problems at once.
pub(crate) fn check(
    raw: Raw,
    layers: &Layers,
    environment: &Environment,
) -> Result<(Config, Vec<String>), Vec<Problem>> {
    let mut check = Check {
        layers,
        environment,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let executors = check.sections("executors", raw.executors);
    let secrets = check.sections("secrets", raw.secrets);
    let config = Config {
        link: check.link(raw.link),
        runner: check.runner(raw.runner, &executors, &secrets),
        policy: raw.policy,
        executors,
        secrets,
        server: check.server(raw.server),
        workload: check.workload(),
        implied_executor: layers.implied_executor,
        folder: None,
        is_in_memory: false,
        kinds: Kinds::default(),
    };
    let Some(config) = config.complete(&check.problems) else {
        return Err(check.problems);
    };
    Ok((config, check.warnings))
}

impl Config {
    fn complete(self, problems: &[Problem]) -> Option<Self> {
        problems.is_empty().then_some(self)
    }
}

struct Check<'a> {
    layers: &'a Layers,
    environment: &'a Environment,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Check<'_> {
    fn wrong(&mut self, key: &str, message: impl Into<String>) {
        let mut problem = Problem::new(key, message);
        problem.source = origin(&self.layers.figment, key);
        self.problems.push(problem);
    }

    fn parse<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &str,
        text: Option<String>,
    ) -> Option<T> {
        match text?.trim().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(key, error.to_string());
                None
            }
        }
    }

    fn link(&mut self, raw: RawLink) -> Link {
        let url: Option<LinkUrl> = self.parse("link.url", raw.url);
        if let Some(url) = &url
            && !url.is_secure()
            && !url.is_loopback()
            && !raw.insecure
        {
            self.wrong(
                "link.url",
                "`ws://` sends the token in the clear: use `wss://`, or set `link.insecure = true` if the way is safe by itself",
            );
        }
        let client = match (raw.client_cert, raw.client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                self.wrong("link.client_cert", "needs `link.client_key` beside it");
                None
            }
            (None, Some(_)) => {
                self.wrong("link.client_key", "needs `link.client_cert` beside it");
                None
            }
        };
        Link {
            url,
            token: raw.token.and_then(|token| self.token(token)),
            tls: Tls { ca: raw.ca, client },
            proxy: self.proxy(raw.proxy),
            heartbeat: self.positive("link.heartbeat", raw.heartbeat),
        }
    }

    fn positive(&mut self, key: &str, period: Period) -> Duration {
        if period.get().is_zero() {
            self.wrong(key, "must be longer than 0s");
        }
        period.get()
    }

    fn token(&mut self, raw: RawToken) -> Option<TokenSource> {
        let value = raw.value.filter(|value| !value.expose_secret().is_empty());
        let given = [
            raw.file.is_some(),
            raw.env.is_some(),
            raw.secret.is_some(),
            value.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            self.wrong(
                "link.token",
                "needs exactly one of `file`, `env` and `secret`",
            );
            return None;
        }
        if let Some(file) = raw.file {
            return Some(TokenSource::File(file));
        }
        if let Some(name) = raw.env {
            return Some(TokenSource::Env(name));
        }
        if let Some(value) = value {
            // Only its shape is looked at: a header can hold no other characters.
            if !value
                .expose_secret()
                .trim()
                .bytes()
                .all(|byte| (0x21..0x7f).contains(&byte))
            {
                self.wrong(
                    "link.token",
                    "a token has only printable ASCII characters, without spaces",
                );
                return None;
            }
            let source = origin(&self.layers.figment, "link.token").unwrap_or_default();
            if !source.starts_with('`') {
                self.warnings.push(format!("{source}: [link] token: stands in the file itself; `token = {{ file = \"…\" }}` keeps it apart"));
            }
            return Some(TokenSource::Value(value));
        }
        self.parse("link.token.secret", raw.secret)
            .map(TokenSource::Secret)
    }

    fn proxy(&mut self, raw: Option<String>) -> Proxy {
        let Some(text) = raw.filter(|text| !text.is_empty()) else {
            return Proxy::Environment(Arc::new(usual_proxy(self.environment)));
        };
        if text == "none" {
            return Proxy::Direct;
        }
        match Url::parse(&text) {
            Ok(url) if url.scheme() == "http" && url.has_host() => {
                Proxy::Via(SecretString::from(text))
            }
            // The text may hold a password: it is not shown.
            _ => {
                self.wrong(
                    "link.proxy",
                    "expected `http://[user:password@]host:port`, or `none`",
                );
                Proxy::Direct
            }
        }
    }

    fn runner(
        &mut self,
        raw: RawRunner,
        executors: &BTreeMap<SectionName, Section>,
        secrets: &BTreeMap<SectionName, Section>,
    ) -> Runner {
        if raw.max_runs == 0 {
            self.wrong(
                "runner.max_runs",
                "must be at least 1; to accept nothing, stop the runner",
            );
        }
        if raw.spool.per_run > raw.spool.total {
            self.wrong(
                "runner.spool.per_run",
                "is larger than `runner.spool.total`",
            );
        }
        Runner {
            id: self.parse("runner.id", raw.id),
            executor: self.one_of("runner.executor", raw.executor, executors),
            secrets: self.one_of("runner.secrets", raw.secrets, secrets),
            resolve: raw.resolve,
            data_dir: raw.data_dir,
            max_runs: raw.max_runs,
            drain: raw.drain.get(),
            spool: Spool {
                per_run: raw.spool.per_run,
                total: raw.spool.total,
            },
            listen: match raw.listen.trim() {
                "none" => None,
                text => self.address("runner.listen", text),
            },
            log: Log {
                level: self.level(raw.log.level),
                format: raw.log.format,
            },
            audit: raw.audit,
        }
    }

    fn level(&mut self, text: String) -> String {
        if let Err(error) = text.parse::<tracing_subscriber::filter::Targets>() {
            self.wrong(
                "runner.log.level",
                format!(
                    "`{}` is no level ({error}): error, warn, info, debug or trace",
                    shorten(&text)
                ),
            );
        }
        text
    }

    fn one_of(
        &mut self,
        key: &str,
        name: Option<String>,
        sections: &BTreeMap<SectionName, Section>,
    ) -> Option<SectionName> {
        let name: SectionName = self.parse(key, name)?;
        if sections.contains_key(&name) {
            return Some(name);
        }
        let table = if key == "runner.executor" {
            "executors"
        } else {
            "secrets"
        };
        let names = || sections.keys().map(SectionName::as_str);
        let hint = match nearest(name.as_str(), names()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None if sections.is_empty() => String::new(),
            None => format!("; there is {}", names().collect::<Vec<_>>().join(", ")),
        };
        self.wrong(key, format!("there is no section `[{table}.{name}]`{hint}"));
        None
    }

    fn sections(
        &mut self,
        table: &str,
        raw: BTreeMap<String, Map<String, Value>>,
    ) -> BTreeMap<SectionName, Section> {
        let mut sections = BTreeMap::new();
        for (name, mut settings) in raw {
            let key = format!("{table}.{name}");
            let parsed = name.parse::<SectionName>();
            let kind = settings.remove("kind");
            match (parsed, kind) {
                (Err(error), _) => self.wrong(&key, error.message()),
                (_, None) => self.wrong(&key, "`kind` is missing: what implements it"),
                (Ok(name), Some(Value::String(kind))) => {
                    let mut keys = vec!["kind".to_owned()];
                    for (name, value) in &settings {
                        leaves(name, value, &mut keys);
                    }
                    let figment = &self.layers.figment;
                    let source = |one: &str| origin(figment, &format!("{key}.{one}"));
                    let sources = keys
                        .into_iter()
                        .filter_map(|one| Some((one.clone(), source(&one)?)))
                        .collect();
                    sections.insert(
                        name,
                        Section {
                            kind,
                            settings,
                            sources,
                        },
                    );
                }
                (_, Some(_)) => self.wrong(&format!("{key}.kind"), "expected a name in quotes"),
            }
        }
        sections
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        let resolved = text
            .replace("localhost:", "127.0.0.1:")
            .parse()
            .or_else(|_| {
                text.strip_prefix(':')
                    .ok_or(())
                    .and_then(|port| format!("0.0.0.0:{port}").parse().map_err(drop))
            });
        if let Ok(address) = resolved {
            return Some(address);
        }
        self.wrong(
            key,
            format!(
                "`{}` is no address: write `127.0.0.1:8989`, or `0.0.0.0:8989` for all",
                shorten(text)
            ),
        );
        None
    }

    fn server(&mut self, raw: RawServer) -> Server {
        let listen = self
            .address("server.listen", raw.listen.trim())
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        if !listen.ip().is_loopback() && raw.tls.is_none() && !raw.insecure {
            self.wrong(
                "server.listen",
                "a plain listener outside of loopback shows every token: set `server.tls`, or `server.insecure = true` behind a proxy that ends TLS",
            );
        }
        Server {
            listen,
            tls: raw.tls.map(|tls| (tls.cert, tls.key)),
            data_dir: raw.data_dir,
            keep_runs: raw.retention.runs.get(),
            keep_logs: raw.retention.logs.get(),
            runner_lost_after: raw.runner_lost_after.get(),
            heartbeat: self.positive("server.heartbeat", raw.heartbeat),
            insecure: raw.insecure,
        }
    }

    fn workload(&mut self) -> Workload {
        let mut workload = Workload::default();
        for variable in VARIABLES {
            let Some((name, value)) = variable.find(self.environment) else {
                continue;
            };
            match variable.becomes {
                Becomes::Workload => {
                    workload
                        .settings
                        .insert(variable.name, SecretString::from(value));
                }
                Becomes::ExtraEnvs => match extra_envs(value) {
                    Ok(pairs) => workload.extra_envs = pairs,
                    Err(error) => self
                        .problems
                        .push(Problem::new("", error.message()).written_in(format!("`{name}`"))),
                },
                Becomes::Key(_) | Becomes::Executor | Becomes::Nothing => {}
            }
        }
        workload
    }
}

/// The keys of all values that have no keys themselves.
fn leaves(key: &str, value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                leaves(&format!("{key}.{name}"), member, into);
            }
        }
        _ => into.push(key.to_owned()),
    }
}

/// The usual variables, as curl reads them.
fn usual_proxy(environment: &Environment) -> Matcher {
    let get = |name: &str| {
        let set = |name: &str| {
            environment
                .get(name)
                .filter(|text| !text.is_empty())
                .cloned()
        };
        set(name)
            .or_else(|| set(&name.to_uppercase()))
            .unwrap_or_default()
    };
    Matcher::builder()
        .all(get("all_proxy"))
        .http(get("http_proxy"))
        .https(get("https_proxy"))
        .no(get("no_proxy"))
        .build()
}

/// Whether a host stays on this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
