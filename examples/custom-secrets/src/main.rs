//! The store as a plugin: `kind = "plugin"`, `command = ["custom-secrets-plugin"]`.

use hybrid_runner_core::secret::{SecretName, SecretValue};
use hybrid_runner_core::{Error, Result, kind::Context, plugin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let plugin = plugin::Plugin::new("custom-secrets 1.0");
    plugin.secrets(custom_secrets::KIND).put(put).serve().await
}

/// For `hybrid-runner plugin test`: writes a value into the file. JSON holds text only.
fn put(context: &Context, label: &str, value: &SecretValue) -> Result<Option<SecretName>> {
    let store: custom_secrets::JsonFile = context.settings("secrets")?;
    let Ok(value) = value.expose_text() else {
        return Ok(None);
    };
    let name = format!("/contract/{label}");
    let text = std::fs::read(&store.path).unwrap_or_default();
    let mut secrets: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    secrets[&name] = value.into();
    let failed = |error| Error::unavailable("failed to write the file").with_source(error);
    std::fs::write(&store.path, secrets.to_string()).map_err(failed)?;
    Ok(Some(SecretName::new(name)))
}
