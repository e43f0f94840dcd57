//! The needles of one or more maskers, which may become more while they work.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::automaton::Automaton;
use super::command::COMMAND;
use super::forms::add_needles;
use super::needles::Needles;
use super::{Masker, too_short};
use crate::sys;

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
    /// Prepares needles, which are taken literally; those shorter than [`MIN_NEEDLE`](super::MIN_NEEDLE) are left out.
    pub fn new(needles: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::of_set(&with(Needles::default(), needles), false, ROOM)
    }

    /// Prepares values in all their forms ([`needles_of`](super::needles_of)).
    pub fn of_values<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::of_set(&needles_of_all(values), false, ROOM)
    }

    /// As [`Patterns::of_values`], for maskers of the output of a workload: they also obey `::add-mask::` in it (see
    /// [`crate::mask`]).
    pub fn of_output<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::of_set(&needles_of_all(values), true, ROOM)
    }

    /// These and more needles; this set stays as it is.
    #[must_use]
    pub fn with(&self, needles: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let set = self.lock();
        Self::of_set(&with(set.automaton.needles(), needles), set.obeys, set.room)
    }

    /// More needles for this set and all maskers that have it.
    pub fn add(&self, needles: impl IntoIterator<Item = Vec<u8>>) {
        let mut set = self.lock();
        set.automaton = prepare(&with(set.automaton.needles(), needles), set.obeys);
    }

    /// Adds values that the output named.
    pub(super) fn add_named(&self, values: &mut Vec<Vec<u8>>) {
        let mut set = self.lock();
        let mut needles = set.automaton.needles();
        for mut value in values.drain(..) {
            add_needles(&value, &mut needles);
            sys::wipe(&mut value);
        }
        set.automaton = prepare(&needles, set.obeys);
    }

    /// Takes the room that a value needs.
    pub(super) fn admit(&self, value: &[u8]) -> Result<(), NotAdded> {
        if too_short(value) {
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

    fn of_set(needles: &Needles, obeys: bool, room: usize) -> Self {
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

fn needles_of_all<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Needles {
    let mut needles = Needles::default();
    for value in values {
        add_needles(value, &mut needles);
    }
    needles
}

fn with(mut needles: Needles, more: impl IntoIterator<Item = Vec<u8>>) -> Needles {
    for needle in more {
        needles.take(needle);
    }
    needles
}

fn prepare(needles: &Needles, obeys: bool) -> Arc<Automaton> {
    let mut sorted = needles.sorted();
    let command = sorted.binary_search(&COMMAND);
    // A value that is the command itself is masked instead of obeyed.
    let command = command.err().filter(|_| obeys);
    if let Some(place) = command {
        sorted.insert(place, COMMAND);
    }
    Arc::new(Automaton::new(&sorted, command))
}
