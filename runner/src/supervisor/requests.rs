//! What a run is asked while it lives, and waiting without missing it.

use std::sync::Arc;

use hybrid_runner_core::fault;
use hybrid_runner_core::run::State;
use tokio::time::{Instant, sleep_until};

use super::record::{Phase, Stop};
use super::registry::Command;
use super::run::{LetGo, Run, Step};

/// What came first.
pub(super) enum First<T> {
    Done(T),
    /// A request changed what is to be done: look at the record again.
    Changed,
    /// The attempt has not begun in its time.
    Late,
}

impl Run {
    /// Waits for `work`, obeying requests meanwhile. `work` is dropped unless it is done.
    pub(super) async fn race<T>(
        &mut self,
        work: impl Future<Output = T> + Send,
        deadline: Option<Instant>,
    ) -> Step<First<T>> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return Err(LetGo),
                Some(command) = self.commands.recv() => {
                    if self.obey(command).await {
                        return Ok(First::Changed);
                    }
                }
                done = &mut work => return Ok(First::Done(done)),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Ok(First::Late);
                }
            }
        }
    }

    /// Carries a request out in the journal and answers it. Whether it changes what is to be done.
    pub(super) async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Stop(stop, answer) => {
                if !self.record.is_live() {
                    drop(answer.send(Ok(())));
                    return false;
                }
                let changed = self.tighten(stop);
                fault::step("supervisor.stop");
                let saved = self.save().await;
                fault::step("supervisor.stopping");
                self.publish();
                drop(answer.send(saved));
                changed
            }
            Command::Spec(spec, answer) => {
                let known = self.spec.is_some();
                let saved = match self.shared.journal.set_spec(self.id, &spec).await {
                    Ok(commit) => commit.synced().await.map_err(Into::into),
                    Err(error) => Err(error),
                };
                self.spec = Some(Arc::from(spec));
                if self.record.is_live() {
                    self.publish();
                }
                drop(answer.send(saved));
                if !known {
                    self.complete_half_done();
                }
                !known
            }
            Command::Followed => !std::mem::replace(&mut self.is_followed, true),
        }
    }

    /// Takes a stop over: the first one's author, the shortest grace.
    fn tighten(&mut self, stop: Stop) -> bool {
        match &mut self.record.stop {
            Some(known) if known.is_asked() => {
                let tighter = stop.grace < known.grace;
                known.grace = known.grace.min(stop.grace);
                tighter
            }
            other => {
                tracing::info!(run = %self.id, grace = %stop.grace, "stop asked for");
                *other = Some(stop);
                true
            }
        }
    }

    /// An adopted attempt that has not begun may be a half-done start: with its spec it can be completed.
    fn complete_half_done(&mut self) {
        let Phase::Started { attempt, since } = self.record.phase else {
            return;
        };
        if self.record.stop.is_some() || self.record.status.state.rank() >= State::Running.rank() {
            return;
        }
        self.unclear = true;
        self.record.phase = Phase::Starting {
            attempt,
            since,
            boot: self.shared.boot(),
        };
    }

    /// Waits until it is known of an adopted run whether it is to be tried again: who sent it says so as soon as it can.
    pub(super) async fn hear(&mut self) -> Step {
        while self.spec.is_none() && !self.is_followed && self.record.stop.is_none() {
            let told = self.race(std::future::pending::<()>(), None);
            told.await?;
        }
        Ok(())
    }
}
