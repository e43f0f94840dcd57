//! Variables of the runner's environment.
//!
//! Only variables with the prefix are served (`SECRET_` unless configured), so that the runner's own
//! token cannot be asked for. `secret:/db/password` is `SECRET_DB_PASSWORD`; so is
//! `secret:/SECRET_DB_PASSWORD`, the plain name. The environment is read once, when the store is built.
//!
//! ```toml
//! [secrets.local]
//! kind   = "env"
//! prefix = "SECRET_"
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider, SecretValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::variable::{refuse_impossible, variable_of};

/// Variables of the runner's own, never served whatever the prefix.
const OURS: &[&str] = &["AUTH_TOKEN", "HYBRID_RUNNER"];

/// A section `[secrets.NAME]` with `kind = "env"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the name of a variable must begin with.
    #[serde(default = "prefix")]
    pub prefix: String,
}

fn prefix() -> String {
    "SECRET_".to_owned()
}

/// Serves the variables with a prefix.
#[derive(Debug)]
pub struct Env {
    prefix: String,
    values: BTreeMap<String, SecretValue>,
}

/// Builds the store from its section and this process's environment.
pub fn build(context: &Context) -> Result<Arc<dyn SecretProvider>> {
    let settings: Settings = context.settings("secrets")?;
    let env = Env::new(settings, std::env::vars_os()).map_err(|error| {
        Error::invalid(format!("section [secrets.{}]", context.name)).with_source(error)
    })?;
    Ok(Arc::new(env))
}

impl Env {
    /// Takes what has the prefix out of an environment.
    pub fn new(
        settings: Settings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self> {
        let prefix = settings.prefix;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if prefix.is_empty() || !prefix.chars().all(fits) {
            return Err(Error::invalid(
                "`prefix` must be letters, digits and `_`, and not empty: without it every variable of the runner could be asked for",
            ));
        }
        let values = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(&prefix))
            .filter(|(name, _)| !OURS.iter().any(|ours| name.starts_with(ours)))
            .map(|(name, value)| (name, SecretValue::new(value.into_vec())))
            .collect();
        Ok(Self { prefix, values })
    }
}

#[async_trait]
impl SecretProvider for Env {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        refuse_impossible(name)?;
        let mapped = format!("{}{}", self.prefix, variable_of(name));
        let plain = Some(name.relative()).filter(|plain| plain.starts_with(&self.prefix));
        let found = plain
            .and_then(|plain| self.values.get(plain))
            .or_else(|| self.values.get(&mapped));
        let Some(value) = found else {
            return Err(Error::not_found(format!(
                "no variable `{}` in the environment of the runner",
                shorten(plain.unwrap_or(&mapped))
            )));
        };
        Ok(Secret::from(value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_runner_core::ErrorKind;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    fn env(prefix: &str) -> Result<Env> {
        let variables = [
            ("SECRET_DB_PASSWORD", &b"hunter2"[..]),
            ("SECRET_EMPTY", b""),
            ("SECRET_BINARY", b"\xff\x01"),
            ("AUTH_TOKEN", b"the runner's own"),
            ("HYBRID_RUNNER__LINK__TOKEN", b"the runner's own"),
        ];
        let variables =
            variables.map(|(name, value)| (name.into(), OsStr::from_bytes(value).to_owned()));
        let prefix = prefix.to_owned();
        Env::new(Settings { prefix }, variables)
    }

    async fn get(name: &str) -> Result<Vec<u8>> {
        let secret = env("SECRET_")?.get(&SecretName::new(name)).await?;
        Ok(secret.value.expose().to_vec())
    }

    #[tokio::test]
    async fn a_variable_is_found_by_path_and_by_its_plain_name() {
        for name in [
            "/db/password",
            "/DB_PASSWORD",
            "/SECRET_DB_PASSWORD",
            "db-password",
        ] {
            assert_eq!(get(name).await.unwrap(), b"hunter2", "{name}");
        }
        assert_eq!(get("/empty").await.unwrap(), b"");
        assert_eq!(get("/binary").await.unwrap(), b"\xff\x01");
    }

    #[tokio::test]
    async fn nothing_but_the_prefix_is_served() {
        for name in [
            "/AUTH_TOKEN",
            "/HYBRID_RUNNER__LINK__TOKEN",
            "/PATH",
            "/HOME",
        ] {
            let error = get(name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
        }
        let wide = env("A").unwrap();
        assert!(wide.get(&SecretName::new("/AUTH_TOKEN")).await.is_err());
        assert!(wide.get(&SecretName::new("/UTH_TOKEN")).await.is_err());
        assert!(env("").is_err());
    }

    #[tokio::test]
    async fn a_missing_variable_is_named() {
        let error = get("/db/user").await.unwrap_err();
        assert!(error.message().contains("`SECRET_DB_USER`"), "{error}");
    }

    #[tokio::test]
    async fn a_version_is_refused() {
        let mut name = SecretName::new("/db/password");
        name.version = Some("2".into());
        let error = env("SECRET_").unwrap().get(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", env("SECRET_").unwrap()).contains("hunter2"));
    }
}
