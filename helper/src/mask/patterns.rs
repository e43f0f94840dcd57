//! The needles of one or more maskers, which may become more while they work.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::automaton::Automaton;
use super::command::COMMAND;
use super::forms::needles_of;
use super::{MIN_NEEDLE, Masker};
use crate::sys;

/// Longer needles are cut into pieces of this length, which bounds what is held back.
const MAX_NEEDLE: usize = 8192;
/// How much the output may add by commands, in bytes of values; one counts for at least [`LEAST_COST`], because each
/// makes the needles be prepared anew.
const ROOM: usize = 64 << 10;
const LEAST_COST: usize = 64;

/// The needles, ready to be searched for.
///
/// A clone is the same set: what is [added](Patterns::add) to one is masked by all maskers that have it, from what they
/// are given next. [`Patterns::with`] makes a set of its own.
#[derive(Clone)]
pub struct Patterns(Arc<Mutex<Set>>);

struct Set {
    automaton: Arc<Automaton>,
    obeys: bool,
    /// How much may still be added by commands.
    room: usize,
}

/// Why a value that a command named is not masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAdded {
    TooShort,
    TooMuch,
}

impl Patterns {
    /// Prepares needles, which are taken literally; those shorter than [`MIN_NEEDLE`] are left out.
    pub fn new(needles: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::of_set(needles, false, ROOM)
    }

    /// Prepares values in all their forms ([`needles_of`]).
    pub fn of_values<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::new(values.into_iter().flat_map(needles_of))
    }

    /// As [`Patterns::of_values`], for maskers of the output of a workload: they also obey `::add-mask::` in it (see
    /// [`crate::mask`]).
    pub fn of_output<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::of_set(values.into_iter().flat_map(needles_of), true, ROOM)
    }

    /// These and more needles; this set stays as it is.
    #[must_use]
    pub fn with(&self, needles: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let set = self.lock();
        let all = set.automaton.needles().into_iter().chain(needles);
        Self::of_set(all, set.obeys, set.room)
    }

    /// More needles for this set and all maskers that have it.
    pub fn add(&self, needles: impl IntoIterator<Item = Vec<u8>>) {
        let mut set = self.lock();
        let all = set.automaton.needles().into_iter().chain(needles);
        set.automaton = prepare(all, set.obeys);
    }

    /// Adds values that the output named. What each came to.
    pub(super) fn add_named(&self, values: &mut Vec<Vec<u8>>) {
        let needles: Vec<_> = values.iter().flat_map(|value| needles_of(value)).collect();
        for mut value in values.drain(..) {
            sys::wipe(&mut value);
        }
        if !needles.is_empty() {
            self.add(needles);
        }
    }

    /// Takes the room that a value needs.
    pub(super) fn admit(&self, value: &[u8]) -> Result<(), NotAdded> {
        if super::too_short(value) {
            return Err(NotAdded::TooShort);
        }
        let mut set = self.lock();
        let cost = value.len().max(LEAST_COST);
        set.room = set.room.checked_sub(cost).ok_or(NotAdded::TooMuch)?;
        Ok(())
    }

    /// Whether there is nothing to mask and nothing to obey.
    pub fn is_empty(&self) -> bool {
        self.lock().automaton.heads.is_empty()
    }

    /// A whole text, masked: a message, a reason.
    pub fn mask(&self, text: &[u8]) -> Vec<u8> {
        let mut masker = Masker::new(self.clone());
        let mut out = Vec::with_capacity(text.len());
        masker.push(text, &mut out);
        masker.finish(&mut out);
        out
    }

    /// How many bytes of memory the needles take.
    pub fn memory(&self) -> usize {
        self.lock().automaton.memory()
    }

    pub(super) fn automaton(&self) -> Arc<Automaton> {
        Arc::clone(&self.lock().automaton)
    }

    fn of_set(needles: impl IntoIterator<Item = Vec<u8>>, obeys: bool, room: usize) -> Self {
        Self(Arc::new(Mutex::new(Set {
            automaton: prepare(needles, obeys),
            obeys,
            room,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        // It is whole at each moment, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").finish_non_exhaustive()
    }
}

fn prepare(needles: impl IntoIterator<Item = Vec<u8>>, obeys: bool) -> Arc<Automaton> {
    let mut pieces = Vec::new();
    for needle in needles {
        cut(needle, &mut pieces);
    }
    // A value that is the command itself is masked instead of obeyed.
    let obeys = obeys && !pieces.iter().any(|piece| piece == COMMAND);
    if obeys {
        pieces.push(COMMAND.to_vec());
    }
    sort_distinct(&mut pieces);
    let automaton = Automaton::new(&pieces, obeys);
    for piece in &mut pieces {
        sys::wipe(piece);
    }
    Arc::new(automaton)
}

/// Sorts, and wipes what is there twice.
pub(super) fn sort_distinct(needles: &mut Vec<Vec<u8>>) {
    needles.sort_unstable();
    needles.dedup_by(|needle, before| {
        let same = needle == before;
        if same {
            sys::wipe(needle);
        }
        same
    });
}

/// A long needle in pieces that cover it.
fn cut(mut needle: Vec<u8>, pieces: &mut Vec<Vec<u8>>) {
    if needle.len() < MIN_NEEDLE {
        return;
    }
    if needle.len() <= MAX_NEEDLE {
        pieces.push(needle);
        return;
    }
    for start in (0..needle.len()).step_by(MAX_NEEDLE) {
        let start = start.min(needle.len() - MAX_NEEDLE);
        pieces.push(needle[start..start + MAX_NEEDLE].to_vec());
    }
    sys::wipe(&mut needle);
}
