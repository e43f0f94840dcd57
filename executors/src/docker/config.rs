//! The section of a Docker executor: `[executors.NAME] kind = "docker"`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hybrid_runner_core::error::Result;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::Amounts;
use hybrid_runner_core::secret::Reference;
use hybrid_runner_core::unit::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings;

/// The settings of a Docker executor, as they are written. All have defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DockerConfig {
    /// The engine: `host = "unix:///var/run/docker.sock"`, or `"tcp://10.0.0.5:2376"`. Absent: the variable
    /// `DOCKER_HOST`, else the usual socket.
    pub host: Option<String>,
    /// Certificates for an engine over TCP: `tls = { ca = "ca.pem", cert = "cert.pem", key = "key.pem" }`. Absent: the
    /// folder in `DOCKER_CERT_PATH` if `DOCKER_TLS_VERIFY` is set.
    pub tls: Option<TlsConfig>,
    /// The image of workflows that name none: `image = "openmetadata/ingestion-base:1.13.3"`.
    pub image: Option<String>,
    /// When images are pulled: `pull = "missing"`, `"always"` or `"never"`.
    pub pull: PullPolicy,
    /// Who we are to a registry: `registries = { "registry.example.com" = { username = "ci", password = "secret:/registry" } }`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// The network of the containers: `network = "ingestion"`, `"host"` or `"none"`. Absent: the engine's default.
    pub network: Option<String>,
    /// Entries for `/etc/hosts`: `extra_hosts = ["db:10.0.0.7", "gateway:host-gateway"]`.
    pub extra_hosts: Vec<String>,
    /// What containers see besides their image: `mounts = [{ source = "/srv/certs", target = "/certs", read_only = true }]`.
    pub mounts: Vec<MountConfig>,
    /// Who the workload is: `user = "1000:1000"`. Absent: as the image says.
    pub user: Option<String>,
    /// The limits of workflows that name none: `limits = { cpu = "2", memory = "4Gi", pids = 1000 }`.
    pub limits: Amounts,
    /// How the engine keeps output: `log = { driver = "local", max_size = "1Gi", max_files = 4 }`.
    pub log: LogConfig,
    /// The OCI runtime: `runtime = "runsc"`. Absent: the engine's default.
    pub runtime: Option<String>,
    /// Labels for all containers: `labels = { team = "data" }`.
    pub labels: BTreeMap<String, String>,
    /// Variables of the runner that a workload also gets: `env = ["https_proxy", "no_proxy"]`.
    pub env: Vec<String>,
    /// Whether the image's file system is read-only: `read_only = true`. Mounts stay as they are, `/tmp` becomes a tmpfs.
    pub read_only: bool,
    /// Whether programs may gain rights by set-user-id files: `privilege_escalation = true`. Absent: they may not.
    pub privilege_escalation: bool,
    /// Capabilities to take away: `cap_drop = ["ALL"]`.
    pub cap_drop: Vec<String>,
    /// What a workflow may ask for in vain: `ignore = ["resources"]`.
    pub ignore: Vec<Ignorable>,
}

/// Certificates, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Who may vouch for the engine.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PullPolicy {
    /// Where the engine does not have them.
    #[default]
    Missing,
    /// Before each start.
    Always,
    /// Never: an image that is missing fails the run.
    Never,
}

/// Who we are to one registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// The user.
    pub username: String,
    /// A reference to the password or token, read again for each pull: `password = "secret:/registry/token"`.
    pub password: String,
}

/// Something of the host, or a volume, inside the containers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MountConfig {
    /// A path of the engine's host if it begins with `/`, else the name of a volume.
    pub source: String,
    /// The path in the container.
    pub target: String,
    /// Whether it cannot be written.
    #[serde(default)]
    pub read_only: bool,
}

/// How the engine keeps output until it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// The engine's driver: `local` keeps bytes as they are, `json_file` replaces what is not UTF-8.
    pub driver: LogDriver,
    /// All files of one run together. Absent: `spool.per_run` of the runner.
    pub max_size: Option<ByteSize>,
    /// How many files that is, 2 to 100; the oldest is dropped first. Absent: 4.
    pub max_files: Option<u32>,
}

/// A driver whose output can be read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogDriver {
    /// The engine's own format.
    #[default]
    Local,
    /// JSON lines in files, which log shippers of the host may read.
    JsonFile,
}

/// What a workflow may ask for although this engine cannot give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ignorable {
    /// `resources.limits`.
    Resources,
}

const LOG_FILES: u32 = 4;

/// The settings after the checks.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) host: Host,
    pub(super) image: Option<String>,
    pub(super) pull: PullPolicy,
    pub(super) registries: BTreeMap<String, Registry>,
    /// What goes into each container as it is.
    pub(super) given: DockerConfig,
    pub(super) limits: Amounts,
    pub(super) ignore_resources: bool,
    pub(super) log: LogOptions,
    pub(super) env: Vec<(String, Vec<u8>)>,
}

/// The engine's name of a log driver, and its options.
pub(super) type LogOptions = (&'static str, Vec<(&'static str, String)>);

/// Where the engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Unix(String),
    Tcp(String),
    Tls(String, TlsConfig),
}

/// Who we are to one registry.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    pub(super) username: String,
    pub(super) password: Reference,
}

impl Settings {
    /// Reads and checks the section. `variable` looks up the runner's environment.
    pub(super) fn read(
        context: &Context,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let mut config: DockerConfig = settings::read(context)?;
        let wrong = |key: &str, why: String| settings::wrong(context, key).with_source(why);
        let host = host(&config, &variable).map_err(|why| wrong("host", why))?;
        if let (Some(_), Host::Unix(path)) = (&config.tls, &host) {
            return Err(wrong(
                "tls",
                format!(
                    "the engine is at the socket `{path}`: certificates are for `tcp://host:port`"
                ),
            ));
        }
        if let Some(image) = &config.image
            && (image.is_empty() || image.contains(char::is_whitespace))
        {
            return Err(wrong(
                "image",
                format!("`{image}` is no image: write `name:tag`"),
            ));
        }
        for (key, name) in [("network", &config.network), ("runtime", &config.runtime)] {
            if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
                let why = "it is empty: give a name, or leave the key out";
                return Err(wrong(key, why.to_owned()));
            }
        }
        for mount in &mut config.mounts {
            mount.target = clean(&mount.target);
            mount.check().map_err(|why| wrong("mounts", why))?;
        }
        let mut registries = BTreeMap::new();
        for (name, registry) in &config.registries {
            let password = reference(&registry.password)
                .map_err(|why| wrong("registries", format!("`{name}`: {why}")))?;
            let username = registry.username.clone();
            registries.insert(name.clone(), Registry { username, password });
        }
        if let Some(label) = config.labels.keys().find(|label| {
            label.is_empty() || label.contains('=') || label.starts_with(super::names::PREFIX)
        }) {
            return Err(wrong("labels", format!("`{label}` cannot be a label here")));
        }
        if let Some(name) = config.env.iter().find(|name| !is_variable(name)) {
            return Err(wrong(
                "env",
                format!(
                    "`{name}` is no name of a variable: give names alone, the values are the runner's"
                ),
            ));
        }
        if let Some(name) = zero(&config.limits) {
            let why = format!(
                "`{name}` is 0, with which nothing can run: give an amount, or leave it out"
            );
            return Err(wrong("limits", why));
        }
        let log =
            log_options(&config.log, context.spool_per_run).map_err(|why| wrong("log", why))?;
        let env = config
            .env
            .iter()
            .filter_map(|name| variable(name).map(|value| (name.clone(), value.into_bytes())));
        Ok(Self {
            host,
            image: config.image.clone(),
            pull: config.pull,
            registries,
            limits: config.limits.clone(),
            ignore_resources: config.ignore.contains(&Ignorable::Resources),
            log,
            env: env.collect(),
            given: config,
        })
    }
}

impl MountConfig {
    fn check(&self) -> Result<(), String> {
        if !self.target.starts_with('/') {
            return Err(format!(
                "the target `{}` is not an absolute path",
                self.target
            ));
        }
        if Path::new(&self.target).starts_with(hybrid_runner_helper::container::FOLDER) {
            return Err(format!(
                "the target `{}` belongs to the runner",
                self.target
            ));
        }
        if self.source.is_empty() {
            return Err("the source is empty: give a path or the name of a volume".to_owned());
        }
        if !self.source.starts_with('/') && !is_volume(&self.source) {
            return Err(format!(
                "the source `{}` is neither an absolute path nor the name of a volume",
                self.source
            ));
        }
        Ok(())
    }
}

/// A path without what means nothing in it, as the engine itself takes it.
fn clean(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Whether the engine takes this as the name of a volume.
fn is_volume(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// The limit that is 0, which to the engine means none at all.
pub(super) fn zero(limits: &Amounts) -> Option<&'static str> {
    let Amounts { cpu, memory, pids } = limits;
    [
        ("memory", memory.is_some_and(|memory| memory.get() == 0)),
        ("cpu", cpu.is_some_and(|cpu| cpu.millis() == 0)),
        ("pids", *pids == Some(0)),
    ]
    .into_iter()
    .find_map(|(name, is_zero)| is_zero.then_some(name))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.contains(char::is_whitespace)
}

fn reference(text: &str) -> Result<Reference, String> {
    let reference = text
        .strip_prefix("secret:")
        .ok_or("the password is not a reference: write `secret:/…`, never the value")?;
    reference
        .parse()
        .map_err(|error: hybrid_runner_core::Error| error.report())
}

fn host(config: &DockerConfig, variable: impl Fn(&str) -> Option<String>) -> Result<Host, String> {
    let named = config.host.clone();
    let host = named
        .or_else(|| variable("DOCKER_HOST").filter(|host| !host.is_empty()))
        .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Host::Unix(path.to_owned())),
        Some(("tcp" | "http" | "https", address)) if names_port(address) => {
            let tls = config.tls.clone().or_else(|| {
                variable("DOCKER_TLS_VERIFY").filter(|verify| !verify.is_empty())?;
                let folder = PathBuf::from(variable("DOCKER_CERT_PATH")?);
                let [ca, cert, key] =
                    ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
                Some(TlsConfig { ca, cert, key })
            });
            Ok(match tls {
                Some(tls) => Host::Tls(address.to_owned(), tls),
                None if host.starts_with("https") => {
                    return Err(format!("`{host}` needs `tls = {{ ca, cert, key }}`"));
                }
                None => Host::Tcp(address.to_owned()),
            })
        }
        _ => Err(format!(
            "`{host}` is no engine that can be reached: write `unix:///path/docker.sock` or `tcp://host:port`"
        )),
    }
}

fn names_port(address: &str) -> bool {
    let port = address.trim_end_matches('/').rsplit_once(':');
    port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn log_options(log: &LogConfig, per_run: u64) -> Result<LogOptions, String> {
    let files = log.max_files.unwrap_or(LOG_FILES);
    if !(2..=100).contains(&files) {
        return Err(format!("`max_files` is {files}, and must be 2 to 100"));
    }
    let total = log.max_size.map_or(per_run, ByteSize::get);
    let each = (total / u64::from(files)).max(1 << 16);
    let mut options = vec![
        ("max-size", each.to_string()),
        ("max-file", files.to_string()),
    ];
    let driver = match log.driver {
        LogDriver::Local => {
            // Compressing takes the engine longer than the workload takes to write.
            options.push(("compress", "false".to_owned()));
            "local"
        }
        LogDriver::JsonFile => "json-file",
    };
    Ok((driver, options))
}

#[cfg(test)]
mod tests;
