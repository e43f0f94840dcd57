//! The levels of a run, asked for again and again.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::error::Result;
use crate::run::Status;

/// The levels of a run's status, asked for at an interval: what [`crate::Executor::watch`] promises.
///
/// The first answer comes at once; after it only changes; never a level that goes back; the end after `Finished`; an
/// error is the last item. Dropping the stream drops the question that is under way.
///
/// ```
/// # use futures::StreamExt as _;
/// # use std::time::Duration;
/// use hybrid_runner_core::run::{Outcome, State, Status};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let mut states = vec![State::Finished(Outcome::Succeeded), State::Running, State::Running];
/// let mut levels = hybrid_runner_core::poll::watch(Duration::from_secs(5), move || {
///     let state = states.pop().unwrap(); // ask the backend here
///     async { Ok(Status::new(1, state)) }
/// });
/// assert_eq!(levels.next().await.unwrap().unwrap().state.name(), "running");
/// assert_eq!(levels.next().await.unwrap().unwrap().state.name(), "succeeded");
/// assert!(levels.next().await.is_none());
/// # }
/// ```
pub fn watch<Ask, Answer>(every: Duration, ask: Ask) -> BoxStream<'static, Result<Status>>
where
    Ask: FnMut() -> Answer + Send + 'static,
    Answer: Future<Output = Result<Status>> + Send,
{
    let first = Watch {
        ask,
        every,
        last: None,
    };
    stream::unfold(Some(first), |watch| async { watch?.next().await }).boxed()
}

struct Watch<Ask> {
    ask: Ask,
    every: Duration,
    last: Option<Status>,
}

impl<Ask, Answer> Watch<Ask>
where
    Ask: FnMut() -> Answer + Send,
    Answer: Future<Output = Result<Status>> + Send,
{
    /// The next level, and what goes on asking unless it is the last.
    async fn next(mut self) -> Option<(Result<Status>, Option<Self>)> {
        loop {
            if self.last.is_some() {
                tokio::time::sleep(self.every).await;
            }
            let level = match (self.ask)().await {
                Ok(level) => level,
                Err(error) => return Some((Err(error), None)),
            };
            if self
                .last
                .as_ref()
                .is_some_and(|last| !is_news(last, &level))
            {
                continue;
            }
            if level.is_finished() {
                return Some((Ok(level), None));
            }
            self.last = Some(level.clone());
            return Some((Ok(level), Some(self)));
        }
    }
}

fn is_news(last: &Status, level: &Status) -> bool {
    let rank = |status: &Status| (status.attempt, status.state.rank());
    rank(level) > rank(last) || (rank(level) == rank(last) && level.message != last.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::run::State;

    #[tokio::test(start_paused = true)]
    async fn only_news_is_told_and_an_error_is_the_last() {
        let mut answers = vec![
            Err(Error::unavailable("away")),
            Ok(State::Starting),
            Ok(State::Running),
            Ok(State::Running),
            Ok(State::Starting),
        ];
        let levels = watch(Duration::from_secs(1), move || {
            let answer = answers.pop().unwrap();
            async { answer.map(|state| Status::new(1, state)) }
        });
        let told = levels.map(|level| level.map_or("error", |level| level.state.name()));
        let told: Vec<_> = told.collect().await;
        assert_eq!(told, ["starting", "running", "error"]);
    }
}
