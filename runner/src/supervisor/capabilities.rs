//! What all executors together can do, and whether they can be used.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::LogKeeping;
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::{Capabilities, Executor};
use tokio::time::timeout;

use super::shared::Shared;

/// How long one backend may take: one that hangs must not keep the others from work.
const PATIENCE: Duration = Duration::from_secs(5);

/// The union of what the executors can do; one that does not answer is a note.
pub(super) async fn all(shared: &Shared) -> Capabilities {
    let mut all = Capabilities::least();
    all.contained = true;
    all.max_runs = Some(shared.registry.slots().1);
    for (name, answer) in ask(shared, |executor| executor.capabilities()).await {
        let one = answer.unwrap_or_else(|error| {
            let mut unknown = Capabilities::least();
            unknown
                .notes
                .push(format!("does not answer: {}", error.report()));
            unknown
        });
        if one.logs == LogKeeping::Volatile {
            all.logs = LogKeeping::Volatile;
        }
        all.streams |= one.streams;
        all.resources |= one.resources;
        all.images |= one.images;
        all.contained &= one.contained;
        if !one.missing.is_empty() {
            let missing = one.missing.join(", ");
            all.notes
                .push(format!("executor `{name}`: without {missing}"));
        }
        let notes = one.notes.into_iter();
        all.notes
            .extend(notes.map(|note| format!("executor `{name}`: {note}")));
    }
    all
}

/// Whether every executor can be used; the error names each that cannot.
pub(super) async fn check(shared: &Shared) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, answer) in ask(shared, |executor| executor.check()).await {
        match answer {
            Ok(()) => shared.health.answered(&name),
            Err(error) => {
                shared.health.failed(&name, &error);
                wrong.push((name, error));
            }
        }
    }
    let Some((name, error)) = wrong.pop() else {
        return Ok(());
    };
    let kind = error.kind();
    if wrong.is_empty() {
        return Err(
            Error::new(kind, format!("executor `{name}` cannot be used")).with_source(error),
        );
    }
    wrong.push((name, error));
    let each = wrong
        .iter()
        .map(|(name, error)| format!("`{name}`: {}", error.report()));
    let each = each.collect::<Vec<_>>().join("; ");
    Err(Error::new(
        kind,
        format!("executors cannot be used: {each}"),
    ))
}

/// Asks all executors at the same time.
async fn ask<T>(
    shared: &Shared,
    question: impl Fn(&Arc<dyn Executor>) -> BoxFuture<'_, Result<T>> + Send + Sync,
) -> Vec<(SectionName, Result<T>)> {
    let asked = shared.executors.iter().map(|(name, executor)| {
        let answer = timeout(PATIENCE, question(executor));
        async move {
            let late = |_| {
                Err(Error::unavailable(format!(
                    "no answer within {} s",
                    PATIENCE.as_secs()
                )))
            };
            (name.clone(), answer.await.unwrap_or_else(late))
        }
    });
    join_all(asked).await
}
