//! The proxy on the way to an API server.
//!
//! The secret stores have the same rules for their HTTP client (`secrets/src/web.rs`), on other types: crates that do not depend on
//! each other share no code, and this is less than a crate of its own.

use std::fmt::Write as _;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hybrid_runner_core::error::{Error, Result};
use hyper_util::client::proxy::matcher::Matcher;

/// Refuses a `proxy` that is none.
pub(super) fn check(own: Option<&str>) -> Result<()> {
    match own {
        None | Some("none") => Ok(()),
        Some(text) => own_proxy(text).map(drop),
    }
}

/// The proxy on the way to this URL: the section's own, else that of the usual variables.
pub(super) fn to(url: &Uri, own: Option<&str>) -> Result<Option<Uri>> {
    if own == Some("none") || url.host().is_none_or(is_near) {
        return Ok(None);
    }
    if let Some(text) = own {
        return own_proxy(text).map(Some);
    }
    let Some(intercept) = Matcher::from_env().intercept(url) else {
        return Ok(None);
    };
    let Some((user, password)) = intercept.raw_auth() else {
        return Ok(Some(intercept.uri().clone()));
    };
    let authority = intercept.uri().authority().map_or("", |at| at.as_str());
    let whole = format!("http://{}:{}@{authority}", encoded(user), encoded(password));
    own_proxy(&whole).map(Some)
}

/// The text may hold a password: it is not shown.
fn own_proxy(text: &str) -> Result<Uri> {
    let wrong = || Error::invalid("`proxy` is not `http://[user:password@]host:port`, or `none`");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    Ok(uri)
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes all that is written");
        }
    }
    out
}

/// Who we are to a proxy, by its URL.
pub(super) fn identity(proxy: &Uri) -> Option<HeaderValue> {
    let (user, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    let words = format!("Basic {}", STANDARD.encode(decoded(user)));
    let mut identity = HeaderValue::try_from(words).ok()?;
    identity.set_sensitive(true);
    Some(identity)
}

fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let code = after.get(..2).filter(|_| *byte == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        out.push(code.unwrap_or(*byte));
        rest = &after[if code.is_some() { 2 } else { 0 }..];
    }
    out
}

/// Loopback and link-local hosts: never behind a proxy.
fn is_near(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(url: &str, own: Option<&str>) -> Option<String> {
        to(&url.parse().unwrap(), own)
            .unwrap()
            .map(|uri| uri.to_string())
    }

    #[test]
    fn the_section_has_the_last_word_but_for_what_is_near() {
        let own = Some("http://u:p%40@proxy:3128");
        assert_eq!(
            through("https://cluster.example:6443", own).as_deref(),
            Some("http://u:p%40@proxy:3128/")
        );
        for near in [
            "https://127.0.0.1:6443",
            "https://[::1]",
            "https://localhost",
        ] {
            assert_eq!(through(near, own), None, "{near}");
        }
        assert_eq!(through("https://cluster.example", Some("none")), None);
    }

    #[test]
    fn a_proxy_that_is_none_is_refused_without_showing_it() {
        for text in [
            "proxy:3128",
            "socks5://hunter22@proxy",
            "",
            "https://hunter22@p",
        ] {
            let error = check(Some(text)).unwrap_err();
            assert!(!error.report().contains("hunter22"));
        }
        assert!(check(Some("none")).is_ok() && check(None).is_ok());
    }

    #[test]
    fn a_password_is_written_so_that_it_reads_back() {
        assert_eq!(encoded("a:b@c/ü"), "a%3Ab%40c%2F%C3%BC");
        for text in ["a:b@c/ü", "100%", "%4", "%zz"] {
            assert_eq!(decoded(&encoded(text)), text.as_bytes());
        }
        let proxy = "http://me:p%40ss@proxy:3128".parse().unwrap();
        assert_eq!(identity(&proxy).unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(identity(&"http://proxy:3128".parse().unwrap()), None);
    }
}
