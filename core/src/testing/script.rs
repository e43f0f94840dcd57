//! What a workload of a test does, in a form that a shell and the fake both understand.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RunId;
use crate::log::Stream;
use crate::run::RunSpec;
use crate::unit::Period;

/// What a workload does, step by step. After its last step it ends with exit code 0.
///
/// [`Script::spec`] makes a run of it: `/bin/sh -c TEXT JSON`, where `TEXT` is the script as portable
/// shell text (dash, bash, busybox; with `printf`, `head`, `tr`, `cksum`, `sleep` and `env`) and `JSON`,
/// the shell's `$0`, is the script itself. A real executor runs the first, [`super::FakeExecutor`] reads the
/// second: the same spec serves both.
///
/// ```
/// # use hybrid_runner_core::{RunId, testing::Script};
/// let script = Script::new().out("one\n").err("two\n").exit(3);
/// let spec = script.spec(RunId::generate().attempt(1));
/// assert_eq!(Script::of(&spec), Some(script));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[must_use]
pub struct Script(Vec<Step>);

/// One step of a [`Script`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Writes bytes.
    Write {
        /// Where to.
        to: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// Writes the letter `x` so many times, without a newline.
    Letters(usize),
    /// Writes `line 1`, `line 2`, … with a pause behind each.
    Lines {
        /// How many.
        count: u32,
        /// The pause.
        every: Period,
    },
    /// Waits.
    Sleep(Period),
    /// Writes the value of a variable and a newline.
    Variable(String),
    /// Writes `<CRC> <length>` of a variable's value, as `cksum` does: evidence that does not hold the value.
    VariableSum(String),
    /// Writes the first three bytes of a variable's value, pauses, and writes the rest and a newline.
    VariableInPieces(String),
    /// Writes the content of the file whose path is in a variable.
    File(String),
    /// Writes `<CRC> <length>` of the file whose path is in a variable.
    FileSum(String),
    /// Writes the whole environment, as `env` does.
    Environment,
    /// Writes each argument after the script on a line of its own.
    Arguments,
    /// Appends a line to a file.
    Evidence(PathBuf),
    /// From here on answers SIGTERM by writing this text and ending with exit code 0.
    Farewell(String),
    /// Ignores SIGTERM from here on, and so do all processes begun after it.
    Stubborn,
    /// Begins a child and grandchildren that live for ever.
    Tree,
    /// Begins a process in a session of its own that ignores SIGTERM, lives for ever, and writes `away` once it is there.
    Daemon,
    /// Lives until it is ended.
    Hold,
    /// Ends with this code.
    Exit(i32),
    /// Ends itself by this signal.
    Signal(i32),
}

impl Script {
    /// Does nothing and succeeds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Writes to standard output.
    pub fn out(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        self.then(Step::Write {
            to: Stream::Out,
            bytes,
        })
    }

    /// Writes to standard error.
    pub fn err(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        self.then(Step::Write {
            to: Stream::Err,
            bytes,
        })
    }

    /// Writes `line 1`, `line 2`, … with a pause behind each.
    pub fn lines(self, count: u32, every: Duration) -> Self {
        let every = every.into();
        self.then(Step::Lines { count, every })
    }

    /// Waits.
    pub fn sleep(self, time: Duration) -> Self {
        self.then(Step::Sleep(time.into()))
    }

    /// Lives until it is ended.
    pub fn hold(self) -> Self {
        self.then(Step::Hold)
    }

    /// Ignores SIGTERM from here on, with all its children.
    pub fn stubborn(self) -> Self {
        self.then(Step::Stubborn)
    }

    /// Ends with this code.
    pub fn exit(self, code: i32) -> Self {
        self.then(Step::Exit(code))
    }

    /// Ends itself by this signal.
    pub fn signal(self, signal: i32) -> Self {
        self.then(Step::Signal(signal))
    }

    /// This script after one step more.
    pub fn after(mut self, step: Step) -> Self {
        self.0.insert(0, step);
        self
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The run of this script with that id, as `/bin/sh -c TEXT JSON`.
    pub fn spec(&self, run: RunId) -> RunSpec {
        let name = "contract".parse().expect("the name is valid");
        RunSpec::new(run, name, self.command())
    }

    /// The command: `/bin/sh`, `-c`, the shell text, the script as JSON.
    pub fn command(&self) -> [String; 4] {
        let json = serde_json::to_string(self).expect("a script is always JSON");
        ["/bin/sh".into(), "-c".into(), self.shell(), json]
    }

    /// The script that a spec was made of, if it was made of one.
    pub fn of(spec: &RunSpec) -> Option<Self> {
        match spec.command.as_deref()? {
            [_, dash_c, _, json] if dash_c == "-c" => serde_json::from_str(json).ok(),
            _ => None,
        }
    }

    /// The script as portable shell text.
    pub fn shell(&self) -> String {
        let mut text = String::new();
        for step in &self.0 {
            step.write_shell(&mut text)
                .expect("a string takes all that is written");
            text.push('\n');
        }
        text
    }
}

impl Step {
    fn write_shell(&self, text: &mut String) -> std::fmt::Result {
        match self {
            Self::Write { to, bytes } => {
                text.push_str("printf '");
                for byte in bytes {
                    // Octal also for the quote, the backslash and `%`; plain letters stay readable.
                    if byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'.' | b'-') {
                        text.push(char::from(*byte));
                    } else {
                        write!(text, "\\{byte:03o}")?;
                    }
                }
                text.push_str(if *to == Stream::Err { "' >&2" } else { "'" });
                Ok(())
            }
            Self::Letters(count) => write!(text, "head -c {count} /dev/zero | tr '\\000' x"),
            Self::Lines { count, every } => {
                let pause = every
                    .limit()
                    .map(|pause| format!("; sleep {}", seconds(pause)));
                let pause = pause.unwrap_or_default();
                write!(
                    text,
                    "i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo \"line $i\"{pause}; done"
                )
            }
            Self::Sleep(time) => write!(text, "sleep {}", seconds(time.get())),
            Self::Variable(name) => write!(text, "printf '%s\\n' \"${{{name}}}\""),
            Self::VariableSum(name) => write!(text, "printf '%s' \"${{{name}}}\" | cksum"),
            Self::VariableInPieces(name) => write!(
                text,
                "printf '%.3s' \"${{{name}}}\"; sleep 0.1; printf '%s\\n' \"${{{name}#???}}\""
            ),
            Self::File(name) => write!(text, "cat \"${{{name}}}\""),
            Self::FileSum(name) => write!(text, "cksum < \"${{{name}}}\""),
            Self::Environment => write!(text, "env"),
            Self::Arguments => write!(text, "printf '%s\\n' \"$@\""),
            Self::Evidence(path) => write!(
                text,
                "echo began >> {}",
                quoted(&path.display().to_string())
            ),
            Self::Farewell(words) => write!(
                text,
                "trap {} TERM",
                quoted(&format!("printf %s {}; exit 0", quoted(words)))
            ),
            Self::Stubborn => write!(text, "trap '' TERM"),
            Self::Tree => write!(text, "( ( sleep 600; : ) & sleep 600; : ) &"),
            Self::Daemon => write!(
                text,
                "setsid /bin/sh -c 'trap \"\" TERM; echo away; exec >/dev/null 2>&1; sleep 600; :' &"
            ),
            // A shell that waits takes its trap at once; one that runs a command does not.
            Self::Hold => write!(text, "sleep 600 & wait"),
            Self::Exit(code) => write!(text, "exit {code}"),
            Self::Signal(signal) => write!(text, "kill -{signal} $$; sleep 600"),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// CRC and length of bytes, as `cksum` writes them (POSIX).
pub fn cksum(bytes: &[u8]) -> String {
    let mut length = bytes.len();
    let mut crc = bytes.iter().fold(0, |crc, byte| feed(crc, *byte));
    while length > 0 {
        crc = feed(crc, u8::try_from(length & 0xff).expect("masked to a byte"));
        length >>= 8;
    }
    format!("{} {}", !crc, bytes.len())
}

fn feed(crc: u32, byte: u8) -> u32 {
    (0..8).fold(crc ^ (u32::from(byte) << 24), |crc, _| {
        (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_cksum() {
        assert_eq!(cksum("a\"b\nc%ü".as_bytes()), "3464960820 8");
        assert_eq!(cksum(b""), "4294967295 0");
    }

    #[test]
    fn a_script_is_found_again_in_its_spec() {
        let script = Script::new()
            .out((0..=255).collect::<Vec<u8>>())
            .lines(3, Duration::from_millis(20))
            .then(Step::Tree)
            .signal(9);
        let spec = script.spec(RunId::generate());
        assert_eq!(Script::of(&spec), Some(script));
        spec.validate().unwrap();
    }

    #[test]
    fn nothing_in_the_shell_text_is_taken_for_a_variable_of_the_run() {
        let script = Script::new()
            .lines(2, Duration::ZERO)
            .out("$(WORKFLOW_RUN_ID) $$(")
            .signal(9);
        let spec = script.spec(RunId::generate());
        let rendered = crate::run::render(&spec, &crate::Secrets::none(), "").unwrap();
        assert_eq!(rendered.command, spec.command);
    }
}
