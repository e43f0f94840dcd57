//! Executors and secret stores as programs of their own.
//!
//! A plugin speaks the [session](crate::session) over its stdin and stdout, one message a line. `docs/plugins.md` is the
//! tutorial and the reference.
//!
//! | file | holds |
//! |---|---|
//! | `hello` | the first exchange |
//! | `lines` | the transport: one message a line |
//! | `store` | the contract of secret stores over a session |
//! | `serve` | the plugin's side: serves kinds over stdin and stdout |
//! | [`host`] | the runner's side: starts, watches, restarts, masks (feature `plugin-host`) |
//!
//! # A plugin in Rust
//!
//! ```no_run
//! # use hybrid_runner_core::{Executor, kind::Kind};
//! # const KIND: Kind<dyn Executor> = Kind {
//! #     name: "mine",
//! #     summary: "",
//! #     build: |_| Err(hybrid_runner_core::Error::internal("an example")),
//! #     schema: || schemars::json_schema!({}),
//! # };
//! #[tokio::main]
//! async fn main() -> hybrid_runner_core::Result<()> {
//!     hybrid_runner_core::plugin::Plugin::new("mine 1.0").executor(KIND).serve().await
//! }
//! ```

mod hello;
#[cfg(feature = "plugin-host")]
pub mod host;
mod lines;
mod serve;
mod store;

pub use hello::{Contract, PluginHello, PluginWelcome, Room};
pub use lines::Lines;
pub use serve::{Input, Output, Plugin, PutValue, stdio};
#[cfg(test)]
pub(crate) use store::{GetParams, Got, Identified, Put, PutParams};
pub use store::{RemoteStore, StoreService};

/// Hears out a plugin that is asked to watch, for a log and for a list, and then writes these bytes to its stdout: how many
/// levels, chunks and runs were understood.
///
/// For tests that feed it anything at all: it ends, and does not panic.
#[doc(hidden)]
pub fn hear(bytes: &[u8]) -> [usize; 3] {
    use futures::StreamExt as _;

    use crate::executor::{Executor as _, Handle};
    use crate::session::{NoService, Options, RemoteExecutor, Session};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let Ok(runtime) = runtime else { return [0; 3] };
    runtime.block_on(async {
        let (near, far) = tokio::io::duplex(PIPE);
        let (input, output) = tokio::io::split(near);
        let service = std::sync::Arc::new(NoService);
        let transport = Lines::new(input, output);
        let (session, driver) = Session::start(transport, service, Options::default());
        let executor = RemoteExecutor::with_secrets(session);
        let run = Handle::of(crate::RunId::generate());
        let (levels, chunks) = (executor.watch(&run), executor.logs(&run, None));
        let (_, (), levels, chunks, runs) = futures::join!(
            driver,
            say(far, bytes),
            levels
                .filter(|level| std::future::ready(level.is_ok()))
                .count(),
            chunks
                .filter(|chunk| std::future::ready(chunk.is_ok()))
                .count(),
            executor.list(),
        );
        [levels, chunks, runs.map_or(0, |runs| runs.len())]
    })
}

/// What a pipe holds.
const PIPE: usize = 64 << 10;
/// What [`hear`] asks.
const QUESTIONS: usize = 3;

/// Writes these bytes once it was asked, and listens to the end.
async fn say(pipe: tokio::io::DuplexStream, bytes: &[u8]) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    let (input, mut output) = tokio::io::split(pipe);
    let mut asked = BufReader::new(input).lines();
    for _ in 0..QUESTIONS {
        drop(asked.next_line().await);
    }
    let speak = async {
        // Whoever closes in the middle of it has heard enough.
        drop(output.write_all(bytes).await);
        drop(output.shutdown().await);
    };
    let listen = async { while let Ok(Some(_)) = asked.next_line().await {} };
    futures::join!(speak, listen);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// What plugins say, to be cut and mixed.
    const SAID: [&str; 11] = [
        r#"{"jsonrpc":"2.0","id":2,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":4,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":5,"result":{"runs":[]}}"#,
        r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"x","data":{"kind":"conflict","source":["y"]}}}"#,
        r#"{"jsonrpc":"2.0","method":"stream.data","params":{"stream":1,"item":{"attempt":1,"state":"running"}}}"#,
        r#"{"jsonrpc":"2.0","method":"stream.data","params":{"stream":3,"item":{"stream":"out","text":"a\n","next":"1"}}}"#,
        r#"{"jsonrpc":"2.0","method":"stream.end","params":{"stream":1}}"#,
        r#"{"jsonrpc":"2.0","method":"$/progress","params":{"id":2,"message":"pulling"}}"#,
        r#"{"jsonrpc":"2.0","id":"z","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":9,"method":"no-such-method","params":[[[[]]]]}"#,
        "\u{0}\u{ffff}",
    ];

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let said = proptest::sample::select(&SAID[..]);
        let cut = (said, 0_usize..140)
            .prop_map(|(said, at)| said.as_bytes()[..at.min(said.len())].to_vec());
        prop_oneof![
            8 => cut,
            2 => proptest::collection::vec(any::<u8>(), 0..60),
            1 => Just("[".repeat(10_000).into_bytes()),
        ]
    }

    #[test]
    fn what_a_plugin_says_of_a_run_is_understood() {
        let said = include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../fuzz/seeds/plugin_output/a_run"
        ));
        assert_eq!(super::hear(said), [2, 2, 1]);
        assert_eq!(super::hear(b""), [0; 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn whatever_a_plugin_writes_it_is_heard_out(pieces in proptest::collection::vec((piece(), any::<bool>()), 0..30)) {
            let mut bytes = Vec::new();
            for (piece, ends) in pieces {
                bytes.extend(piece);
                if ends {
                    bytes.push(b'\n');
                }
            }
            super::hear(&bytes);
        }
    }
}
