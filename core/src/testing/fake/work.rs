//! How a run of the fake behaves: its script, its limits and its stops, on tokio's clock.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::record::Run;
use crate::id::RunId;
use crate::log::Stream;
use crate::run::{Failure, FailureClass, Limits, Outcome, Rendered, RunSpec, WORKFLOW_CONFIG};
use crate::secret::{SecretValue, Secrets};
use crate::testing::script::{Script, Step, cksum};

/// Where the workload of a run would find its config.
pub(super) fn config_path(run: RunId) -> String {
    format!("/fake/{run}/config")
}

/// All that a run needs to do its work.
#[derive(Debug)]
pub(super) struct Job {
    work: Work,
    rendered: Rendered,
    limits: Limits,
    /// The values to mask, as they are and as they stand in JSON, the longest first.
    needles: Vec<SecretValue>,
}

#[derive(Debug)]
enum Work {
    Script(Script),
    NoSuchCommand(String),
    /// A test does it by hand.
    ByHand,
}

impl Job {
    pub(super) fn new(spec: &RunSpec, rendered: Rendered, secrets: &Secrets) -> Self {
        Self {
            work: work_of(spec, &rendered),
            rendered,
            limits: spec.limits.clone(),
            needles: needles(secrets),
        }
    }

    /// The value of a variable, and of the file at its path.
    fn variable(&self, name: &str) -> &[u8] {
        // A fake workload: it uses its variables as a real one would.
        let found = self.rendered.env.iter().find(|(known, _)| known == name);
        found.map_or(&[], |(_, value)| value.expose())
    }

    fn file(&self, name: &str) -> &[u8] {
        let config = self.rendered.config.as_ref();
        let config = config.filter(|_| name == WORKFLOW_CONFIG);
        let mut files = self.rendered.files.iter();
        let file = files.find(|(known, _)| known == name);
        // A fake workload: it reads its files as a real one would.
        config
            .or(file.map(|(_, content)| content))
            .map_or(&[], |content| content.expose())
    }

    fn masked(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            // Compared with what is about to be written, so that it is not.
            let hit = self.needles.iter().find(|n| rest.starts_with(n.expose()));
            if let Some(needle) = hit {
                out.extend_from_slice(b"***");
                rest = &rest[needle.expose().len()..];
            } else {
                out.push(*first);
                rest = &rest[1..];
            }
        }
        out
    }
}

fn needles(secrets: &Secrets) -> Vec<SecretValue> {
    let mut needles: Vec<SecretValue> = Vec::new();
    for (_, value) in secrets.iter() {
        needles.push(value.clone());
        // As it stands in a JSON string, without its quotes.
        if let Ok(text) = value.expose_text() {
            let json = serde_json::to_string(text).expect("text is always JSON");
            needles.push(SecretValue::new(&json.as_bytes()[1..json.len() - 1]));
        }
    }
    needles.retain(|needle| !needle.expose().is_empty());
    needles.sort_by_key(|needle| std::cmp::Reverse(needle.expose().len()));
    needles
}

fn work_of(spec: &RunSpec, rendered: &Rendered) -> Work {
    if let Some(script) = Script::of(spec) {
        return Work::Script(script);
    }
    let words = rendered.command.iter().chain(&rendered.args).flatten();
    let words: Vec<&str> = words.map(String::as_str).collect();
    match words[..] {
        ["true", ..] => Work::Script(Script::new()),
        ["false", ..] => Work::Script(Script::new().exit(1)),
        ["echo", ref texts @ ..] => Work::Script(Script::new().out(texts.join(" ") + "\n")),
        ["sleep", seconds] => {
            let time = seconds.parse().ok();
            let time = time.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            Work::Script(match time {
                Some(time) => Script::new().sleep(time),
                None => Script::new()
                    .err("sleep: not a number of seconds\n")
                    .exit(1),
            })
        }
        [command, ..] if command.starts_with("/no/such/") => {
            Work::NoSuchCommand(command.to_owned())
        }
        _ => Work::ByHand,
    }
}

/// Lives the life of a run: whatever ends it first is its end.
pub(super) async fn live(run: Arc<Run>, job: Job) {
    let outcome = tokio::select! {
        biased;
        () = run.until_finished() => return,
        outcome = work(&run, &job) => outcome,
        () = put_down(&run) => Outcome::Stopped { by: None },
        () = overrun(&run, &job.limits) => failed(FailureClass::Timeout, "ran longer than `timeout`"),
        () = stalled(&run, &job.limits) => failed(FailureClass::Stalled, "wrote nothing for `stall_timeout`"),
    };
    run.finish(outcome);
}

fn failed(class: FailureClass, message: &str) -> Outcome {
    Outcome::Failed(Failure::new(class, message))
}

async fn work(run: &Run, job: &Job) -> Outcome {
    let script = match &job.work {
        Work::ByHand => return pending().await,
        Work::NoSuchCommand(command) => {
            return failed(FailureClass::Spec, &format!("no such command: `{command}`"));
        }
        Work::Script(script) => script,
    };
    for step in script.steps() {
        // A loop of writes must not keep the others from their turn.
        tokio::task::yield_now().await;
        if let Some(outcome) = take(run, job, step).await {
            return outcome;
        }
    }
    Outcome::Succeeded
}

/// Takes one step; the end, if it is one.
async fn take(run: &Run, job: &Job, step: &Step) -> Option<Outcome> {
    let out = |bytes: &[u8]| run.write(Stream::Out, &job.masked(bytes));
    match step {
        Step::Write { to, bytes } => run.write(*to, &job.masked(bytes)),
        Step::Letters(count) => out(&vec![b'x'; *count]),
        Step::Lines { count, every } => {
            for n in 1..=*count {
                out(format!("line {n}\n").as_bytes());
                match every.limit() {
                    Some(pause) => sleep(pause).await,
                    None => tokio::task::yield_now().await,
                }
            }
        }
        Step::Sleep(time) => sleep(time.get()).await,
        // The masker of a fake sees what is written as a whole.
        Step::Variable(name) | Step::VariableInPieces(name) => {
            out(&[job.variable(name), b"\n"].concat());
        }
        Step::VariableSum(name) => out((cksum(job.variable(name)) + "\n").as_bytes()),
        Step::File(name) => out(job.file(name)),
        Step::FileSum(name) => out((cksum(job.file(name)) + "\n").as_bytes()),
        Step::Environment => {
            for (name, value) in &job.rendered.env {
                out(&[name.as_bytes(), b"=", value.expose(), b"\n"].concat());
            }
        }
        Step::Arguments => {
            for argument in job.rendered.args.iter().flatten() {
                out(format!("{argument}\n").as_bytes());
            }
        }
        // The backend itself counts starts.
        Step::Evidence(_) | Step::Tree => {}
        Step::Daemon => out(b"away\n"),
        Step::Farewell(words) => run.set_farewell(job.masked(words.as_bytes())),
        Step::Stubborn => run.set_stubborn(),
        Step::Hold => pending().await,
        Step::Exit(0) => return Some(Outcome::Succeeded),
        Step::Exit(code) => return Some(Outcome::Failed(Failure::exit(*code))),
        Step::Signal(signal) => {
            let failure = Failure::signal(FailureClass::Exit, *signal);
            return Some(Outcome::Failed(failure));
        }
    }
    None
}

/// Until a stop has ended the run: at once, or after the grace if it ignores SIGTERM.
async fn put_down(run: &Run) {
    run.until_stop_asked().await;
    run.say_farewell();
    while run.is_stubborn() {
        let Some(stop) = run.stop() else { return };
        tokio::select! {
            () = sleep_until(stop.at) => return,
            () = run.until_stop_before(stop.at) => {}
        }
    }
}

async fn overrun(run: &Run, limits: &Limits) {
    let Some(timeout) = limits.timeout.limit() else {
        return pending().await;
    };
    sleep(timeout).await;
    give_grace(run, limits).await;
}

async fn stalled(run: &Run, limits: &Limits) {
    let Some(stall) = limits.stall_timeout.limit() else {
        return pending().await;
    };
    while run.last_output() + stall > Instant::now() {
        sleep_until(run.last_output() + stall).await;
    }
    give_grace(run, limits).await;
}

async fn give_grace(run: &Run, limits: &Limits) {
    if run.is_stubborn() {
        sleep(limits.grace.get()).await;
    }
}
