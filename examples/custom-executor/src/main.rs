//! The executor as a plugin: `kind = "plugin"`, `command = ["custom-executor-plugin"]`.

use hybrid_runner_core::plugin::Plugin;

#[tokio::main(flavor = "current_thread")]
async fn main() -> hybrid_runner_core::Result<()> {
    let plugin = Plugin::new("custom-executor 1.0").executor(custom_executor::KIND);
    plugin.serve().await
}
