//! Following a run: its log to stdout, its states to stderr.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor, Handle};
use hybrid_runner_core::id::WorkflowName;
use hybrid_runner_core::run::{RunSpec, Status};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::Interrupt;
use super::exit::Failure;
use super::output::Output;

/// After the end of a run, its log may take this long to come to its own.
const LOG_AFTER_END: Duration = Duration::from_secs(30);

/// Before a stream that broke is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// Follows a run of a runner in this process to its end. The first signal stops the run.
pub(crate) async fn local(
    executor: &dyn Executor,
    run: &Handle,
    spec: &RunSpec,
    output: Output,
    interrupt: &Interrupt,
) -> Result<Status, Failure> {
    let log = print_log(executor, run, output);
    tokio::pin!(log);
    let mut log_done = None;
    let status = {
        let end = watch_to_end(executor, run, output);
        let stop = async {
            interrupt.raised().await;
            output.note("stopping the run; a second Ctrl-C leaves it");
            if let Err(error) = executor.stop(run, spec.limits.grace.get()).await {
                output.error(&format!("failed to stop the run: {}", error.report()));
            }
            std::future::pending::<()>().await;
        };
        tokio::pin!(end, stop);
        loop {
            tokio::select! {
                status = &mut end => break status?,
                done = &mut log, if log_done.is_none() => log_done = Some(done),
                () = &mut stop => {}
            }
        }
    };
    let done = match log_done {
        Some(done) => done,
        None => timeout(LOG_AFTER_END, log).await.unwrap_or_else(|_| {
            output.warning("the log did not come to its end in time");
            Ok(())
        }),
    };
    done.map(|()| status)
}

async fn print_log(executor: &dyn Executor, run: &Handle, output: Output) -> Result<(), Failure> {
    let mut cursor = None;
    loop {
        let mut chunks = executor.logs(run, cursor.clone());
        let mut broken = None;
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => {
                    output.chunk(&chunk)?;
                    cursor = Some(chunk.next);
                }
                Err(error) => broken = Some(error),
            }
        }
        match broken {
            None => return Ok(()),
            Some(error) if error.is_transient() => sleep(AGAIN).await,
            Some(error) => return Err(error.into()),
        }
    }
}

async fn watch_to_end(
    executor: &dyn Executor,
    run: &Handle,
    output: Output,
) -> Result<Status, Failure> {
    let mut shown = String::new();
    loop {
        let mut levels = executor.watch(run);
        while let Some(level) = levels.next().await {
            match level {
                Ok(status) if status.is_finished() => return Ok(status),
                Ok(status) => {
                    let text = in_words(&status);
                    if text != shown {
                        output.note(&text);
                        shown = text;
                    }
                }
                Err(error) if error.is_transient() => break,
                Err(error) => return Err(error.into()),
            }
        }
        sleep(AGAIN).await;
    }
}

/// A state in one line.
pub(crate) fn in_words(status: &Status) -> String {
    let state = status.state.name();
    let attempt = match status.attempt {
        0 | 1 => String::new(),
        n => format!(" (attempt {n})"),
    };
    let message = status
        .message
        .as_ref()
        .map_or_else(String::new, |message| format!(": {message}"));
    format!("{state}{attempt}{message}")
}

/// The last line: how it ended, and how long it took.
pub(crate) fn describe(
    run: RunId,
    name: &WorkflowName,
    status: &Status,
    output: Output,
) -> Result<(), Failure> {
    if output.json {
        output.record(&json!({ "id": run, "name": name, "status": status }))?;
        return Ok(());
    }
    let state = output.state_err(status.state.name());
    let why = status
        .outcome()
        .map(ToString::to_string)
        .unwrap_or_default();
    let why = why
        .strip_prefix(status.state.name())
        .unwrap_or(&why)
        .trim()
        .to_owned();
    let took = match (
        status.times.running.or(status.times.starting),
        status.times.finished,
    ) {
        (Some(from), Some(to)) => format!(" after {:.1} s", to.duration_since(from).as_secs_f64()),
        _ => String::new(),
    };
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(" {why}")
    };
    output.note(format!("run {run} {state}{why}{took}"));
    Ok(())
}
