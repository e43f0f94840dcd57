//! The values of live runs, and texts without them. The only place that knows the masker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hybrid_runner_helper::mask::{Masker, Patterns, needles_of};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::run::{Outcome, State, Status};
use crate::secret::SecretValue;

/// Values of a secret store that are remembered; those of runs are bounded by the runs.
const REMEMBERED: usize = 4096;
/// Those of one name.
const VALUES: usize = 256;

/// Instead of words in which a value may stand that is not known.
pub(super) const HELD_BACK: &str = "(the backend's words are held back: a run was given values before the restart that are not known again yet, and could not be masked)";

/// What somebody was given is masked for so long after they are gone: what they said last may not be read yet.
const LINGERS: Duration = Duration::from_secs(5);

/// What is to be masked, by who was given it: a run, or a name in a store.
#[derive(Default)]
pub(super) struct Masking {
    known: Mutex<Known>,
    asked: watch::Sender<Questions>,
}

/// The questions whose answer is a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Questions {
    /// Those that are under way.
    pub(super) open: usize,
    /// Those that ended without their value, which is not known.
    pub(super) unanswered: u64,
    /// When the last of these ended: it may still be said.
    pub(super) since: Option<Instant>,
}

/// A question is under way whose answer is a value.
pub(super) struct Asked {
    questions: watch::Sender<Questions>,
    is_answered: bool,
}

impl Asked {
    /// Its value is known, or there is none.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.questions.send_modify(|questions| {
            questions.open -= 1;
            if !self.is_answered {
                questions.unanswered += 1;
                questions.since = Some(Instant::now());
            }
        });
    }
}

#[derive(Default)]
struct Known {
    values: HashMap<String, Vec<SecretValue>>,
    /// Who was given values in an earlier life that are not known in this one.
    unknown: HashSet<String>,
    /// Who is gone, and since when.
    gone: VecDeque<(Instant, String)>,
    /// Those of all together, made when they are needed.
    all: Option<Patterns>,
}

impl fmt::Debug for Masking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masking")
    }
}

/// Patterns of these values.
fn patterns<'a>(values: impl IntoIterator<Item = &'a SecretValue>) -> Patterns {
    // Exposed to be searched for, so that they are not shown.
    Patterns::new(
        values
            .into_iter()
            .flat_map(|value| needles_of(value.expose())),
    )
}

impl Masking {
    fn known(&self) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((since, _)) = known.gone.front()
            && since.elapsed() >= LINGERS
            && let Some((_, key)) = known.gone.pop_front()
        {
            known.unknown.remove(&key);
            if known.values.remove(&key).is_some() {
                known.all = None;
            }
        }
        known
    }

    /// A value is asked for: until the answer is remembered, it cannot be masked.
    pub(super) fn ask(&self) -> Asked {
        self.asked.send_modify(|questions| questions.open += 1);
        Asked {
            questions: self.asked.clone(),
            is_answered: false,
        }
    }

    /// Which values are asked for.
    pub(super) fn asked(&self) -> watch::Receiver<Questions> {
        self.asked.subscribe()
    }

    /// Masks these values from here on.
    pub(super) fn learn(&self, key: String, values: Vec<SecretValue>) {
        let mut known = self.known();
        known.unknown.remove(&key);
        known.gone.retain(|(_, gone)| *gone != key);
        if values.is_empty() {
            return;
        }
        // What was given before may still be said.
        let of_key = known.values.entry(key).or_default();
        for value in values {
            if !of_key.iter().any(|other| other.expose() == value.expose()) {
                of_key.push(value);
            }
        }
        known.all = None;
    }

    /// Notes that this one was given values which are not known.
    pub(super) fn doubt(&self, key: String) {
        let mut known = self.known();
        if !known.values.contains_key(&key) {
            known.unknown.insert(key);
        }
    }

    /// Whether there are values that are not known, so that no text is without them for certain.
    pub(super) fn is_blind(&self) -> bool {
        !self.known().unknown.is_empty()
    }

    /// As [`Self::learn`], for a store: it has no end at which its values could be forgotten.
    pub(super) fn remember(&self, key: String, value: SecretValue) {
        let mut known = self.known();
        if known.values.len() >= REMEMBERED
            && let Some(any) = known.values.keys().next().cloned()
        {
            known.values.remove(&any);
        }
        // Two who ask at once may be given two.
        if let Some(values) = known.values.get_mut(&key)
            && values.len() >= VALUES
        {
            values.remove(0);
        }
        drop(known);
        self.learn(key, vec![value]);
    }

    /// Forgets soon.
    pub(super) fn forget(&self, key: &str) {
        let mut known = self.known();
        let is_there = known.values.contains_key(key) || known.unknown.contains(key);
        if is_there && !known.gone.iter().any(|(_, gone)| gone == key) {
            known.gone.push_back((Instant::now(), key.to_owned()));
        }
    }

    pub(super) fn knows(&self, key: &str) -> bool {
        self.known().values.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known().values.is_empty()
    }

    /// The patterns of one run, if it was given values.
    pub(super) fn of(&self, key: &str) -> Option<Patterns> {
        self.known().values.get(key).map(patterns)
    }

    fn all(&self) -> Patterns {
        let mut known = self.known();
        if let Some(all) = &known.all {
            return all.clone();
        }
        let all = patterns(known.values.values().flatten());
        known.all.insert(all).clone()
    }

    /// A text without any value: nothing of it, as long as some are not known.
    pub(super) fn text(&self, text: &str) -> String {
        if self.is_blind() && !text.is_empty() {
            return HELD_BACK.to_owned();
        }
        self.masked(text)
    }

    /// A text of a run whose values are known, without them.
    fn masked(&self, text: &str) -> String {
        let all = self.all();
        if all.is_empty() {
            return text.to_owned();
        }
        let mut masker = Masker::new(all);
        let mut out = Vec::with_capacity(text.len());
        masker.push(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// An error without any value; left as it is if it holds none. What it means stays: its kind and its class.
    pub(super) fn error(&self, error: Error) -> Error {
        let report = error.report();
        let masked = self.text(&report);
        if masked == report {
            return error;
        }
        let masked = Error::new(error.kind(), masked);
        match error.class() {
            Some(class) => masked.with_class(class),
            None => masked,
        }
    }

    /// A level without any value.
    pub(super) fn status(&self, mut status: Status) -> Status {
        let mask = |text: &mut String| *text = self.text(text);
        if let Some(message) = &mut status.message {
            mask(message);
        }
        match &mut status.state {
            State::Finished(Outcome::Failed(failure)) => {
                mask(&mut failure.message);
                failure.source.iter_mut().for_each(mask);
            }
            State::Finished(Outcome::Lost { why }) => mask(why),
            State::Finished(Outcome::Stopped { by: Some(by) }) => mask(by),
            _ => {}
        }
        status
    }

    /// Whether no value stands in a text about this one, whose own are known.
    pub(super) fn is_free(&self, key: &str, text: &str) -> bool {
        !self.known().unknown.contains(key) && self.masked(text) == text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::run::{Failure, FailureClass};

    #[tokio::test(start_paused = true)]
    async fn no_word_is_told_while_values_are_not_known() {
        let masking = Masking::default();
        masking.doubt("a run".into());
        let error =
            masking.error(Error::denied("kestrel-umbrella-4711").with_class(FailureClass::Quota));
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Denied, HELD_BACK)
        );
        assert_eq!(error.class(), Some(FailureClass::Quota));
        assert_eq!(masking.text("kestrel-umbrella-4711"), HELD_BACK);
        assert_eq!(masking.text(""), "");
        masking.learn(
            "a run".into(),
            vec![SecretValue::new("kestrel-umbrella-4711")],
        );
        assert_eq!(masking.text("it is kestrel-umbrella-4711"), "it is ***");
        masking.doubt("a run".into());
        assert!(!masking.is_blind(), "it is known already");
        masking.doubt("another".into());
        masking.forget("another");
        assert!(masking.is_blind(), "its last words may not be read yet");
        tokio::time::advance(LINGERS).await;
        assert!(!masking.is_blind());
        assert_eq!(masking.text("kestrel-umbrella-4711"), "***");
        masking.forget("a run");
        assert_eq!(masking.text("kestrel-umbrella-4711"), "***");
        tokio::time::advance(LINGERS).await;
        assert!(!masking.knows("a run") && masking.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_run_was_given_before_is_masked_beside_what_it_is_given_now() {
        let masking = Masking::default();
        for value in ["kestrel-umbrella-4711", "rotated-quartz-0815"] {
            masking.learn("a run".into(), vec![SecretValue::new(value)]);
        }
        let said = masking.text("kestrel-umbrella-4711 and rotated-quartz-0815");
        assert_eq!(said, "*** and ***");
    }

    #[test]
    fn an_error_keeps_its_kind_and_its_class_without_the_value() {
        let masking = Masking::default();
        masking.learn(
            "a run".into(),
            vec![SecretValue::new("kestrel-umbrella-4711")],
        );
        let error = Error::not_found("there is no image `kestrel-umbrella-4711:1`")
            .with_class(FailureClass::Image)
            .with_source(Error::not_found("no such image: kestrel-umbrella-4711:1"));
        let masked = masking.error(error);
        assert_eq!(masked.kind(), ErrorKind::NotFound);
        assert_eq!(
            masked.report(),
            "there is no image `***:1`: no such image: ***:1"
        );
        assert_eq!(Failure::of_start(&masked).class, FailureClass::Image);
        let plain = masking.error(Error::denied("kestrel-umbrella-4711"));
        assert_eq!((plain.class(), plain.message()), (None, "***"));
    }
}
