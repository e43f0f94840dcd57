//! A plugin that serves processes of this machine, and is wrong in the way that its first argument names.
//!
//! | file | holds |
//! |---|---|
//! | `fault` | wrong executors, each in one way |
//! | `hostile` | programs that do not even keep to the protocol |
//! | `mortal` | a transport that kills at its n-th message |

mod fault;
mod hostile;
mod mortal;

use std::sync::Arc;

use futures::StreamExt as _;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::plugin::{Lines, Plugin, stdio};
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider, SecretValue};
use hybrid_runner_core::testing::FakeBackend;
use hybrid_runner_executors::local;

use fault::{Fault, Odd};

/// The fake, in memory: it lives as long as the process.
const FAKE: Kind<dyn Executor> = Kind {
    name: "fake",
    summary: "",
    build: |context| {
        Ok(Arc::new(hybrid_runner_core::testing::FakeExecutor::new(
            FakeBackend::new(),
            context.owner.clone(),
        )))
    },
    schema: || hybrid_runner_core::schemars::json_schema!({}),
};

macro_rules! odd {
    ($($fault:ident),+ $(,)?) => {
        fn kind_of(name: &str) -> Option<Kind<dyn Executor>> {
            match name {
                $(name if name == Fault::$fault.name() => Some(Kind {
                    name: "odd",
                    summary: "",
                    build: |context| Ok(Arc::new(Odd::new((local::KIND.build)(context)?, Fault::$fault))),
                    schema: || hybrid_runner_core::schemars::json_schema!({}),
                }),)+
                "local" | "mortal" | "ignores-credit" => Some(local::KIND),
                "fake" => Some(FAKE),
                _ => None,
            }
        }
    };
}
odd!(
    StartsTwice,
    LosesTheLastLine,
    Forgets,
    EndsWithoutStatus,
    IsSlow,
    WritesGarbage,
    Leaks,
    LeaksInItsHandle,
    LeavesGrandchildren,
    NamesItself,
);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "local".to_owned());
    if let Some(evil) = hostile::of(&name) {
        evil();
    }
    if name == "store" {
        return serve_store().await;
    }
    let Some(kind) = kind_of(&name) else {
        return Err(Error::invalid(format!("no fault `{name}`")));
    };
    let plugin = Plugin::new(format!("odd-plugin ({name})")).executor(kind);
    let (input, output) = stdio();
    let lines = Lines::new(input, output);
    if name == "ignores-credit" {
        // The one that the suite grants, so that we ourselves can go on talking to it.
        let greedy = |text: String| text.replace("\"credit\":20000", "\"credit\":2000000000");
        return plugin
            .serve_over(lines.map(move |message| message.map(greedy)))
            .await;
    }
    match arguments.next() {
        Some(counter) => {
            let who = arguments.next().unwrap_or_else(|| "plugin".to_owned());
            let mortal = mortal::Mortal::new(lines, counter, &who)?;
            plugin.serve_over(mortal).await
        }
        None => plugin.serve_over(lines).await,
    }
}

/// The files of a folder as a secret store that knows who asks.
#[derive(Debug)]
struct Knowing(Arc<dyn SecretProvider>);

const KNOWING: Kind<dyn SecretProvider> = Kind {
    name: "knowing",
    summary: "",
    build: |context| {
        let mut kinds = hybrid_runner_secrets::KINDS.iter();
        let file = kinds.find(|kind| kind.name == "file");
        let file = file.ok_or_else(|| Error::internal("no kind `file`"))?;
        Ok(Arc::new(Knowing((file.build)(context)?)))
    },
    schema: || hybrid_runner_core::schemars::json_schema!({}),
};

#[async_trait::async_trait]
impl SecretProvider for Knowing {
    async fn check(&self) -> Result<()> {
        self.0.check().await
    }

    async fn identity(&self) -> Result<Option<String>> {
        Ok(Some("role ingestion".to_owned()))
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        self.0.get(name).await
    }
}

async fn serve_store() -> Result<()> {
    let plugin = Plugin::new("odd-plugin (store)").secrets(KNOWING);
    plugin.put(put).serve().await
}

/// Writes a value into the folder, for a test.
fn put(context: &Context, label: &str, value: &SecretValue) -> Result<Option<SecretName>> {
    let folder = context.settings["path"].as_str().unwrap_or_default();
    let folder = std::path::Path::new(folder).join("contract");
    // The values of a test are no secrets.
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join(label), value.expose()))
        .map_err(|error| Error::unavailable("failed to write a value").with_source(error))?;
    Ok(Some(SecretName::new(format!("/contract/{label}"))))
}
