//! Starts at a backend with names of its own: they go on although nobody waits for them any more, since what was asked does.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::id::RunId;

/// Those that are under way in this life. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Starts(Arc<Mutex<UnderWay>>);

#[derive(Debug, Default)]
struct UnderWay {
    runs: HashSet<RunId>,
    tasks: JoinSet<()>,
}

impl Starts {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a start. Nobody needs to wait for it.
    pub fn to_its_end<T: Send + 'static>(
        &self,
        run: RunId,
        answer: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let all = self.clone();
        let mut starts = self.lock();
        starts.runs.insert(run);
        let answer = async move {
            let answer = answer.await;
            // Before anybody hears it, and asks whether it is under way.
            all.lock().runs.remove(&run);
            answer
        };
        to_its_end(&mut starts.tasks, answer)
    }

    /// Whether the start of this run is under way.
    pub fn is_under_way(&self, run: RunId) -> bool {
        self.lock().runs.contains(&run)
    }

    /// Waits until none is.
    pub async fn ended(&self) {
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        while tasks.join_next().await.is_some() {}
    }
}

/// The answer to a question that is heard to its end, whether or not somebody waits for it.
pub(super) fn to_its_end<T: Send + 'static>(
    tasks: &mut JoinSet<()>,
    answer: impl Future<Output = Result<T>> + Send + 'static,
) -> BoxFuture<'static, Result<T>> {
    let (told, heard) = oneshot::channel();
    while tasks.try_join_next().is_some() {}
    tasks.spawn(async move { drop(told.send(answer.await)) });
    let broken = || Err(Error::internal("the question ended without an answer"));
    heard
        .map(move |heard| heard.unwrap_or_else(|_| broken()))
        .boxed()
}
