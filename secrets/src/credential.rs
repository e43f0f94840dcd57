//! Where a credential of a store comes from: read again each time that it is used.

use std::fmt;
use std::path::PathBuf;

use hybrid_runner_core::error::{Error, Result};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

/// A credential is at most this long.
const MOST: u64 = 64 * 1024;

/// Where a credential comes from: one of the three. A plain string is the credential itself.
#[derive(Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Source {
    /// A file; white space around it is not part of it.
    pub file: Option<PathBuf>,
    /// A variable of the runner's environment.
    pub env: Option<String>,
    /// The credential itself; better kept out of files.
    #[schemars(with = "Option<String>")]
    pub value: Option<SecretString>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    file: Option<PathBuf>,
    env: Option<String>,
    value: Option<String>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Source;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with one of `file` and `env`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Source, E> {
                Ok(Source {
                    file: None,
                    env: None,
                    value: Some(SecretString::from(text)),
                })
            }
            // Serde's own words would quote a number.
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Source, E> {
                Err(E::custom("a credential is written in quotes"))
            }
            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Source, E> {
                Err(E::custom("a credential is written in quotes"))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                let Table { file, env, value } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                let given = [file.is_some(), env.is_some(), value.is_some()];
                if given.iter().filter(|given| **given).count() != 1 {
                    return Err(serde::de::Error::custom(
                        "needs exactly one of `file` and `env`",
                    ));
                }
                // What is no name is perhaps the credential itself, and not to be seen in an error.
                if file
                    .as_deref()
                    .is_some_and(|path| !crate::web::is_path(path))
                {
                    return Err(serde::de::Error::custom(
                        "`file` is the path of a file, not what is in it",
                    ));
                }
                if env.as_deref().is_some_and(|name| !is_variable(name)) {
                    return Err(serde::de::Error::custom(
                        "`env` is the name of a variable, not what is in it",
                    ));
                }
                let value = value.map(SecretString::from);
                Ok(Source { file, env, value })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn is_variable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_part)
}

impl Source {
    /// A file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            file: Some(path.into()),
            env: None,
            value: None,
        }
    }

    /// A variable of the runner's environment.
    pub fn env(name: impl Into<String>) -> Self {
        Self {
            file: None,
            env: Some(name.into()),
            value: None,
        }
    }

    /// The credential itself.
    pub fn value(value: impl Into<String>) -> Self {
        Self {
            file: None,
            env: None,
            value: Some(SecretString::from(value.into())),
        }
    }

    /// The source, for messages; never what it holds.
    pub(crate) fn name(&self) -> String {
        match (&self.file, &self.env) {
            (Some(path), _) => format!("`{}`", path.display()),
            (_, Some(name)) => format!("variable `{name}`"),
            _ => "the configuration".to_owned(),
        }
    }

    /// The credential of now; `what` names it in errors.
    pub(crate) async fn read(&self, what: &str) -> Result<SecretString> {
        let text = match (&self.file, &self.env, &self.value) {
            (Some(path), _, _) => {
                let failed = |why: std::io::Error| {
                    let message = format!("failed to read {what} from `{}`", path.display());
                    Error::denied(message).with_source(why)
                };
                if tokio::fs::metadata(path).await.map_err(failed)?.len() > MOST {
                    let message = format!("`{}` is too large for {what}", path.display());
                    return Err(Error::invalid(message));
                }
                SecretString::from(tokio::fs::read_to_string(path).await.map_err(failed)?)
            }
            (_, Some(name), _) => SecretString::from(std::env::var(name).map_err(|_| {
                Error::denied(format!(
                    "the variable `{name}`, which names {what}, is not set"
                ))
            })?),
            (_, _, Some(value)) => value.clone(),
            _ => return Err(Error::invalid(format!("no source for {what}"))),
        };
        // Only its ends are looked at.
        let trimmed = text.expose_secret().trim();
        if trimmed.is_empty() {
            return Err(Error::denied(format!("{what} in {} is empty", self.name())));
        }
        Ok(SecretString::from(trimmed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source(value: serde_json::Value) -> Result<Source, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[tokio::test]
    async fn a_file_is_read_each_time_and_a_value_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let file = source(json!({ "file": path })).unwrap();
        let error = file.read("the token").await.unwrap_err();
        assert!(error.message().contains("the token from"), "{error}");
        for text in ["one", "two"] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            assert_eq!(file.read("the token").await.unwrap().expose_secret(), text);
        }
        std::fs::write(&path, " \n").unwrap();
        assert!(file.read("the token").await.is_err());
        let value = source(json!("hunter2")).unwrap();
        assert!(!format!("{value:?}").contains("hunter2"));
        assert_eq!(value.read("it").await.unwrap().expose_secret(), "hunter2");
    }

    #[test]
    fn a_source_is_one_of_its_kinds() {
        for wrong in [
            json!({}),
            json!({"file": "a", "env": "B"}),
            json!({"fil": "a"}),
            json!(4711),
            json!({"file": "{\"private_key\": \"4711\"}"}),
            json!({"file": "hvs.4711"}),
            json!({"env": "hvs.4711"}),
        ] {
            let error = source(wrong.clone()).unwrap_err();
            assert!(!error.to_string().contains("4711"), "{error}");
        }
    }
}
