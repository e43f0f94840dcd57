//! The executor as a plugin: `kind = "plugin"`, `command = ["custom-executor-plugin"]`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> hybrid_runner_core::Result<()> {
    let plugin = hybrid_runner_core::plugin::Plugin::new("custom-executor 1.0");
    plugin.executor(custom_executor::KIND).serve().await
}
