//! What a server is told before it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Error, Result};

/// What a server is told before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// With TLS, and with what.
    pub tls: Option<Tls>,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// For how long it keeps what has ended.
    pub retention: Retention,
    /// Whether it may listen without TLS beyond loopback.
    pub insecure: bool,
    /// After this time away a runner's runs are lost.
    pub runner_lost_after: Period,
    /// How often silence on a link is broken; a link is dead after two of these.
    pub heartbeat: Period,
}

/// Certificate and key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, and the chain behind it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// For how long what has ended is kept. Zero: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Runs.
    pub runs: Period,
    /// Their logs.
    pub logs: Period,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            runs: Period::seconds(90 * DAY),
            logs: Period::seconds(30 * DAY),
        }
    }
}

impl Config {
    /// The defaults, with everything in this folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)),
            tls: None,
            data_dir: data_dir.into(),
            retention: Retention::default(),
            insecure: false,
            runner_lost_after: Period::seconds(72 * 60 * 60),
            heartbeat: Period::seconds(15),
        }
    }

    /// Refuses what would put tokens on a network in the clear.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.tls.is_none() && !self.listen.ip().is_loopback() && !self.insecure {
            return Err(Error::invalid(format!(
                "listening on `{}` without TLS would send tokens in the clear; set `[server] tls = {{ cert = …, key = … }}`, \
                 listen on a loopback address, or set `insecure = true`",
                self.listen
            )));
        }
        if self.heartbeat.get().is_zero() {
            return Err(Error::invalid(
                "`[server] heartbeat` must be longer than 0s",
            ));
        }
        Ok(())
    }
}
