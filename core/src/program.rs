//! Programs that answer: a question on their stdin, the answer on their stdout. For backends that have a command line.

#[cfg(feature = "plugin-host")]
pub mod outlet;

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Duration, timeout};

use crate::error::{Error, ErrorKind, Result};

/// What a program may print.
const MOST: u64 = 2 << 20;
/// What is kept of its stderr.
const MOST_WORDS: u64 = 8 << 10;
/// How long the rest of its stderr may take to be read once it has ended.
const REST: Duration = Duration::from_secs(1);

/// Runs a program with `input` on its stdin, and returns what it prints on its stdout, at most 2 MiB. `what` names the question
/// in errors.
///
/// # Errors
///
/// A program that prints `{"error": {"kind": "denied", "message": "…"}}` answers with that error. Else its exit code tells:
/// 2 invalid, 3 unavailable, 4 denied, 5 not found, and the last line of its stderr is the cause. Any other failure is
/// `otherwise`: [`ErrorKind::Internal`] where nobody knows what was done, [`ErrorKind::Unavailable`] where asking again is
/// fine.
///
/// # Cancel safety
///
/// Dropped midway, the program is killed.
pub async fn ask(
    what: &str,
    mut command: Command,
    input: &[u8],
    otherwise: ErrorKind,
) -> Result<Vec<u8>> {
    command
        .stdout(Stdio::piped())
        // What a terminal sends to our group is not meant for it.
        .process_group(0)
        .kill_on_drop(true);
    pipe(&mut command);
    let program = command.as_std().get_program().to_owned();
    let mut child = command
        .spawn()
        .map_err(|error| not_run(what, &program, error))?;
    let stdout = child.stdout.take();
    answer(what, &program, child, stdout, input, otherwise).await
}

/// The same of a program that must not be broken off, with a stdout that shows to whoever comes after us whether it is still at
/// work: see [`outlet::holders`].
///
/// # Errors
///
/// As [`ask`].
///
/// # Cancel safety
///
/// Dropped midway, the program goes on.
#[cfg(feature = "plugin-host")]
pub async fn ask_through(
    outlet: outlet::Outlet,
    what: &str,
    mut command: Command,
    input: &[u8],
    otherwise: ErrorKind,
) -> Result<Vec<u8>> {
    pipe(&mut command);
    let program = command.as_std().get_program().to_owned();
    let (child, placed) = outlet
        .spawn(command)
        .map_err(|error| not_run(what, &program, error))?;
    let answer = answer(what, &program, child, Some(placed.stdout), input, otherwise).await;
    // It has ended; what it has started may be at work still. If nobody is, the pipe is put away.
    if let Err(error) = outlet::holders(&placed.path) {
        tracing::debug!(path = %placed.path.display(), %error, "a pipe that nobody uses is left");
    }
    answer
}

fn pipe(command: &mut Command) {
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
}

fn not_run(what: &str, program: &std::ffi::OsStr, error: std::io::Error) -> Error {
    let program = program.to_string_lossy();
    let message = format!("failed to run the command `{what}` (`{program}`)");
    Error::unavailable(message).with_source(error)
}

async fn answer(
    what: &str,
    program: &std::ffi::OsStr,
    mut child: Child,
    stdout: Option<impl AsyncRead + Unpin>,
    input: &[u8],
    otherwise: ErrorKind,
) -> Result<Vec<u8>> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Whoever does not read it has no need of it.
            drop(stdin.write_all(input).await);
        }
    };
    let mut words = Vec::new();
    let (printed, status) = {
        let ended = async {
            let mut printed = Vec::new();
            let ((), read) = tokio::join!(write, read_most(stdout, MOST, &mut printed));
            (read.map(|()| printed), child.wait().await)
        };
        let words = read_most(stderr, MOST_WORDS, &mut words);
        tokio::pin!(ended, words);
        tokio::select! {
            ended = &mut ended => {
                // What it has started may keep its stderr for ever.
                drop(timeout(REST, words).await);
                ended
            }
            _ = &mut words => ended.await,
        }
    };
    let status = status.map_err(|error| not_run(what, program, error))?;
    let printed = printed.map_err(|error| {
        let message = format!("failed to read what the command `{what}` printed");
        Error::internal(message).with_source(error)
    })?;
    judge(what, status, printed, &words, otherwise)
}

/// Reads a program and its arguments out of a section: `#[serde(deserialize_with = "argv")]`.
pub fn argv<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(Argv)
}

/// The same where it may be absent; with `#[serde(default)]`.
pub fn argv_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    argv(deserializer).map(Some)
}

struct Argv;

impl<'de> Visitor<'de> for Argv {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of a program and its arguments")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let words: Vec<String> = text
            .split_whitespace()
            .map(|word| format!("{word:?}"))
            .collect();
        let words = crate::id::shorten(&words.join(", "));
        Err(E::custom(format!(
            "a text where a list of a program and its arguments is expected: write `[{words}]`; no shell reads it"
        )))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Self::Value, A::Error> {
        let mut argv = Vec::new();
        while let Some(word) = words.next_element()? {
            argv.push(word);
        }
        Ok(argv)
    }
}

/// Reads the JSON that a program printed. The parser's own words could quote a value, and are left out.
pub fn read<T: DeserializeOwned>(what: &str, printed: &[u8]) -> Result<T> {
    serde_json::from_slice(printed).map_err(|error| {
        Error::internal(format!(
            "the command `{what}` did not print what it should (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

/// Reads to the end, and keeps at most so much.
async fn read_most(
    pipe: Option<impl AsyncRead + Unpin>,
    most: u64,
    bytes: &mut Vec<u8>,
) -> std::io::Result<()> {
    let Some(pipe) = pipe else {
        return Ok(());
    };
    let mut pipe = pipe.take(most);
    pipe.read_to_end(bytes).await?;
    // The rest is let go of, so that the writer is not stopped in its tracks.
    tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await?;
    Ok(())
}

/// What an end says; the exit codes of our own commands are understood.
fn judge(
    what: &str,
    status: ExitStatus,
    printed: Vec<u8>,
    words: &[u8],
    otherwise: ErrorKind,
) -> Result<Vec<u8>> {
    if let Some(error) = printed_error(&printed) {
        return Err(error);
    }
    if status.success() {
        return Ok(printed);
    }
    let kind = match status.code() {
        Some(2) => ErrorKind::Invalid,
        Some(3) => ErrorKind::Unavailable,
        Some(4) => ErrorKind::Denied,
        Some(5) => ErrorKind::NotFound,
        _ => otherwise,
    };
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    };
    let error = Error::new(kind, format!("the command `{what}` ended with {how}"));
    let words = String::from_utf8_lossy(words);
    Err(match words.trim().lines().last() {
        Some(last) => error.with_source(last.to_owned()),
        None => error,
    })
}

fn printed_error(printed: &[u8]) -> Option<Error> {
    #[derive(Deserialize)]
    struct Printed {
        error: Told,
    }
    #[derive(Deserialize)]
    struct Told {
        #[serde(default)]
        kind: Option<ErrorKind>,
        message: String,
    }
    let Told { kind, message } = serde_json::from_slice::<Printed>(printed).ok()?.error;
    Some(Error::new(kind.unwrap_or(ErrorKind::Internal), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, input: &[u8]) -> Result<Vec<u8>> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let limit = std::time::Duration::from_secs(30);
        let asked = ask("status", command, input, ErrorKind::Unavailable);
        tokio::time::timeout(limit, asked).await.unwrap()
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_however_long_it_is() {
        let long = vec![b'x'; 1 << 20];
        assert_eq!(sh("cat; cat >&2 /dev/null", &long).await.unwrap(), long);
        let flood = sh(
            "head -c 5000000 /dev/zero; head -c 5000000 >&2 /dev/zero",
            b"",
        );
        assert_eq!(flood.await.unwrap().len() as u64, MOST);
        assert_eq!(sh("exec <&-; echo {}", &long).await.unwrap(), b"{}\n");
        let left = sh("sleep 20 >/dev/null & echo why >&2; echo {}", b"").await;
        assert_eq!(left.unwrap(), b"{}\n", "a job may keep its stderr");
    }

    #[tokio::test]
    async fn a_failure_is_what_the_program_says() {
        for (script, kind, report) in [
            (
                r#"echo '{"error":{"kind":"not_found","message":"no job 7"}}'; exit 1"#,
                ErrorKind::NotFound,
                "no job 7",
            ),
            (
                "echo first >&2; echo last >&2; exit 4",
                ErrorKind::Denied,
                "the command `status` ended with exit code 4: last",
            ),
            (
                "kill -9 $$",
                ErrorKind::Unavailable,
                "the command `status` ended with signal 9",
            ),
        ] {
            let error = sh(script, b"").await.unwrap_err();
            assert_eq!((error.kind(), &*error.report()), (kind, report), "{script}");
        }
        let missing = Command::new("/no/such/program");
        let error = ask("status", missing, b"", ErrorKind::Internal)
            .await
            .unwrap_err();
        assert!(
            error.is_transient() && error.message().contains("`/no/such/program`"),
            "{error:?}"
        );
    }

    #[test]
    fn what_was_printed_is_not_quoted() {
        let error = read::<u64>("get", br#""hunter22""#).unwrap_err();
        assert!(!error.report().contains("hunter22"), "{error:?}");
    }
}
