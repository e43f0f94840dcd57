//! Making a token, and the one file that holds one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hybrid_runner_core::secret::SecretValue;
use hybrid_runner_core::{Error, Result};

/// The file with the first admin's token, in the data folder.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";

/// A new token.
pub(super) fn generate() -> Result<SecretValue> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| {
        Error::internal("failed to get random bits").with_source(error.to_string())
    })?;
    Ok(SecretValue::new(format!(
        "hr_{}",
        URL_SAFE_NO_PAD.encode(bits)
    )))
}

/// The token in a file, if there is one.
pub(super) fn read_token(path: &Path) -> Result<Option<SecretValue>> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().starts_with("hr_") => Ok(Some(SecretValue::new(text.trim()))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(
            Error::unavailable(format!("failed to read `{}`", path.display())).with_source(error),
        ),
    }
}

/// Writes a token where only its owner can read it: all of it, or nothing.
pub(super) fn write_token(path: &Path, secret: &SecretValue) -> io::Result<()> {
    let new = path.with_extension("token.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    // The one place where a token is written: the admin's first, for the admin.
    file.write_all(secret.expose())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&new, path)
}
