//! One HTTP client for all stores that are far away.
//!
//! System roots and a CA of one's own; the usual proxy variables (never for loopback and link-local hosts,
//! where the metadata services of the clouds are), or the section's own proxy; no redirects, because
//! a credential must not follow one; and time limits that are shorter than anybody's patience.

#![cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")),
    expect(
        dead_code,
        reason = "Kubernetes has a client of its own and takes the way through proxies only"
    )
)]

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hybrid_runner_core::error::{Error, Result};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Certificate, Client, Proxy, Url};

use crate::echo;

/// A host that is there accepts a connection within this.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that is not used goes after this.
const IDLE: Duration = Duration::from_secs(90);

/// How a section says that its store is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    /// A PEM file of certificates that are trusted besides the system's.
    pub ca: Option<&'a Path>,
    /// `http://[user:password@]host:port`, or `none`.
    pub proxy: Option<&'a str>,
    /// The whole of one request.
    pub timeout: Duration,
}

impl Way<'_> {
    /// Refuses what can be seen to be wrong without a file or a network.
    pub(crate) fn check(&self) -> Result<()> {
        self.proxy().map(drop)
    }

    /// A client that goes this way.
    pub(crate) fn client(&self) -> Result<Client> {
        echo::remember_environment();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(self.timeout)
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("hybrid-runner/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        if let Some(proxy) = self.proxy()? {
            builder = builder.proxy(proxy);
        }
        if let Some(path) = self.ca {
            builder = builder.tls_certs_merge(certificates(path)?);
        }
        builder
            .build()
            .map_err(|error| Error::invalid("failed to set up the HTTP client").with_source(error))
    }

    /// The proxy on the way to a URL, for clients that are not ours.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn proxy_for(&self, url: &Url) -> Result<Option<Url>> {
        echo::remember_environment();
        Ok(match self.proxy {
            None => through(&Matcher::from_env(), url),
            Some("none") => None,
            Some(text) => Some(own_proxy(text)?).filter(|_| !is_near(url)),
        })
    }

    fn proxy(&self) -> Result<Option<Proxy>> {
        match self.proxy {
            None => {
                let usual = Matcher::from_env();
                Ok(Some(Proxy::custom(move |url| through(&usual, url))))
            }
            Some("none") => Ok(None),
            Some(text) => {
                let url = own_proxy(text)?;
                let proxy = Proxy::custom(move |to| (!is_near(to)).then(|| url.clone()));
                Ok(Some(proxy))
            }
        }
    }
}

/// The proxy of a section. The text may hold a password: it is not shown.
fn own_proxy(text: &str) -> Result<Url> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| url.scheme() == "http" && url.has_host())
        .ok_or_else(|| {
            Error::invalid("`proxy` is not `http://[user:password@]host:port`, or `none`")
        })?;
    echo::remember_user(&url);
    Ok(url)
}

/// The proxy that the usual variables name for a URL.
fn through(usual: &Matcher, url: &Url) -> Option<Url> {
    if is_near(url) {
        return None;
    }
    let intercept = usual.intercept(&url.as_str().parse().ok()?)?;
    let mut proxy = Url::parse(&intercept.uri().to_string()).ok()?;
    if let Some((user, password)) = intercept.raw_auth() {
        proxy.set_username(user).ok()?;
        proxy.set_password(Some(password)).ok()?;
    }
    Some(proxy)
}

/// Loopback and link-local hosts: never behind a proxy.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local()
        }
        Err(_) => {
            host == "localhost"
                || host.ends_with(".localhost")
                || host == "metadata.google.internal"
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let failed = || Error::invalid(format!("failed to read `{}` (`ca`)", path.display()));
    let pem = std::fs::read(path).map_err(|error| failed().with_source(error))?;
    let all = Certificate::from_pem_bundle(&pem).map_err(|error| failed().with_source(error))?;
    if all.is_empty() {
        let message = format!(
            "`{}` (`ca`) holds no certificate in PEM form",
            path.display()
        );
        return Err(Error::invalid(message));
    }
    Ok(all)
}

/// Whether it may be a path: no document, and no token.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
pub(crate) fn is_path(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let begins = |begin: &&str| text.starts_with(*begin);
    !text.contains(char::is_control) && !["{", "eyJ", "hvs.", "-----"].iter().any(begins)
}

/// What an error of the way comes to, in one word for people: the store never answered.
pub(crate) fn code_of(words: &str) -> &'static str {
    let has = |part: &str| words.contains(part);
    if has("the answer is longer") || has("length limit exceeded") {
        "answer too long"
    } else if has("certificate") || has("UnknownIssuer") {
        "certificate not trusted"
    } else if has("timed out") || has("timeout") || has("deadline") {
        "timed out"
    } else if has("refused") {
        "connection refused"
    } else if has("dns") || has("lookup") || has("resolve") {
        "host not found"
    } else {
        "no connection"
    }
}

/// What to do about it; `keys` are those of the section that say where the store is.
pub(crate) fn advice(code: &str, keys: &str) -> String {
    match code {
        "certificate not trusted" => {
            "set `ca` to the PEM file of the authority that signed its certificate".to_owned()
        }
        "host not found" => format!("correct the address ({keys}), or see to the name server"),
        "answer too long" => {
            format!("see that this is the address of the store itself ({keys}, `proxy`)")
        }
        _ => format!("see that it is up and that this machine may reach it ({keys}, `proxy`)"),
    }
}

/// What a status says by which somebody sends the reader elsewhere: nobody takes a credential there.
pub(crate) fn elsewhere(status: u16, who: &str, what: &str, keys: &str) -> Option<String> {
    (300..400).contains(&status).then(|| {
        format!(
            "`{who}` sends who reads {what} elsewhere, where no credential is taken: set {keys} to that place, or see what stands before it (`proxy`)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_near_is_never_behind_a_proxy() {
        let usual = Matcher::builder()
            .all("http://me:p%40ss@proxy:3128")
            .no("inner.example")
            .build();
        for near in [
            "http://127.0.0.1:1/",
            "http://[::1]/",
            "http://169.254.169.254/x",
            "http://[fd00:ec2::254]/",
            "https://localhost/",
            "http://metadata.google.internal/",
        ] {
            assert_eq!(through(&usual, &url(near)), None, "{near}");
        }
        assert_eq!(through(&usual, &url("https://inner.example/")), None);
        assert!(through(&usual, &url("https://vault.example/")).is_some());
    }

    #[test]
    fn a_wrong_proxy_is_refused_and_not_shown() {
        let way = |proxy| Way {
            ca: None,
            proxy: Some(proxy),
            timeout: CONNECT,
        };
        assert!(way("none").check().is_ok() && way("http://u:p@h:1").check().is_ok());
        let error = way("u:hunter2@h").check().unwrap_err();
        assert!(!error.report().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_wrong_ca_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for text in [None, Some("no pem")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let way = Way {
                ca: Some(&path),
                proxy: None,
                timeout: CONNECT,
            };
            let error = way.client().unwrap_err();
            assert!(error.message().contains("ca.pem"), "{error}");
        }
    }
}
