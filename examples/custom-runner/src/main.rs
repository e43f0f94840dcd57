//! A hybrid-runner that knows `kind = "batch"` as an executor and `kind = "json_file"` as a secret store.

fn main() -> std::process::ExitCode {
    hybrid_runner::Builder::new()
        .executor(custom_executor::KIND)
        .secrets(custom_secrets::KIND)
        .run()
}
