//! The messages of the case that is being tried.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hybrid_runner_core::plugin::host::{Frame, Trace, Way};
use serde_json::Value;

/// Messages that are shown of a case.
const SHOWN: usize = 24;
/// Messages that are kept of a case: what one of them holds is looked for.
const KEPT: usize = 4096;
/// A message is shown up to this length.
const LONGEST: usize = 400;

/// The messages of one case. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Frames(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    /// The case is decided: what comes now belongs to no case.
    over: bool,
    /// What the program wrote that is no message, since the beginning.
    garbage: Vec<String>,
}

impl Frames {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What takes messages for here.
    pub fn trace(&self) -> Trace {
        let frames = self.clone();
        Trace::to(move |frame| frames.take(frame))
    }

    fn take(&self, frame: &Frame) {
        let mut state = self.state();
        if frame.way == Way::Received && is_garbage(&frame.text) && state.garbage.len() < SHOWN {
            state.garbage.push(cut(&frame.text));
        }
        if state.over {
            return;
        }
        if state.frames.len() == KEPT {
            state.frames.pop_front();
        }
        state.frames.push_back(frame.clone());
    }

    /// Another case begins.
    pub fn begin(&self) {
        let mut state = self.state();
        state.frames.clear();
        state.over = false;
    }

    /// The case is decided.
    pub fn end(&self) {
        self.state().over = true;
    }

    /// The last messages of the case.
    pub fn shown(&self) -> Vec<String> {
        let state = self.state();
        let skipped = state.frames.len().saturating_sub(SHOWN);
        let shown = state.frames.iter().skip(skipped);
        shown.map(|frame| cut(&frame.to_string())).collect()
    }

    /// The messages of the case that hold this text.
    pub fn holding(&self, text: &str) -> Vec<Frame> {
        let state = self.state();
        let holding = state
            .frames
            .iter()
            .filter(|frame| frame.text.contains(text));
        holding.cloned().collect()
    }

    /// What the program wrote that is no message.
    pub fn garbage(&self) -> Vec<String> {
        self.state().garbage.clone()
    }
}

/// Whether a line is no message. What we say of the pipe itself stands in brackets; a long message is cut.
fn is_garbage(text: &str) -> bool {
    if text == "(the end)" || text.ends_with("(cut)") {
        return false;
    }
    let message: Option<Value> = serde_json::from_str(text).ok();
    message.is_none_or(|message| message["jsonrpc"] != "2.0")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}
