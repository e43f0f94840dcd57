//! The messages of a plugin, for whoever looks for a fault. Values are left out.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use serde_json::Value;

use super::masking::Masking;
use crate::error::{Error, Result};
use crate::session::Transport;

/// A message in a trace is cut to this length.
const LONGEST: usize = 16 << 10;

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// The runner, to the plugin's stdin.
    Sent,
    /// The plugin, on its stdout.
    Received,
    /// The plugin, on its stderr.
    Stderr,
}

/// One message, values left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Who said it.
    pub way: Way,
    /// What.
    pub text: String,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.way {
            Way::Sent => "->",
            Way::Received => "<-",
            Way::Stderr => "!!",
        };
        write!(f, "{mark} {}", self.text)
    }
}

/// Takes the messages of a plugin.
#[derive(Clone)]
pub struct Trace(Arc<dyn Fn(&Frame) + Send + Sync>);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl Trace {
    /// Hands each message to a function.
    pub fn to(listener: impl Fn(&Frame) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Appends each message to a file that only we may read.
    pub fn file(path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| {
                Error::invalid(format!("failed to open the trace `{}`", path.display()))
                    .with_source(error)
            })?;
        let file = Mutex::new(file);
        Ok(Self::to(move |frame| {
            let line = format!("{} {frame}\n", jiff::Timestamp::now());
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk must not end the plugin.
            drop(file.write_all(line.as_bytes()));
        }))
    }

    /// Tells one message, values left out.
    pub fn tell(&self, way: Way, text: String) {
        (self.0)(&Frame { way, text });
    }
}

/// What the first line that a program wrote tells of it, for whoever finds that it is no plugin. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Option<First>>>);

#[derive(Debug)]
enum First {
    Message,
    /// Our own `hello`.
    Echo,
    /// No message; without values.
    Line(String),
}

impl First {
    fn of(line: &str, masking: &Masking) -> Self {
        match serde_json::from_str::<Value>(line) {
            Ok(message) if message["jsonrpc"] == "2.0" && message["method"] == "hello" => {
                Self::Echo
            }
            Ok(message) if message["jsonrpc"] == "2.0" => Self::Message,
            _ => Self::Line(masking.text(line)),
        }
    }
}

impl Heard {
    fn take(&self, line: &str, masking: &Masking) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get_or_insert_with(|| First::of(line, masking));
    }

    /// What is wrong with it, if it is no answer to us at all.
    pub(super) fn complaint(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.as_ref()? {
            First::Message => None,
            First::Echo => {
                Some("it writes back what it is told, as `cat` does: is it a plugin?".to_owned())
            }
            First::Line(line) => Some(format!(
                "the first line that it wrote to stdout is no message: `{}`; messages alone belong there, all else on stderr",
                crate::id::shorten(&line.replace(char::is_control, "\u{fffd}"))
            )),
        }
    }
}

/// A transport whose messages are traced, if anybody wants that.
pub(super) struct Traced<T> {
    inner: T,
    /// Until the first message has come.
    heard: Option<(Heard, Arc<Masking>)>,
    /// Why nothing can be written any more, as long as there may be something to hear.
    broken: Option<Error>,
    trace: Option<(Trace, Arc<Masking>)>,
}

impl<T> Traced<T> {
    pub(super) fn new(
        inner: T,
        trace: Option<Trace>,
        heard: Heard,
        masking: &Arc<Masking>,
    ) -> Self {
        let trace = trace.map(|trace| (trace, Arc::clone(masking)));
        let heard = Some((heard, Arc::clone(masking)));
        Self {
            inner,
            heard,
            broken: None,
            trace,
        }
    }

    fn tell(&self, way: Way, message: &str) {
        if let Some((trace, masking)) = &self.trace {
            trace.tell(way, shown(message, masking));
        }
    }
}

impl<T: Transport> Stream for Traced<T> {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = std::task::ready!(self.inner.poll_next_unpin(cx));
        if let Some(Ok(text)) = &message
            && let Some((heard, masking)) = self.heard.take()
        {
            heard.take(text, &masking);
        }
        match &message {
            Some(Ok(text)) => self.tell(Way::Received, text),
            Some(Err(error)) => self.tell(Way::Received, format!("({})", error.report()).as_str()),
            None => self.tell(Way::Received, "(the end)"),
        }
        Poll::Ready(message)
    }
}

impl<T: Transport> Sink<String> for Traced<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        self.tell(Way::Sent, &message);
        self.inner.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.broken.is_none() {
            match std::task::ready!(self.inner.poll_flush_unpin(cx)) {
                Err(error) if self.heard.is_some() => self.broken = Some(error),
                flushed => return Poll::Ready(flushed),
            }
        }
        // Who ended without reading may have said why before: that is heard first.
        if self.heard.is_some() {
            drop(std::task::ready!(self.poll_next_unpin(cx)));
        }
        Poll::Ready(self.broken.take().map_or(Ok(()), Err))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_close_unpin(cx)
    }
}

/// A message without values: members that hold them become `***`, and so does what is known of them elsewhere.
fn shown(message: &str, masking: &Masking) -> String {
    if masking.is_blind() {
        return outline(message);
    }
    let text = match serde_json::from_str::<Value>(message) {
        Ok(mut value) => {
            leave_out(&mut value, masking.is_empty());
            value.to_string()
        }
        Err(_) => message.to_owned(),
    };
    let mut text = masking.text(&text);
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push_str("… (cut)");
    }
    text
}

/// What a message is about, while a value may stand in it that is not known.
fn outline(message: &str) -> String {
    let length = message.len();
    let Ok(Value::Object(mut members)) = serde_json::from_str(message) else {
        return format!("({length} bytes, held back)");
    };
    members.retain(|name, _| ["jsonrpc", "id", "method"].contains(&name.as_str()));
    members.insert("held_back".to_owned(), format!("{length} bytes").into());
    Value::Object(members).to_string()
}

/// Output is left out as long as there are values: one of them may lie across two messages.
fn leave_out(message: &mut Value, output: bool) {
    for place in ["/params/item/text", "/params/item/base64"] {
        if let Some(Value::String(text)) = message.pointer_mut(place)
            && !output
        {
            *text = format!("({} bytes)", text.len());
        }
    }
    if let Some(Value::Object(secrets)) = message.pointer_mut("/params/secrets") {
        secrets.values_mut().for_each(|value| *value = "***".into());
    }
    for place in ["/params/value", "/result/value"] {
        if let Some(value) = message.pointer_mut(place) {
            *value = "***".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_what_is_no_plugin_is_told_and_an_answer_is_no_complaint() {
        let complaint = |line: &str| {
            let (heard, masking) = (Heard::default(), Masking::default());
            masking.learn(
                "a run".into(),
                vec![crate::secret::SecretValue::new("hunter22")],
            );
            heard.take(line, &masking);
            heard.take("a second line", &masking);
            heard.complaint()
        };
        let told = complaint("Starting\tup hunter22").unwrap();
        assert!(told.contains("`Starting\u{fffd}up ***`"), "{told}");
        assert!(complaint(&"x".repeat(5000)).unwrap().len() < 300);
        assert!(complaint(r#"{"jsonrpc":"2.0","id":1,"method":"hello"}"#).is_some());
        assert_eq!(complaint(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), None);
        assert_eq!(Heard::default().complaint(), None);
        let (heard, blind) = (Heard::default(), Masking::default());
        blind.doubt("a run".into());
        heard.take(r#"{"jsonrpc":"2.0","id":1,"error":{}}"#, &blind);
        assert_eq!(
            heard.complaint(),
            None,
            "a message, though not one word of it may be told"
        );
    }

    #[test]
    fn no_value_stands_in_a_trace() {
        let masking = Masking::default();
        for message in [
            r#"{"id":1,"method":"start","params":{"spec":{},"secrets":{"/a":{"text":"hunter22"}}}}"#,
            r#"{"id":1,"result":{"value":{"base64":"hunter22"},"version":"3"}}"#,
        ] {
            let shown = shown(message, &masking);
            assert!(
                !shown.contains("hunter22") && shown.contains("***"),
                "{shown}"
            );
        }
        let long = shown(&"ü".repeat(LONGEST), &masking);
        assert!(long.len() < LONGEST + 20 && long.ends_with("(cut)"));
    }
}
