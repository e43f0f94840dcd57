//! Remembering.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::secret::{Secret, SecretName};
use hybrid_runner_core::{Error, ErrorKind, Result, SecretProvider};
use tokio::time::Instant;

use super::spread;
use crate::answer::share;

/// As many names as are remembered; the one that would be forgotten first makes room.
const MAX_NAMES: usize = 1024;
/// Nothing is remembered for longer.
const LONGEST: Duration = Duration::from_hours(24);

/// Remembers values for a while, and `NotFound` and `Denied` for a moment.
///
/// The while is shortened by up to a fifth, by chance, so that values read together are not read
/// again together.
pub struct Cached<P> {
    inner: P,
    keep: Duration,
    keep_refusals: Duration,
    known: Mutex<HashMap<SecretName, Known>>,
}

struct Known {
    answer: Result<Secret, Arc<Error>>,
    until: Instant,
}

impl<P> Cached<P> {
    /// Remembers values for `keep` and refusals for `keep_refusals`; zero is not at all.
    pub fn new(inner: P, keep: Duration, keep_refusals: Duration) -> Self {
        Self {
            inner,
            keep: keep.min(LONGEST),
            keep_refusals: keep_refusals.min(LONGEST),
            known: Mutex::default(),
        }
    }

    fn recall(&self, name: &SecretName) -> Option<Result<Secret>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(name)?;
        (Instant::now() < known.until).then(|| {
            let answer = known.answer.as_ref();
            answer.cloned().map_err(share)
        })
    }

    /// Remembers an answer, and gives it back.
    fn remember(&self, name: &SecretName, answer: Result<Secret>) -> Result<Secret> {
        let keep = match &answer {
            Ok(_) => self.keep,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {
                self.keep_refusals
            }
            Err(_) => Duration::ZERO,
        };
        if keep.is_zero() {
            return answer;
        }
        let answer = answer.map_err(Arc::new);
        self.keep(name, answer.clone(), keep);
        answer.map_err(|error| share(&error))
    }

    fn keep(&self, name: &SecretName, answer: Result<Secret, Arc<Error>>, keep: Duration) {
        let now = Instant::now();
        let until = now + keep - spread(keep / 5);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_NAMES && !known.contains_key(name) {
            known.retain(|_, known| now < known.until);
            let next = known.iter().min_by_key(|(_, known)| known.until);
            let next = next.map(|(name, _)| name.clone());
            if let Some(next) = next.filter(|_| known.len() >= MAX_NAMES) {
                known.remove(&next);
            }
        }
        known.insert(name.clone(), Known { answer, until });
    }
}

impl<P: fmt::Debug> fmt::Debug for Cached<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: SecretProvider> SecretProvider for Cached<P> {
    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.inner.identity().await
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        let mut name = name.clone();
        if !std::mem::take(&mut name.fresh)
            && let Some(answer) = self.recall(&name)
        {
            return answer;
        }
        let answer = self.inner.get(&name).await;
        self.remember(&name, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, name};
    use super::*;

    const KEEP: Duration = Duration::from_secs(100);
    const MOMENT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_value_is_remembered_for_its_time() {
        let script = Script::new(|call, _| Ok(call.to_string()));
        let cached = Cached::new(script.clone(), KEEP, MOMENT);
        for (wait, calls) in [(0, 1), (0, 1), (79, 1), (22, 2)] {
            tokio::time::advance(Duration::from_secs(wait)).await;
            let secret = cached.get(&name("/a")).await.unwrap();
            assert_eq!(secret.value.expose(), calls.to_string().as_bytes());
        }
        let mut other = name("/a");
        other.version = Some("1".into());
        cached.get(&other).await.unwrap();
        assert_eq!(script.calls(), 3, "another version is another secret");
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_remembered_for_a_moment_and_failures_not_at_all() {
        for (kind, calls) in [
            (ErrorKind::NotFound, 1),
            (ErrorKind::Denied, 1),
            (ErrorKind::Unavailable, 2),
            (ErrorKind::Invalid, 2),
        ] {
            let script = Script::new(move |_, _| Err(Error::new(kind, "no")));
            let cached = Cached::new(script.clone(), KEEP, MOMENT);
            for _ in 0..2 {
                assert_eq!(cached.get(&name("/a")).await.unwrap_err().kind(), kind);
            }
            assert_eq!(script.calls(), calls, "{kind}");
            tokio::time::advance(MOMENT).await;
            assert!(cached.get(&name("/a")).await.is_err());
            assert_eq!(script.calls(), calls + 1, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_afresh_gets_the_value_of_now_and_so_does_who_comes_next() {
        let script = Script::new(|call, _| Ok(call.to_string()));
        let cached = Cached::new(script.clone(), KEEP, MOMENT);
        for (asked, came) in [
            (name("/a"), "1"),
            (name("/a").afresh(), "2"),
            (name("/a"), "2"),
        ] {
            let secret = cached.get(&asked).await.unwrap();
            assert_eq!(secret.value.expose_text().unwrap(), came);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let cached = Cached::new(Script::new(|_, _| Ok("v".into())), KEEP, MOMENT);
        for i in 0..MAX_NAMES + 10 {
            cached.get(&name(&format!("/{i}"))).await.unwrap();
        }
        assert_eq!(cached.known.lock().unwrap().len(), MAX_NAMES);
    }

    #[tokio::test(start_paused = true)]
    async fn debug_shows_no_value() {
        let cached = Cached::new(Script::new(|_, _| Ok("hunter2".into())), KEEP, MOMENT);
        cached.get(&name("/a")).await.unwrap();
        assert!(!format!("{cached:?}").contains("hunter2"));
    }
}
