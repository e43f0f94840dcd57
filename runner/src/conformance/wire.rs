//! Promises of the pipe, which no contract has.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind};
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::log::{LogChunk, LogItem};
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, PluginExecutor, Way};
use hybrid_runner_core::run::{Outcome, Status};
use hybrid_runner_core::secret::{SecretName, SecretProvider as _, SecretValue, Secrets};
use hybrid_runner_core::session::Session;
use hybrid_runner_core::testing::{Failed, Harness as _, Script, Step, Verdict};
use hybrid_runner_executors::plugin::Plugin;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::candidate::{Candidate, kill};

/// How soon a question that needs no work of the backend is answered.
const SOON: Duration = Duration::from_secs(2);
/// How long a program may take to end.
const LEAVE: Duration = Duration::from_secs(3);
/// What one stream may send in the case about credit.
const CREDIT: usize = 20_000;

/// How a case ends.
type Tried = Result<(), Unkept>;

enum Unkept {
    Failed(Failed),
    NotOffered(&'static str),
}

/// One promise of the pipe.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WireCase {
    /// The promise, in `snake_case`.
    pub name: &'static str,
    /// Only executors make it.
    executor: bool,
    run: for<'a> fn(&'a Candidate) -> BoxFuture<'a, Tried>,
}

impl WireCase {
    /// Tries the promise, within its own time limit.
    pub async fn check(&self, candidate: &Candidate) -> Verdict {
        if self.executor && candidate.contract() != Contract::Executor {
            return Verdict::NotOffered("an executor".to_owned());
        }
        let limit = candidate.patience() * 6;
        let tried = timeout(limit, (self.run)(candidate)).await;
        match tried
            .unwrap_or_else(|_| failed("an end of the case", format!("none within {limit:?}")))
        {
            Ok(()) => Verdict::Kept,
            Err(Unkept::Failed(failed)) => Verdict::Failed(failed),
            Err(Unkept::NotOffered(needs)) => Verdict::NotOffered(needs.to_owned()),
        }
    }
}

macro_rules! cases {
    ($($name:ident: $executor:literal),+ $(,)?) => {
        /// Every promise of the pipe. What nobody should write is looked for last, in all that came before.
        pub const WIRE_CASES: &[WireCase] = &[$(WireCase {
            name: stringify!($name),
            executor: $executor,
            run: |candidate| Box::pin($name(candidate)),
        }),+];
    };
}

cases! {
    an_unknown_method_is_answered_as_unsupported: false,
    unknown_fields_are_tolerated: false,
    questions_are_answered_soon: false,
    a_ping_is_answered_while_a_run_is_followed: true,
    a_run_survives_the_plugin: true,
    a_stream_stops_when_its_credit_is_used_up: true,
    a_value_stands_in_no_message: true,
    it_ends_when_its_stdin_is_closed: false,
    stdout_holds_messages_only: false,
}

fn failed<T>(expected: impl Into<String>, came: impl Into<String>) -> Result<T, Unkept> {
    Err(Unkept::Failed(Failed {
        expected: expected.into(),
        came: came.into(),
    }))
}

fn done<T>(what: &str, result: Result<T, Error>) -> Result<T, Unkept> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => failed(
            format!("{what}: success"),
            format!("the error `{}`: {}", error.kind(), error.report()),
        ),
    }
}

async fn within<F: Future>(limit: Duration, what: &str, future: F) -> Result<F::Output, Unkept> {
    match timeout(limit, future).await {
        Ok(output) => Ok(output),
        Err(_) => failed(format!("{what} within {limit:?}"), "nothing"),
    }
}

async fn session(candidate: &Candidate) -> Result<(Host, Session), Unkept> {
    let host = done("the program's start", candidate.host("One", true))?;
    let session = done("the first exchange", host.session().await)?;
    Ok((host, session))
}

async fn an_unknown_method_is_answered_as_unsupported(t: &Candidate) -> Tried {
    let (_host, session) = session(t).await?;
    let params = json!({});
    let asked = session.call::<Value, Value>("no-such-method", &params);
    match within(SOON, "an answer to an unknown method", asked).await? {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(error) => failed(
            "an unknown method to be refused as `unsupported`",
            error.report(),
        ),
        Ok(answer) => failed("an unknown method to be refused", answer.to_string()),
    }
}

async fn unknown_fields_are_tolerated(t: &Candidate) -> Tried {
    let (_host, session) = session(t).await?;
    let params = json!({ "a_field_of_a_later_version": { "a": [1, 2] } });
    let asked = session.call::<Value, Value>("check", &params);
    let answer = within(t.patience(), "an answer to `check`", asked).await?;
    done("a request with an unknown field", answer).map(drop)
}

async fn questions_are_answered_soon(t: &Candidate) -> Tried {
    let (host, session) = session(t).await?;
    let params = json!({});
    let ping = session.call::<Value, Value>("ping", &params);
    done("a ping", within(SOON, "an answer to `ping`", ping).await?)?;
    if t.contract() == Contract::Secrets {
        let store = hybrid_runner_core::plugin::host::PluginStore::new(host);
        let name = SecretName::new("/contract/no-such-secret");
        return within(SOON, "an answer to `get`", store.get(&name))
            .await
            .map(drop);
    }
    let executor = PluginExecutor::new(host);
    let checked = within(SOON, "an answer to `check`", executor.check()).await?;
    done("a check", checked)?;
    let can = done("the capabilities", executor.capabilities().await)?;
    if can.offers("list") && can.named_start {
        let listed = within(SOON, "an answer to `list`", executor.list()).await?;
        done("a list", listed)?;
    }
    Ok(())
}

async fn a_ping_is_answered_while_a_run_is_followed(t: &Candidate) -> Tried {
    let host = done("the program's start", t.host("One", true))?;
    let executor = t.plugin(host.clone());
    let handle = start(t, &executor, Script::new().hold(), &Secrets::none()).await?;
    let mut levels = executor.watch(&handle);
    let first = within(t.patience(), "a level", levels.next()).await?;
    drop(first);
    let session = done("the session", host.session().await)?;
    let params = json!({});
    let ping = session.call::<Value, Value>("ping", &params);
    let answer = within(SOON, "an answer to `ping` while a run is followed", ping).await;
    clean_up(t, &executor, &handle).await;
    done("a ping", answer?).map(drop)
}

async fn a_run_survives_the_plugin(t: &Candidate) -> Tried {
    let host = done("the program's start", t.host("One", !t.masks()))?;
    let executor = t.plugin(host.clone());
    let script = Script::new().lines(20, t.tick() / 8).exit(3);
    let handle = start(t, &executor, script, &Secrets::none()).await?;
    let Some(process) = host.process().await else {
        return failed("a process", "none");
    };
    kill(process);
    let outcome = end(t, &executor, &handle).await;
    let log = log(t, &executor, &handle).await;
    clean_up(t, &executor, &handle).await;
    match outcome? {
        Outcome::Failed(failure) if failure.exit_code == Some(3) => {}
        other => {
            return failed(
                "the run to end with exit code 3, although the plugin was killed",
                other.to_string(),
            );
        }
    }
    let expected = (1..=20).fold(String::new(), |text, n| text + &format!("line {n}\n"));
    match log? {
        Some(text) if text == expected => Ok(()),
        Some(text) => failed("its whole output, once", format!("{text:?}")),
        None => Ok(()),
    }
}

async fn a_stream_stops_when_its_credit_is_used_up(t: &Candidate) -> Tried {
    let (host, session) = session(t).await?;
    let executor = t.plugin(host);
    if !done("the capabilities", executor.capabilities().await)?.offers("logs") {
        return Err(Unkept::NotOffered("a backend with `logs`"));
    }
    let script = Script::new().then(Step::Letters(2_000_000));
    let handle = start(t, &executor, script, &Secrets::none()).await?;
    let ended = end(t, &executor, &handle).await;
    t.frames().begin();
    // A reader that takes nothing: what it grants is the window of one stream, and never more.
    let params = json!({ "run": handle, "stream": 1_000_000_007_u64, "credit": CREDIT });
    let opened = session.call::<Value, Value>("logs", &params);
    let opened = within(t.patience(), "an answer to `logs`", opened).await;
    sleep(SOON / 2).await;
    let sent: Vec<usize> = t
        .frames()
        .holding("stream.data")
        .iter()
        // No other stream is open now.
        .filter(|frame| frame.way == Way::Received)
        .map(|frame| frame.text.len())
        .collect();
    clean_up(t, &executor, &handle).await;
    ended?;
    done("`logs`", opened?)?;
    // The credit may be overdrawn by one item; how long a message is does not matter, how many there are does.
    let before_last: usize = sent.iter().rev().skip(1).sum();
    if before_last > CREDIT + sent.len() * 200 {
        let came = format!("{} items, {before_last} bytes before the last", sent.len());
        return failed(format!("no item after {CREDIT} bytes of credit"), came);
    }
    Ok(())
}

async fn a_value_stands_in_no_message(t: &Candidate) -> Tried {
    const VALUE: &str = "kestrel-umbrella-4711-quartz";
    // Unmasked by us: what the program says is seen as it is.
    let host = done("the program's start", t.host("One", false))?;
    let executor = t.plugin(host);
    let mut values = Secrets::none();
    values.insert("/contract/value", SecretValue::new(VALUE));
    let run = RunId::generate().attempt(1);
    let script = Script::new().then(Step::Variable("VALUE".into())).exit(3);
    let mut spec = t.spec(run, &script);
    spec.env
        .insert("VALUE".into(), "secret:/contract/value".into());
    let none = Progress::none();
    let started = executor.start(&spec, &values, &none);
    let handle = done("a start", within(t.patience(), "a start", started).await?)?;
    let ended = end(t, &executor, &handle).await;
    let read = log(t, &executor, &handle).await;
    clean_up(t, &executor, &handle).await;
    ended?;
    read?;
    let leaks = t.frames().holding(VALUE);
    let leak = leaks.iter().find(|frame| {
        // What the program does not mask in a log, we do.
        frame.way != Way::Sent && (t.masks() || !frame.text.contains("stream.data"))
    });
    match leak {
        None => Ok(()),
        Some(frame) => failed(
            "the value of a secret in no message and not on stderr",
            frame.to_string().replace(VALUE, "<the value>"),
        ),
    }
}

async fn it_ends_when_its_stdin_is_closed(t: &Candidate) -> Tried {
    let (host, session) = session(t).await?;
    let Some(process) = host.process().await else {
        return failed("a process", "none");
    };
    session.close();
    let gone = async {
        // The system has no event for the end of a process that is not ours to wait for.
        while std::path::Path::new(&format!("/proc/{process}")).exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(LEAVE, gone).await;
    let killed = t.frames().holding("it was killed");
    if waited.is_err() || !killed.is_empty() || !host.left_by_itself().await {
        return failed(
            "the program to end when its stdin is closed",
            "it had to be killed",
        );
    }
    Ok(())
}

async fn stdout_holds_messages_only(t: &Candidate) -> Tried {
    match t.frames().garbage().first() {
        None => Ok(()),
        Some(line) => failed(
            "messages on stdout, and nothing else",
            format!("the line `{line}`"),
        ),
    }
}

async fn start(
    t: &Candidate,
    executor: &Plugin,
    script: Script,
    values: &Secrets,
) -> Result<Handle, Unkept> {
    let spec = t.spec(RunId::generate().attempt(1), &script);
    let none = Progress::none();
    let started = executor.start(&spec, values, &none);
    done(
        "a start",
        within(t.patience(), "an answer to `start`", started).await?,
    )
}

async fn end(t: &Candidate, executor: &Plugin, run: &Handle) -> Result<Outcome, Unkept> {
    let ended = async {
        loop {
            // An error is the last item of a stream: ask again.
            let mut levels: BoxStream<'static, Result<Status, Error>> = executor.watch(run);
            while let Some(Ok(level)) = levels.next().await {
                if let Some(outcome) = level.outcome() {
                    return outcome.clone();
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    within(t.patience(), "the run's end", ended).await
}

/// The whole output; none if there is no such thing.
async fn log(t: &Candidate, executor: &Plugin, run: &Handle) -> Result<Option<String>, Unkept> {
    if !done("the capabilities", executor.capabilities().await)?.offers("logs") {
        return Ok(None);
    }
    let chunks: Vec<Result<LogChunk, Error>> = within(
        t.patience(),
        "the end of the log",
        executor.logs(run, None).collect(),
    )
    .await?;
    let mut text = Vec::new();
    for chunk in chunks {
        if let LogItem::Data { bytes, .. } = done("a piece of the log", chunk)?.item {
            text.extend_from_slice(&bytes);
        }
    }
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

async fn clean_up(t: &Candidate, executor: &Plugin, run: &Handle) {
    let clean = async {
        executor.stop(run, Duration::ZERO).await.ok();
        let mut levels = executor.watch(run);
        while let Some(Ok(_)) = levels.next().await {}
        executor.remove(run).await.ok();
    };
    drop(timeout(t.patience(), clean).await);
}
