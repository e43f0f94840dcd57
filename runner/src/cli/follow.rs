//! Following a run: its log to stdout, its states to stderr.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::Outcome;
use hybrid_runner_core::executor::{Executor, Handle};
use hybrid_runner_core::run::{RunSpec, Status};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::Interrupt;
use super::exit::Failure;
use super::output::Output;
use super::runs::Run;

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

/// The run in the shape in which the control plane's API shows runs.
pub(crate) fn as_run(spec: &RunSpec, status: &Status) -> Run {
    let (mut failure, mut stopped_by, mut why) = (None, None, None);
    match status.outcome() {
        Some(Outcome::Failed(failed)) => failure = Some(failed),
        Some(Outcome::Stopped { by }) => stopped_by = by.as_ref(),
        Some(Outcome::Lost { why: known }) => why = Some(known),
        _ => {}
    }
    let mut raw = json!({
        "id": spec.run,
        "name": spec.name,
        "runner": spec.runner,
        "executor": spec.executor,
        "state": status.state.name(),
        "attempt": status.attempt,
        "message": status.message,
        "times": status.times,
        "failure": failure,
        "stopped_by": stopped_by,
        "why": why,
    });
    if let Some(members) = raw.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    Run {
        id: spec.run.to_string(),
        name: spec.name.to_string(),
        raw,
    }
}
