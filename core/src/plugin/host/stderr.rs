//! A plugin's standard error: into our log, line by line, masked, and not faster than anybody reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::masking::{Masking, Questions};
use super::trace::{Trace, Way};

/// A line is cut here.
const LONGEST: usize = 4096;
/// Lines of one stretch of time that are told; the others are counted.
const TOLD: u32 = 200;
const STRETCH: Duration = Duration::from_secs(1);
/// Lines that wait until it is known which value they may hold.
const WAITING: usize = 200;
/// So long after a question that ended without its value that value may still be said.
const WARY: Duration = Duration::from_mins(1);
/// The lines that explain an end.
const LAST_WORDS: usize = 4;

/// The last lines, for whoever asks why it ended.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl LastWords {
    fn note(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_WORDS {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(super) fn joined(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" | ")
    }
}

/// Reads until the end.
pub(super) async fn read(
    mut stderr: impl AsyncRead + Unpin,
    plugin: String,
    masking: Arc<Masking>,
    trace: Option<Trace>,
    last_words: LastWords,
) {
    let mut asked = masking.asked();
    let mut teller = Teller {
        plugin,
        asked: asked.clone(),
        waiting: Vec::new(),
        is_wary: false,
        unanswered: 0,
        masking,
        trace,
        last_words,
        since: Instant::now(),
        told: 0,
        left_out: 0,
        is_held: false,
    };
    let mut line = Vec::new();
    let mut buffer = vec![0; 8192];
    loop {
        let read = tokio::select! {
            read = stderr.read(&mut buffer) => read.unwrap_or(0),
            _ = asked.wait_for(|asked| asked.open == 0), if !teller.waiting.is_empty() => {
                teller.let_go();
                continue;
            }
        };
        if read == 0 {
            break;
        }
        for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            let ends = part.ends_with(b"\n");
            let room = LONGEST.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if ends {
                teller.tell(&line);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        teller.tell(&line);
    }
    // No answer comes any more from this process.
    if teller.asked.borrow().open > 0 {
        teller.withhold();
    }
    teller.let_go();
}

struct Teller {
    plugin: String,
    masking: Arc<Masking>,
    trace: Option<Trace>,
    last_words: LastWords,
    since: Instant,
    told: u32,
    left_out: u64,
    /// Lines are held back, and that was told.
    is_held: bool,
    /// Which values the plugin is asked for.
    asked: watch::Receiver<Questions>,
    /// Lines that were written meanwhile.
    waiting: Vec<Vec<u8>>,
    /// What comes after a question that ended without its value is held back, and that was told.
    is_wary: bool,
    /// How many questions had got no answer when the first of them was written.
    unanswered: u64,
}

impl Teller {
    fn tell(&mut self, line: &[u8]) {
        let questions = *self.asked.borrow();
        if self.waiting.is_empty() {
            self.unanswered = questions.unanswered;
        }
        let is_wary = questions.since.is_some_and(|since| since.elapsed() < WARY);
        if questions.open == 0 && is_wary {
            self.let_go();
            if std::mem::replace(&mut self.is_wary, true) {
                self.left_out += 1;
            } else {
                self.waiting.push(line.to_owned());
                self.withhold();
            }
        } else if questions.open == 0 {
            self.is_wary = false;
            self.let_go();
            self.tell_now(line);
        } else if self.waiting.len() < WAITING {
            self.waiting.push(line.to_owned());
        } else {
            self.left_out += 1;
        }
    }

    /// Leaves out what waited: it may hold a value that never came.
    fn withhold(&mut self) {
        let lines = std::mem::take(&mut self.waiting).len();
        if lines > 0 {
            let held = format!(
                "({lines} lines held back: a value that it was asked for may stand in them; `plugin test` shows them)"
            );
            tracing::warn!(plugin = self.plugin, "{held}");
            self.last_words.note(held);
        }
    }

    /// Tells what waited.
    fn let_go(&mut self) {
        if self.asked.borrow().unanswered > self.unanswered {
            self.withhold();
        }
        for line in std::mem::take(&mut self.waiting) {
            self.tell_now(&line);
        }
    }

    fn tell_now(&mut self, line: &[u8]) {
        if self.masking.is_blind() {
            if !std::mem::replace(&mut self.is_held, true) {
                tracing::warn!(
                    plugin = self.plugin,
                    "lines of the plugin's stderr are held back: values that a run was given before the restart could not be masked in them"
                );
            }
            return;
        }
        self.is_held = false;
        if self.since.elapsed() > STRETCH {
            if self.left_out > 0 {
                tracing::warn!(
                    plugin = self.plugin,
                    lines = self.left_out,
                    "lines of the plugin's stderr were left out: there were too many"
                );
            }
            (self.since, self.told, self.left_out) = (Instant::now(), 0, 0);
        }
        if self.told >= TOLD {
            self.left_out += 1;
            return;
        }
        self.told += 1;
        let line = self.masking.text(String::from_utf8_lossy(line).trim_end());
        tracing::info!(plugin = self.plugin, "{line}");
        if let Some(trace) = &self.trace {
            trace.tell(Way::Stderr, line.clone());
        }
        self.last_words.note(line);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::secret::SecretValue;

    #[tokio::test(start_paused = true)]
    async fn what_is_written_while_a_value_is_asked_for_waits_until_it_is_known() {
        let masking = Arc::new(Masking::default());
        let (words, told) = (LastWords::default(), Arc::new(Mutex::new(Vec::new())));
        let heard = Arc::clone(&told);
        let trace = Trace::to(move |frame| heard.lock().unwrap().push(frame.text.clone()));
        let (mut plugin, stderr) = tokio::io::duplex(1024);
        let reading = read(
            stderr,
            "store".into(),
            Arc::clone(&masking),
            Some(trace),
            words.clone(),
        );
        let writing = async {
            plugin.write_all(b"ready\n").await.unwrap();
            tokio::time::sleep(STRETCH).await;
            let asked = masking.ask();
            plugin.write_all(b"read kestrel-4711\n").await.unwrap();
            tokio::time::sleep(STRETCH).await;
            assert_eq!(*told.lock().unwrap(), ["ready"]);
            masking.remember("/a".into(), SecretValue::new("kestrel-4711"));
            asked.answered();
            tokio::time::sleep(STRETCH).await;
            assert_eq!(*told.lock().unwrap(), ["ready", "read ***"]);
            // Of one that never came nobody knows what to mask.
            let asked = masking.ask();
            plugin.write_all(b"read quartz-0815\n").await.unwrap();
            tokio::time::sleep(STRETCH).await;
            drop(asked);
            for _ in 0..3 {
                plugin.write_all(b"quartz-0815 is late\n").await.unwrap();
            }
            tokio::time::sleep(WARY).await;
            plugin.write_all(b"done\n").await.unwrap();
            tokio::time::sleep(STRETCH).await;
            let asked = masking.ask();
            plugin.write_all(b"read opal-1618").await.unwrap();
            drop(plugin);
            asked
        };
        let ((), _asked) = tokio::join!(reading, writing);
        assert_eq!(*told.lock().unwrap(), ["ready", "read ***", "done"]);
        let words = words.joined();
        assert!(words.starts_with("(1 lines held back"), "{words}");
        assert!(words.contains("| done | (1 lines held back"), "{words}");
    }
}
