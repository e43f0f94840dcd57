//! TLS of the link: the system's roots, a CA of one's own, a client certificate.
//!
//! The configuration is made at the first `wss://` connect and again when one of its files changes:
//! parsing the system's roots takes memory that a plain link never needs.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use hybrid_runner_core::{Error, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Tls;

/// Makes the TLS configuration, once per change of its files.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    files: Tls,
    made: Mutex<Option<(Stamp, Arc<ClientConfig>)>>,
}

/// When each file was last changed.
type Stamp = Vec<Option<SystemTime>>;

impl TlsFiles {
    /// Nothing is read yet.
    pub(crate) fn new(files: Tls) -> Self {
        Self {
            files,
            made: Mutex::new(None),
        }
    }

    /// Whether the configuration names any file.
    pub(crate) fn are_named(&self) -> bool {
        self.files.ca.is_some() || self.files.client.is_some()
    }

    /// The configuration of now.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>> {
        let stamp = self.stamp();
        let mut made = self
            .made
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, config)) = made.as_ref()
            && *known == stamp
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(make(&self.files)?);
        *made = Some((stamp, Arc::clone(&config)));
        Ok(config)
    }

    fn stamp(&self) -> Stamp {
        let client = self.files.client.iter().flat_map(|(cert, key)| [cert, key]);
        self.files
            .ca
            .iter()
            .chain(client)
            .map(|path| {
                std::fs::metadata(path)
                    .and_then(|meta| meta.modified())
                    .ok()
            })
            .collect()
    }
}

fn make(files: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("failed to set up TLS").with_source(error))?
        .with_root_certificates(roots(files.ca.as_deref())?);
    let Some((cert, key)) = &files.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert, "link.client_cert")?;
    let key_der = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unreadable("link.client_key", key).with_source(error))?;
    builder
        .with_client_auth_cert(chain, key_der)
        .map_err(|error| {
            let message = format!("`{}` is not the key of `{}`", key.display(), cert.display());
            Error::invalid(message).with_source(error)
        })
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        for certificate in certificates(path, "link.ca")? {
            roots
                .add(certificate)
                .map_err(|error| unreadable("link.ca", path).with_source(error))?;
        }
    }
    if roots.is_empty() {
        return Err(Error::invalid(
            "no certificate authority is known: install the system's (package `ca-certificates`), or set `link.ca`",
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all = all.map_err(|error| unreadable(key, path).with_source(error))?;
    if all.is_empty() {
        return Err(Error::invalid(format!(
            "`{}` ({key}) holds no certificate in PEM form",
            path.display()
        )));
    }
    Ok(all)
}

fn unreadable(key: &str, path: &Path) -> Error {
    Error::invalid(format!("failed to read `{}` ({key})", path.display()))
}
