//! `runs`, `show`, `logs`, `stop`, `runners`: questions to the control plane.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Error, ErrorKind, LogChunk};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::{self, Logs, Runners, Runs, Show, Stop};
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Done, Interrupt};
use crate::client::{Client, Event};

/// Before a stream that broke is asked for again: the first time, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A run as the API shows it: what we print of it, and all of it.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) raw: Value,
}

impl<'de> Deserialize<'de> for Run {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        let text = |key: &str| raw[key].as_str().map(str::to_owned);
        let missing = |key| D::Error::custom(format!("a run without `{key}`"));
        Ok(Self {
            id: text("id").ok_or_else(|| missing("id"))?,
            name: text("name").ok_or_else(|| missing("name"))?,
            raw,
        })
    }
}

impl Run {
    pub(crate) fn state(&self) -> &str {
        self.raw["state"].as_str().unwrap_or("unknown")
    }

    fn is_finished(&self) -> bool {
        matches!(self.state(), "succeeded" | "failed" | "stopped" | "lost")
    }

    pub(crate) fn exit(&self) -> Exit {
        if self.state() == "succeeded" {
            Exit::Done
        } else {
            Exit::No
        }
    }

    /// Why it stands as it stands, in one line.
    fn why(&self) -> String {
        let failure = &self.raw["failure"];
        if let Some(message) = failure["message"].as_str() {
            return format!(
                "({}): {message}",
                failure["class"].as_str().unwrap_or("failure")
            );
        }
        if let Some(by) = self.raw["stopped_by"].as_str() {
            return format!("by {by}");
        }
        let told = self.raw["why"].as_str().or(self.raw["message"].as_str());
        told.map(|told| format!(": {told}")).unwrap_or_default()
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        self.raw["times"][name].as_str()?.parse().ok()
    }

    fn took(&self) -> Option<String> {
        let from = self.time("running").or(self.time("starting"))?;
        let to = if self.is_finished() {
            self.time("finished")?
        } else {
            Timestamp::now()
        };
        // The two may be of two clocks, one of which counts whole seconds.
        let took = to.duration_since(from).as_secs_f64().max(0.0);
        Some(format!("{took:.1} s"))
    }

    /// A failure's cause in the backend's own words, as a line.
    fn source(&self) -> Option<String> {
        let source = self.raw["failure"]["source"].as_str()?;
        Some(field("source", source))
    }

    /// The end of a followed run: its cause, if a backend told one, and the line that has the class, which is the last.
    pub(crate) fn describe(&self, output: Output) {
        if let Some(source) = self.source() {
            output.end(&source, false);
        }
        let took = self
            .took()
            .map(|took| format!(" after {took}"))
            .unwrap_or_default();
        let why = self.why();
        // `(exit): what happened`, `by admin`, `: what the runner says`, or nothing.
        let (kind, message) = match why.split_once(": ") {
            Some((kind, message)) => (kind, format!(": {message}")),
            None => (why.as_str(), String::new()),
        };
        let space = if kind.is_empty() { "" } else { " " };
        let line = format!(
            "run {} {}{space}{kind}{took}{message}",
            self.id,
            output.state_err(self.state())
        );
        output.end(&line, self.exit() == Exit::Done);
    }
}

/// The client that flags and variables describe.
pub(crate) fn client(args: &args::Client, output: Output) -> Result<Client, Failure> {
    let url = args
        .server
        .as_deref()
        .filter(|url| !url.is_empty())
        .ok_or_else(|| {
            Failure::usage("which control plane? Give `--server URL`, or set HYBRID_RUNNER_SERVER")
        })?;
    let token = args.token.as_deref().map(str::trim).filter(|token| !token.is_empty()).ok_or_else(|| {
        Failure::usage("no token: set HYBRID_RUNNER_TOKEN (the admin's is in `admin.token` in the control plane's data folder)")
    })?;
    let client = Client::new(url, SecretString::from(token), args.ca.as_deref())?;
    if client.is_in_the_clear() {
        output.warning("`http://` shows the token to everybody on the way; use `https://`");
    }
    Ok(client)
}

/// `runs`
pub(crate) async fn runs(args: Runs, output: Output) -> Done {
    let client = client(&args.client, output)?;
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.state.map(|state| ("state", state)));
    query.extend(args.runner.map(|runner| ("runner", runner)));
    query.extend(args.deployment.map(|deployment| ("deployment", deployment)));
    let list: Value = client.get("/api/v1/runs", &query).await?;
    let list = list["runs"].clone();
    if output.json {
        output.object(&list)?;
        return Ok(Exit::Done);
    }
    let list: Vec<Run> = serde_json::from_value(list).map_err(not_understood)?;
    let rows: Vec<_> = list.iter().map(|run| row(run, output)).collect();
    output.table(
        &[
            "RUN", "WORKFLOW", "RUNNER", "STATE", "CREATED", "TOOK", "NOTE",
        ],
        &rows,
    )?;
    Ok(Exit::Done)
}

fn row(run: &Run, output: Output) -> Vec<String> {
    let text = |key: &str| run.raw[key].as_str().unwrap_or_default().to_owned();
    let note: String = run
        .why()
        .trim_start_matches([':', ' '])
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(80)
        .collect();
    vec![
        run.id.clone(),
        run.name.clone(),
        text("runner"),
        output.state(run.state()),
        short_time(&text("created")),
        run.took().unwrap_or_default(),
        note,
    ]
}

/// A time to the second.
fn short_time(text: &str) -> String {
    text.parse::<Timestamp>()
        .map_or_else(|_| text.to_owned(), |time| format!("{time:.0}"))
}

fn not_understood(error: serde_json::Error) -> Failure {
    Error::unavailable("the control plane answered what is not understood")
        .with_source(error)
        .into()
}

/// A run by its id or the beginning of it, as a part of an address.
fn path(run: &str) -> Result<String, Failure> {
    let fits = |c: char| c.is_ascii_hexdigit() || c == '-';
    if run.is_empty() || run.len() > 36 || !run.chars().all(fits) {
        return Err(Failure::usage(format!(
            "`{run}` is not a run id, nor the beginning of one"
        )));
    }
    Ok(format!("/api/v1/runs/{run}"))
}

/// `show`
pub(crate) async fn show(args: Show, output: Output) -> Done {
    let client = client(&args.client, output)?;
    let run: Run = client.get(&path(&args.run)?, &[]).await?;
    if output.json {
        output.object(&run.raw)?;
        return Ok(Exit::Done);
    }
    let text = |key: &str| run.raw[key].as_str().map(str::to_owned);
    let why = run.why();
    let space = if why.is_empty() || why.starts_with(':') {
        ""
    } else {
        " "
    };
    let mut lines = vec![
        ("run", Some(run.id.clone())),
        ("workflow", Some(run.name.clone())),
        ("runner", text("runner")),
        ("executor", text("executor")),
        (
            "state",
            Some(format!("{}{space}{why}", output.state(run.state()))),
        ),
        (
            "attempt",
            run.raw["attempt"]
                .as_u64()
                .filter(|attempt| *attempt > 0)
                .map(|attempt| attempt.to_string()),
        ),
        ("created", text("created").map(|time| short_time(&time))),
        ("took", run.took()),
        ("key", text("key")),
        ("deployment", text("deployment")),
        (
            "stop asked",
            run.raw["stop_requested"].as_object().map(|stop| {
                stop.get("by")
                    .and_then(Value::as_str)
                    .unwrap_or("yes")
                    .to_owned()
            }),
        ),
        (
            "log",
            run.raw["log"]["bytes"]
                .as_u64()
                .map(|bytes| format!("{bytes} bytes")),
        ),
    ];
    let failure = &run.raw["failure"];
    lines.push((
        "mend it",
        failure["mender"].as_str().map(|mender| {
            format!(
                "{mender}; trying again can{} help",
                if failure["may_pass"] == json!(true) {
                    ""
                } else {
                    "not"
                }
            )
        }),
    ));
    for (name, value) in lines {
        if let Some(value) = value {
            output.line(field(name, &value))?;
        }
    }
    if let Some(source) = run.source() {
        output.line(source)?;
    }
    Ok(Exit::Done)
}

/// A fact about a run in a line of its own.
fn field(name: &str, value: &str) -> String {
    format!("{name:<11} {value}")
}

/// `logs`
pub(crate) async fn logs(args: Logs, output: Output, interrupt: &Interrupt) -> Done {
    let client = client(&args.client, output)?;
    let mut query = Vec::new();
    query.extend(args.tail.map(|lines| ("tail", lines.to_string())));
    query.extend(args.attempt.map(|attempt| ("attempt", attempt.to_string())));
    query.extend(
        args.since
            .as_deref()
            .map(since)
            .transpose()?
            .map(|since| ("since", since.to_string())),
    );
    if args.follow {
        return tokio::select! {
            ended = to_end(&client, &args.run, false, query, output) => finish(&ended?, output),
            () = interrupt.raised() => Ok(left(&args.run, output, interrupt)),
        };
    }
    if let Some(asked) = args.attempt {
        let run: Run = client.get(&path(&args.run)?, &[]).await?;
        let made = run.raw["attempt"].as_u64().unwrap_or(0);
        if u64::from(asked) > made {
            let message = format!("run {} has no attempt {asked}; it has {made}", run.id);
            return Err(Failure::new(Exit::No, message));
        }
    }
    let path = format!("{}/logs", path(&args.run)?);
    let accept = if output.json {
        "application/x-ndjson"
    } else {
        "text/plain"
    };
    let mut parts = client.bytes(&path, &query, accept).await?;
    while let Some(part) = parts.next().await {
        output.bytes(&part?)?;
    }
    Ok(Exit::Done)
}

/// A time, or a duration ago.
fn since(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(period) = text.parse::<Period>() {
        return Timestamp::now()
            .checked_sub(period.get())
            .map_err(|_| Failure::usage(format!("`{text}` is too long ago")));
    }
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "`{text}` is neither a time (2026-11-23T10:00:00Z) nor a duration ago (10m)"
        ))
    })
}

/// What the first signal does to a run that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// It goes on.
    Leave,
    /// It is stopped, and followed to that end.
    #[cfg(feature = "server")]
    Stop,
}

/// Follows a run to its end: log to stdout, states to stderr.
pub(crate) async fn follow(
    client: &Client,
    run: &str,
    on_signal: OnSignal,
    output: Output,
    interrupt: &Interrupt,
) -> Done {
    let end = to_end(client, run, true, Vec::new(), output);
    tokio::pin!(end);
    let ended = tokio::select! {
        ended = &mut end => ended?,
        () = interrupt.raised() => {
            match on_signal {
                OnSignal::Leave => return Ok(left(run, output, interrupt)),
                #[cfg(feature = "server")]
                OnSignal::Stop => {
                    output.note("stopping the run; a second Ctrl-C leaves it");
                    interrupt.would_leave(Some(format!(
                        "left the run: what its executor has under the id {run} goes on, and nobody will remove it"
                    )));
                    client.post::<Run>(&format!("{}/stop", path(run)?), &json!({})).await?;
                    end.await?
                }
            }
        }
    };
    interrupt.would_leave(None);
    Ok(interrupt.exit().unwrap_or(finish(&ended, output)?))
}

/// A signal came while a run was followed.
fn left(run: &str, output: Output, interrupt: &Interrupt) -> Exit {
    output.note(format!(
        "left; the run goes on: `hybrid-runner logs -f {run}`, `hybrid-runner stop {run}`"
    ));
    interrupt.exit().unwrap_or(Exit::Done)
}

/// The end of a run that was followed.
pub(crate) fn finish(run: &Run, output: Output) -> Result<Exit, Failure> {
    if output.json {
        output.record(&run.raw)?;
    }
    run.describe(output);
    Ok(run.exit())
}

/// Reads events until `end`, through breaks of the stream and restarts of the control plane.
///
/// A run that was just `made` is there, so that a control plane that is not is waited for.
async fn to_end(
    client: &Client,
    run: &str,
    made: bool,
    mut query: Vec<(&'static str, String)>,
    output: Output,
) -> Result<Run, Failure> {
    let path = format!("{}/logs", path(run)?);
    query.push(("follow", "true".to_owned()));
    let mut last: Option<String> = None;
    let mut shown = String::new();
    let mut wait = AGAIN.0;
    let mut was_there = made;
    loop {
        match client.events(&path, &query, last.as_deref()).await {
            Ok(mut events) => {
                was_there = true;
                while let Some(Ok(event)) = events.next().await {
                    wait = AGAIN.0;
                    if event.name == "end" {
                        return serde_json::from_str(&event.data).map_err(not_understood);
                    }
                    show_event(&event, &mut shown, output)?;
                    last = event.id.or(last);
                }
            }
            Err(error) if was_there && error.kind() == ErrorKind::Unavailable => {
                if wait == AGAIN.0 {
                    output.note(format!("{}; trying again", error.report()));
                }
            }
            Err(error) => return Err(error.into()),
        }
        sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

fn show_event(event: &Event, shown: &mut String, output: Output) -> Result<(), Failure> {
    match event.name.as_str() {
        "log" if output.json => output.line(&event.data)?,
        "log" => {
            let chunk: LogChunk = serde_json::from_str(&event.data).map_err(not_understood)?;
            output.log(&chunk.item)?;
        }
        "status" => {
            let run: Run = serde_json::from_str(&event.data).map_err(not_understood)?;
            let text = format!("{}{}", run.state(), run.why());
            if text != *shown && !run.is_finished() {
                output.note(&text);
                *shown = text;
            }
        }
        _ => {}
    }
    Ok(())
}

/// `stop`
pub(crate) async fn stop(args: Stop, output: Output) -> Done {
    let client = client(&args.client, output)?;
    let body = if args.now {
        json!({ "now": true })
    } else {
        json!({})
    };
    let mut worst = Exit::Done;
    for id in &args.runs {
        match client
            .post::<Run>(&format!("{}/stop", path(id)?), &body)
            .await
        {
            Ok(run) if output.json => output.record(&run.raw)?,
            Ok(run) if run.is_finished() => {
                output.line(format!("{} {} already", run.id, run.state()))?;
            }
            Ok(run) => output.line(format!("{} stopping", run.id))?,
            // The others are stopped all the same.
            Err(error) => {
                let failure = Failure::from(error);
                output.error(&format!("{id}: {}", failure.message));
                worst = failure.exit;
            }
        }
    }
    Ok(worst)
}

/// `runners`
pub(crate) async fn runners(args: Runners, output: Output) -> Done {
    let client = client(&args.client, output)?;
    let list: Value = client.get("/api/v1/runners", &[]).await?;
    let list = &list["runners"];
    if output.json {
        output.object(list)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|runner| runner_row(runner, output))
        .collect();
    output.table(
        &[
            "RUNNER", "STATE", "SINCE", "HOST", "SOFTWARE", "ACTIVE", "QUEUED",
        ],
        &rows,
    )?;
    Ok(Exit::Done)
}

fn runner_row(runner: &Value, output: Output) -> Vec<String> {
    let text = |key: &str| runner[key].as_str().unwrap_or_default().to_owned();
    let since = match runner["since"].as_str() {
        Some(since) => short_time(since),
        None => runner["last_seen"].as_str().map_or_else(
            || "never came".to_owned(),
            |seen| format!("last seen {}", short_time(seen)),
        ),
    };
    vec![
        text("id"),
        output.state(&text("state")),
        since,
        text("host"),
        text("software"),
        runner["active"].to_string(),
        runner["queued"].to_string(),
    ]
}
