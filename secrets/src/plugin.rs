//! A program of yours that serves secrets over stdin and stdout. `docs/plugins.md` is its tutorial.

use std::sync::Arc;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, Launch, PluginSettings, PluginStore};
use hybrid_runner_core::secret::SecretProvider;

/// The store's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn SecretProvider> = Kind {
    name: "plugin",
    summary: "a program of yours that serves secrets over stdin and stdout",
    build,
    schema: || schemars::schema_for!(PluginSettings),
};

/// The store of a section. Starts nothing yet.
pub fn build(context: &Context) -> Result<Arc<dyn SecretProvider>> {
    let section: PluginSettings = context.settings("secrets")?;
    let launch = Launch::new(Contract::Secrets, context, &section, |name| {
        std::env::var_os(name)
    })
    .map_err(|error| {
        Error::invalid(format!("section [secrets.{}]", context.name)).with_source(error)
    })?;
    Ok(Arc::new(PluginStore::new(Host::new(launch))))
}
