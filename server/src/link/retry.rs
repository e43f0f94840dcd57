//! A stream that is asked for again.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hybrid_runner_core::{Error, Result};
use tokio::time::Instant;

/// Waits that grow, with jitter, up to a cap.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    pub(super) fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// How long to wait now: between half and the whole of a time that doubles.
    pub(super) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(Self::CAP);
        let mut random = [0; 2];
        // Without random bits the waits are only less spread.
        let _filled = getrandom::fill(&mut random);
        whole / 2 + (whole / 2).mul_f64(f64::from(u16::from_le_bytes(random)) / 65_536.0)
    }
}

/// A stream that is asked for again after an error.
pub(super) struct Source<T> {
    stream: Option<BoxStream<'static, Result<T>>>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// What came of a source.
pub(super) enum Event<T> {
    Item(T),
    /// The stream ended without an error. Ask again and it begins anew.
    Ended,
    /// Told for the log; the next call asks again.
    Failed(Error),
}

impl<T> Source<T> {
    pub(super) fn new() -> Self {
        Self {
            stream: None,
            backoff: Backoff::new(),
            not_before: None,
        }
    }

    /// The next of it; `open` asks for the stream, as far as it is needed.
    ///
    /// Cancel safe: nothing is lost when it is dropped.
    pub(super) async fn next(
        &mut self,
        open: impl FnOnce() -> BoxStream<'static, Result<T>>,
    ) -> Event<T> {
        if let Some(time) = self.not_before {
            tokio::time::sleep_until(time).await;
            self.not_before = None;
        }
        match self.stream.get_or_insert_with(open).next().await {
            Some(Ok(item)) => {
                self.backoff.reset();
                Event::Item(item)
            }
            None => {
                self.again();
                Event::Ended
            }
            Some(Err(error)) => {
                self.again();
                Event::Failed(error)
            }
        }
    }

    fn again(&mut self) {
        self.stream = None;
        self.not_before = Some(Instant::now() + self.backoff.wait());
    }
}
