//! Following an attempt through its backend, and stopping it when it is to end.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::fault;
use hybrid_runner_core::run::{Outcome, State, Status};
use hybrid_runner_core::{Executor, Handle};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::run::{LetGo, Run, Step};

impl Run {
    /// Follows an attempt's levels, and stops it when it is to end. `None`: look at the record again.
    pub(super) async fn follow(
        &mut self,
        executor: &Arc<dyn Executor>,
        handle: &Handle,
    ) -> Step<Option<Outcome>> {
        let mut backoff = Backoff::new();
        let mut stopping = self.stopping(executor, handle, Duration::ZERO);
        // The stop comes first: before it, a start that was broken off may not be there yet and look like lost.
        let mut levels = match stopping {
            Some(_) => stream::pending().boxed(),
            None => executor.watch(handle),
        };
        loop {
            let deadline = self.start_deadline();
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return Err(LetGo),
                Some(command) = self.commands.recv() => {
                    if self.obey(command).await {
                        if self.record.stop.is_none() {
                            return Ok(None);
                        }
                        stopping = self.stopping(executor, handle, Duration::ZERO);
                    }
                }
                level = levels.next() => match level {
                    Some(Ok(status)) => {
                        backoff.reset();
                        self.shared.health.answered(&self.executor);
                        if let Some(outcome) = self.advance(status).await {
                            return Ok(Some(outcome));
                        }
                    }
                    ended => {
                        let pause = backoff.next();
                        self.unanswered(ended.and_then(Result::err));
                        levels = watch_later(executor, handle, pause);
                    }
                },
                Some(stopped) = OptionFuture::from(stopping.as_mut()) => match stopped {
                    Ok(()) => {
                        fault::step("supervisor.stopped");
                        stopping = None;
                        self.refusal = None;
                        levels = executor.watch(handle);
                    }
                    Err(error) if self.gave_up_before_start() => return Ok(Some(Outcome::lost(error.report()))),
                    Err(error) => {
                        levels = executor.watch(handle);
                        let refusal = format!("the backend refuses to stop it: {}", error.report());
                        self.refusal = Some(refusal.clone());
                        self.say(refusal);
                        stopping = self.stopping(executor, handle, backoff.next());
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let failure = self.not_begun();
                    self.give_up(failure).await;
                    stopping = self.stopping(executor, handle, Duration::ZERO);
                }
            }
        }
    }

    /// Takes a level of the backend's over; the outcome, if it is the last.
    async fn advance(&mut self, level: Status) -> Option<Outcome> {
        let times = &mut self.record.status.times;
        times.starting = level.times.starting.or(times.starting);
        let now = Timestamp::now();
        let state = match level.state {
            State::Finished(outcome) => {
                times.running = level.times.running.or(times.running);
                times.finished = level.times.finished.or(Some(now));
                return Some(outcome);
            }
            State::Running => {
                times.running = level.times.running.or(times.running).or(Some(now));
                State::Running
            }
            // What the backend calls queued is, seen from outside, on its way.
            _ => State::Starting,
        };
        let moved = state.rank() > self.record.status.state.rank();
        if moved {
            self.record.status.state = state;
        }
        // It stands until the stop is taken, whatever the backend tells of the run besides.
        self.record.status.message = self.refusal.clone().or(level.message);
        if moved {
            self.save_soon().await;
        }
        self.publish();
        None
    }

    /// Asks the backend to end the attempt, if it is to end, until it answers. An error is its refusal.
    fn stopping(
        &self,
        executor: &Arc<dyn Executor>,
        handle: &Handle,
        pause: Duration,
    ) -> Option<BoxFuture<'static, Result<()>>> {
        let grace = self.record.stop.as_ref()?.grace.get();
        let (executor, handle, shared, name, view) = (
            Arc::clone(executor),
            handle.clone(),
            Arc::clone(&self.shared),
            self.executor.clone(),
            Arc::clone(&self.view),
        );
        let stopping = async move {
            sleep(pause).await;
            let mut backoff = Backoff::new();
            loop {
                match executor.stop(&handle, grace).await {
                    Err(error) if error.is_transient() => {
                        shared.health.failed(&name, &error);
                        let message = format!("the stop is asked for again: {}", error.report());
                        view.send_modify(|view| view.say(message));
                    }
                    answer => return answer,
                }
                sleep(backoff.next()).await;
            }
        };
        Some(stopping.boxed())
    }
}

/// Watches again after a pause.
pub(super) fn watch_later(
    executor: &Arc<dyn Executor>,
    handle: &Handle,
    pause: Duration,
) -> BoxStream<'static, Result<Status>> {
    let (executor, handle) = (Arc::clone(executor), handle.clone());
    let later = async move {
        sleep(pause).await;
        executor.watch(&handle)
    };
    later.flatten_stream().boxed()
}
