//! The kinds of executors and secret stores that a binary has: those of the project, and those it was built with.

use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::kind::{self, Kind};
use hybrid_runner_core::secret::SecretProvider;

/// All kinds of a binary. A name that was added takes the place of one of the project.
#[derive(Debug, Clone)]
pub struct Kinds {
    executors: Vec<Kind<dyn Executor>>,
    secrets: Vec<Kind<dyn SecretProvider>>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            executors: hybrid_runner_executors::KINDS.to_vec(),
            secrets: hybrid_runner_secrets::KINDS.to_vec(),
        }
    }
}

impl Kinds {
    /// Adds an executor.
    pub fn add_executor(&mut self, kind: Kind<dyn Executor>) {
        add(&mut self.executors, kind);
    }

    /// Adds a secret store.
    pub fn add_secrets(&mut self, kind: Kind<dyn SecretProvider>) {
        add(&mut self.secrets, kind);
    }

    /// The executors.
    pub fn executors(&self) -> &[Kind<dyn Executor>] {
        &self.executors
    }

    /// The secret stores.
    pub fn secrets(&self) -> &[Kind<dyn SecretProvider>] {
        &self.secrets
    }

    /// The executor of that name, or what there is.
    pub fn executor(&self, name: &str) -> Result<&Kind<dyn Executor>> {
        kind::find(
            &self.executors,
            "executor",
            name,
            hybrid_runner_executors::KNOWN,
        )
    }
}

fn add<T: ?Sized>(kinds: &mut Vec<Kind<T>>, kind: Kind<T>) {
    kinds.retain(|known| known.name != kind.name);
    kinds.push(kind);
}
