//! The store as a plugin: `kind = "plugin"`, `command = ["custom-secrets-plugin"]`.

use hybrid_runner_core::plugin::Plugin;
use hybrid_runner_core::{Error, Result, kind::Context, secret::SecretName, secret::SecretValue};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let plugin = Plugin::new("custom-secrets 1.0").secrets(custom_secrets::KIND);
    plugin.put(put).serve().await
}

/// For `hybrid-runner plugin test`: writes a value into the file. JSON holds text only.
fn put(context: &Context, label: &str, value: &SecretValue) -> Result<Option<SecretName>> {
    let store: custom_secrets::JsonFile = context.settings("secrets")?;
    let Ok(value) = value.expose_text() else {
        return Ok(None);
    };
    let name = format!("/contract/{label}");
    let failed = |error| Error::unavailable("failed to write the file").with_source(error);
    let text = std::fs::read(&store.path).unwrap_or_else(|_| b"{}".to_vec());
    let mut secrets: std::collections::BTreeMap<String, String> =
        serde_json::from_slice(&text).unwrap_or_default();
    secrets.insert(name.clone(), value.to_owned());
    let text = serde_json::to_vec(&secrets).map_err(std::io::Error::other);
    text.and_then(|text| std::fs::write(&store.path, text))
        .map_err(failed)?;
    Ok(Some(SecretName::new(name)))
}
