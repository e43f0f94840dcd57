//! Executors that break one promise each, and the cases that catch them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Capabilities, Executor, Handle, Progress, findings};
use crate::finding::Finding;
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor, LogItem, Stream};
use crate::run::{Failure, FailureClass, Limits, Outcome, Resources, RunSpec, State, Status};
use crate::secret::Secrets;
use crate::testing::{CASES, Control, FakeBackend, FakeExecutor, Harness, Verdict};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    CapabilitiesChange,
    CheckMakesARun,
    ErrorsAreSwallowed,
    StartsAgain,
    StartsAgainAtOnce,
    StartsAgainAfterTheEnd,
    HalfDoneIsRefused,
    StartDiesWithItsCaller,
    StopBeforeStartIsForgotten,
    StoppedRunsMayStart,
    ResourcesAreIgnored,
    MadeBeforeRefused,
    NoSuchCommandIsAnError,
    ArgumentsAreExpanded,
    VariablesAreLost,
    OurEnvironmentLeaks,
    Unmasked,
    LimitsAreIgnored,
    OutputDoesNotCount,
    PresentIsLeftOut,
    WatchNeverEnds,
    RunningBeforeTheEnd,
    UnknownIsAnError,
    CodesAreFlattened,
    SignalsAreCodes,
    LevelsGoBack,
    EachWatcherItsEnd,
    ForgetsOnReopening,
    WatchersHoldTheRun,
    ReadersHoldTheRun,
    CursorsAreIgnored,
    CursorsSkip,
    LogsAreNotFollowed,
    LogsComeAtTheEnd,
    LastChunkIsLost,
    LogSaysHello,
    OnlyAscii,
    OnlyUnicode,
    LongLinesAreCut,
    FinalNewlineIsAdded,
    OutOfOrder,
    StreamsAreMixed,
    GapsAreHidden,
    ForeignCursorsAreTaken,
    StopDoesNothing,
    StopLeavesGrandchildren,
    StopIsRude,
    StopNeedsUs,
    StopOnlyOnce,
    StopIsWonByTheFirst,
    StopChangesTheEnd,
    RemoveOnlyOnce,
    RemoveOfAnything,
    RemoveDoesNothing,
    RemoveTakesAll,
    ListForgetsTheFinished,
    ListShowsAll,
}

/// Each fault, and the cases that are meant to catch it.
const BROKEN: &[(Fault, &[&str])] = &[
    (
        Fault::CapabilitiesChange,
        &["capabilities_are_told_alike_by_every_executor"],
    ),
    (
        Fault::CheckMakesARun,
        &[
            "check_answers_without_side_effects",
            "the_doctor_answers_without_side_effects",
        ],
    ),
    (
        Fault::ErrorsAreSwallowed,
        &[
            "check_says_what_is_missing",
            "the_doctor_says_what_is_missing",
            "a_backend_that_does_not_answer_is_an_error",
        ],
    ),
    (Fault::StartsAgain, &["starting_twice_starts_once"]),
    (
        Fault::StartsAgainAtOnce,
        &["starting_at_the_same_time_starts_once"],
    ),
    (
        Fault::StartsAgainAfterTheEnd,
        &["starting_a_finished_run_starts_nothing"],
    ),
    (
        Fault::HalfDoneIsRefused,
        &["a_half_done_start_is_completed"],
    ),
    (
        Fault::StartDiesWithItsCaller,
        &["a_start_dropped_at_any_await_is_completed_by_the_next"],
    ),
    (
        Fault::StopBeforeStartIsForgotten,
        &[
            "a_start_after_a_stop_is_refused",
            "a_stop_before_the_start_prevents_it",
        ],
    ),
    (
        Fault::StoppedRunsMayStart,
        &["a_start_after_the_stop_of_a_running_run_is_refused"],
    ),
    (
        Fault::ResourcesAreIgnored,
        &["a_field_that_cannot_be_honoured_is_refused_before_anything_is_made"],
    ),
    (
        Fault::MadeBeforeRefused,
        &["a_missing_value_is_refused_before_anything_is_made"],
    ),
    (
        Fault::NoSuchCommandIsAnError,
        &["a_missing_command_is_a_run_that_fails"],
    ),
    (
        Fault::ArgumentsAreExpanded,
        &["arguments_arrive_as_they_were_written"],
    ),
    (Fault::VariablesAreLost, &["the_work_gets_its_variables"]),
    (
        Fault::OurEnvironmentLeaks,
        &["the_work_gets_nothing_of_our_environment"],
    ),
    (
        Fault::Unmasked,
        &[
            "a_value_in_a_variable_arrives_and_is_masked",
            "a_value_in_a_file_arrives_and_is_masked",
            "a_value_in_the_config_arrives_and_is_masked",
            "a_value_written_in_pieces_is_masked",
        ],
    ),
    (
        Fault::LimitsAreIgnored,
        &[
            "timeout_ends_the_run",
            "timeout_ends_a_run_that_ignores_the_request",
            "stall_timeout_ends_a_silent_run",
        ],
    ),
    (
        Fault::OutputDoesNotCount,
        &["output_keeps_a_run_from_stalling"],
    ),
    (
        Fault::PresentIsLeftOut,
        &["the_present_status_comes_first_at_once"],
    ),
    (Fault::WatchNeverEnds, &["watch_ends_after_finished"]),
    (
        Fault::RunningBeforeTheEnd,
        &["a_finished_run_says_finished_first_and_only"],
    ),
    (Fault::UnknownIsAnError, &["an_unknown_run_is_lost"]),
    (
        Fault::CodesAreFlattened,
        &["exit_codes_are_told_as_they_were"],
    ),
    (Fault::SignalsAreCodes, &["signals_are_told_as_they_were"]),
    (Fault::LevelsGoBack, &["levels_never_go_back"]),
    (Fault::EachWatcherItsEnd, &["all_watchers_see_the_same_end"]),
    (
        Fault::ForgetsOnReopening,
        &[
            "a_new_executor_watches_by_the_id_alone",
            "a_new_executor_reads_by_the_id_alone",
            "list_finds_every_run_until_it_is_removed",
        ],
    ),
    (
        Fault::WatchersHoldTheRun,
        &["dropping_a_watch_stops_nothing"],
    ),
    (
        Fault::ReadersHoldTheRun,
        &["dropping_a_reader_stops_nothing"],
    ),
    (
        Fault::CursorsAreIgnored,
        &[
            "from_any_cursor_comes_exactly_the_rest",
            "a_reader_that_comes_back_misses_nothing",
        ],
    ),
    (
        Fault::CursorsSkip,
        &[
            "from_any_cursor_comes_exactly_the_rest",
            "a_reader_that_comes_back_misses_nothing",
        ],
    ),
    (
        Fault::LogsAreNotFollowed,
        &["a_running_run_is_followed", "logs_end_only_after_the_run"],
    ),
    (Fault::LogsComeAtTheEnd, &["a_running_run_is_followed"]),
    (Fault::LastChunkIsLost, &["the_last_words_are_delivered"]),
    (
        Fault::LogSaysHello,
        &["a_run_without_output_has_an_empty_log"],
    ),
    (Fault::OnlyAscii, &["unicode_comes_as_written"]),
    (Fault::OnlyUnicode, &["binary_comes_as_written"]),
    (Fault::LongLinesAreCut, &["a_long_line_comes_as_written"]),
    (
        Fault::FinalNewlineIsAdded,
        &["a_missing_final_newline_stays_missing"],
    ),
    (Fault::OutOfOrder, &["much_output_comes_in_order"]),
    (Fault::StreamsAreMixed, &["streams_are_told_apart"]),
    (Fault::GapsAreHidden, &["what_was_dropped_is_one_gap"]),
    (
        Fault::ForeignCursorsAreTaken,
        &["a_foreign_cursor_is_refused"],
    ),
    (Fault::StopDoesNothing, &["stop_ends_a_polite_run_at_once"]),
    (
        Fault::StopLeavesGrandchildren,
        &[
            "stop_ends_the_whole_tree",
            "stop_ends_what_left_its_session",
        ],
    ),
    (
        Fault::StopIsRude,
        &[
            "stop_asks_politely_first",
            "a_second_stop_shortens_the_grace",
        ],
    ),
    (Fault::StopNeedsUs, &["stop_is_carried_out_without_us"]),
    (Fault::StopOnlyOnce, &["stopping_twice_is_stopping_once"]),
    (
        Fault::StopIsWonByTheFirst,
        &[
            "a_second_stop_shortens_the_grace",
            "a_stop_dropped_at_any_await_is_completed_by_the_next",
        ],
    ),
    (
        Fault::StopChangesTheEnd,
        &["stopping_a_finished_run_changes_nothing"],
    ),
    (
        Fault::RemoveOnlyOnce,
        &[
            "removing_twice_is_removing_once",
            "removing_an_unknown_run_succeeds",
        ],
    ),
    (
        Fault::RemoveOfAnything,
        &["a_run_that_has_not_ended_is_not_removed"],
    ),
    (
        Fault::RemoveDoesNothing,
        &[
            "a_removed_run_is_neither_listed_nor_known",
            "a_removal_dropped_at_any_await_is_completed_by_the_next",
        ],
    ),
    (
        Fault::RemoveTakesAll,
        &["removing_one_run_keeps_the_others"],
    ),
    (
        Fault::ListForgetsTheFinished,
        &["list_finds_every_run_until_it_is_removed"],
    ),
    (
        Fault::ListShowsAll,
        &["list_shows_nothing_of_another_owner"],
    ),
];

#[tokio::test(start_paused = true)]
async fn each_broken_executor_is_caught_by_the_cases_meant_for_it() {
    for (fault, cases) in BROKEN {
        for name in *cases {
            let case = CASES.iter().find(|case| case.name == *name);
            let case = case.unwrap_or_else(|| panic!("no case `{name}`"));
            let verdict = case.check(Arc::new(Place::new(*fault))).await;
            let caught = matches!(verdict, Verdict::Failed(_));
            assert!(caught, "`{name}` does not catch {fault:?}: {verdict:?}");
        }
    }
}

#[test]
fn each_case_catches_something() {
    let catching: BTreeSet<&str> = BROKEN
        .iter()
        .flat_map(|(_, cases)| *cases)
        .copied()
        .collect();
    let idle: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    let idle: Vec<&&str> = idle
        .iter()
        .filter(|name| !catching.contains(*name))
        .collect();
    assert!(
        idle.is_empty(),
        "no fault is known that these catch: {idle:?}"
    );
}

/// The harness of a broken executor.
#[derive(Debug, Clone)]
struct Place {
    backend: FakeBackend,
    fault: Fault,
    memory: Arc<Mutex<Memory>>,
}

/// What the broken ones do beside the backend.
#[derive(Debug, Default)]
struct Memory {
    extra_starts: BTreeMap<RunId, u32>,
    stopped: BTreeSet<RunId>,
    asked: u32,
}

impl Place {
    fn new(fault: Fault) -> Self {
        Self {
            backend: FakeBackend::new(),
            fault,
            memory: Arc::default(),
        }
    }

    fn broken(&self) -> Arc<Broken> {
        Arc::new(Broken {
            inner: self.backend.executor(),
            place: self.clone(),
            own: Mutex::default(),
            work: Mutex::default(),
        })
    }

    /// A number that is new each time.
    fn ask(&self) -> u32 {
        let mut memory = self.memory.lock().unwrap();
        memory.asked += 1;
        memory.asked
    }

    /// Remembers the run as stopped; whether it was already.
    fn was_stopped(&self, run: RunId) -> bool {
        !self.memory.lock().unwrap().stopped.insert(run)
    }
}

#[async_trait]
impl Harness for Place {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.broken()
    }
    fn tick(&self) -> Duration {
        Harness::tick(&self.backend)
    }
    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        if self.fault == Fault::ListShowsAll {
            return Some(self.broken());
        }
        self.backend.other_owner().await
    }
    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        let elsewhere = Self::new(self.fault);
        elsewhere.backend.set_reachable(false);
        Some(elsewhere.broken())
    }
    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        self.backend.half_start(spec, secrets).await
    }
    async fn alive(&self, run: RunId) -> Option<bool> {
        if self.fault == Fault::StopLeavesGrandchildren {
            return Some(true);
        }
        self.backend.alive(run).await
    }
    async fn starts(&self, run: RunId) -> Option<u32> {
        let extra = self.memory.lock().unwrap().extra_starts.get(&run).copied();
        Some(self.backend.starts_of(run) + extra.unwrap_or(0))
    }
    async fn drop_log(&self, run: RunId) -> bool {
        self.backend.drop_log(run).await
    }
}

#[derive(Debug)]
struct Broken {
    inner: Arc<FakeExecutor>,
    place: Place,
    /// The runs that this very executor started.
    own: Mutex<BTreeSet<RunId>>,
    /// What dies with this executor.
    work: Mutex<JoinSet<()>>,
}

/// Ends its run when it is dropped.
struct Holds(Option<Control>);

impl Drop for Holds {
    fn drop(&mut self) {
        if let Some(control) = self.0.take().filter(|control| control.status().is_some()) {
            control.finish(Outcome::Stopped { by: None });
        }
    }
}

impl Broken {
    fn has(&self, fault: Fault) -> bool {
        self.place.fault == fault
    }

    fn control(&self, run: RunId) -> Control {
        self.place.backend.control(run)
    }

    fn forgets(&self, run: RunId) -> bool {
        self.has(Fault::ForgetsOnReopening) && !self.own.lock().unwrap().contains(&run)
    }

    /// The spec as the fault wants it, and what becomes of the values.
    fn bend(&self, spec: &RunSpec, secrets: &Secrets) -> (RunSpec, Secrets) {
        let (mut spec, mut kept) = (spec.clone(), secrets.clone());
        match self.place.fault {
            Fault::ResourcesAreIgnored => spec.resources = Resources::default(),
            Fault::ArgumentsAreExpanded => {
                let home = |text: &String| text.replace("$(HOME)", "/root");
                spec.args = spec.args.map(|args| args.iter().map(home).collect());
            }
            Fault::VariablesAreLost => spec.env.clear(),
            Fault::OurEnvironmentLeaks => {
                let ours = std::env::vars().filter(|(_, value)| !value.contains("secret:"));
                spec.env.extend(ours);
            }
            Fault::Unmasked => kept = lay_open(&mut spec, secrets),
            Fault::LimitsAreIgnored => spec.limits = Limits::default(),
            Fault::OutputDoesNotCount => {
                spec.limits.timeout = std::mem::take(&mut spec.limits.stall_timeout);
            }
            _ => {}
        }
        (spec, kept)
    }

    /// What goes wrong before the real start.
    async fn before_start(&self, spec: &RunSpec, secrets: &Secrets) -> Result<()> {
        let control = self.control(spec.run);
        let half_done = control.status().is_some() && control.starts() == 0;
        match self.place.fault {
            Fault::HalfDoneIsRefused if half_done => {
                return Err(Error::conflict("the run already exists"));
            }
            Fault::MadeBeforeRefused if spec.references()?.len() > secrets.len() => {
                let mut bare = spec.clone();
                bare.env.clear();
                let progress = Progress::none();
                self.inner.start(&bare, secrets, &progress).await?;
            }
            Fault::NoSuchCommandIsAnError => {
                let command = spec.command.iter().flatten().next();
                if command.is_some_and(|command| command.starts_with("/no/such/")) {
                    return Err(Error::invalid("no such command"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn count_extra_start(&self, run: RunId) {
        let mut memory = self.place.memory.lock().unwrap();
        *memory.extra_starts.entry(run).or_default() += 1;
    }
}

/// Puts the values into the spec as if they were no secrets; gives back those that are not text.
fn lay_open(spec: &mut RunSpec, secrets: &Secrets) -> Secrets {
    let mut kept = Secrets::none();
    for (reference, value) in secrets.iter() {
        let Ok(text) = value.expose_text() else {
            kept.insert(reference, value.clone());
            continue;
        };
        let (whole, inside) = (
            format!("secret:{reference}"),
            format!("${{secret:{reference}}}"),
        );
        let open = |written: &mut String| {
            *written = written.replace(&inside, text);
            if *written == whole {
                text.clone_into(written);
            }
        };
        spec.env.values_mut().for_each(open);
        spec.files.values_mut().for_each(open);
        let members = spec.config.iter_mut().filter_map(Value::as_object_mut);
        for member in members.flat_map(|members| members.values_mut()) {
            if let Some(Value::String(written)) = member.get_mut("password") {
                open(written);
            }
        }
    }
    kept
}

#[async_trait]
impl Executor for Broken {
    async fn capabilities(&self) -> Result<Capabilities> {
        let mut capabilities = self.inner.capabilities().await?;
        if self.has(Fault::CapabilitiesChange) {
            capabilities.notes.push(self.place.ask().to_string());
        }
        Ok(capabilities)
    }

    async fn check(&self) -> Result<()> {
        if self.has(Fault::CheckMakesARun) {
            let name = "probe".parse()?;
            let spec = RunSpec::new(RunId::generate(), name, ["true"]);
            let progress = Progress::none();
            self.inner.start(&spec, &Secrets::none(), &progress).await?;
        }
        match self.inner.check().await {
            Err(_) if self.has(Fault::ErrorsAreSwallowed) => Ok(()),
            checked => checked,
        }
    }

    async fn examine(&self) -> Vec<Finding> {
        if self.has(Fault::ErrorsAreSwallowed) {
            return vec![Finding::ok("reachable")];
        }
        findings(self.check().await, self.capabilities().await)
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        let control = self.control(spec.run);
        let mut holds = Holds(
            self.has(Fault::StartDiesWithItsCaller)
                .then(|| control.clone()),
        );
        self.before_start(spec, secrets).await?;
        self.own.lock().unwrap().insert(spec.run);
        let begun = control.starts() > 0;
        let finished = control.status().is_some_and(|status| status.is_finished());
        let (bent, kept) = self.bend(spec, secrets);
        let started = self.inner.start(&bent, &kept, progress).await;
        let again = match self.place.fault {
            Fault::StartsAgain => begun,
            Fault::StartsAgainAfterTheEnd => finished,
            Fault::StartsAgainAtOnce => !begun && self.place.ask() > 1,
            _ => false,
        };
        if again {
            self.count_extra_start(spec.run);
        }
        holds.0 = None;
        match started {
            Err(error)
                if error.kind() == ErrorKind::Conflict && self.has(Fault::StoppedRunsMayStart) =>
            {
                Ok(Handle::of(spec.run))
            }
            started => started,
        }
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let id = run.run;
        let items = self.inner.watch(run);
        match self.place.fault {
            Fault::PresentIsLeftOut => items.skip(1).boxed(),
            Fault::WatchNeverEnds => items.chain(stream::pending()).boxed(),
            Fault::WatchersHoldTheRun => held(items, self.control(id)),
            Fault::ForgetsOnReopening if self.forgets(id) => {
                let lost = State::Finished(Outcome::lost("forgotten"));
                stream::once(async { Ok(Status::new(1, lost)) }).boxed()
            }
            Fault::StopChangesTheEnd if self.place.memory.lock().unwrap().stopped.contains(&id) => {
                ends(items, |_| Outcome::Stopped { by: None })
            }
            Fault::CodesAreFlattened => ends(items, |outcome| match outcome {
                Outcome::Failed(failure) if failure.exit_code.is_some() => {
                    Outcome::Failed(Failure::exit(1))
                }
                other => other,
            }),
            Fault::SignalsAreCodes => ends(items, |outcome| match outcome {
                Outcome::Failed(Failure {
                    signal: Some(n), ..
                }) => Outcome::Failed(Failure::exit(128 + n)),
                other => other,
            }),
            Fault::EachWatcherItsEnd => {
                let mark = self.place.ask().to_string();
                ends(items, move |_| {
                    Outcome::Failed(Failure::new(FailureClass::Exit, mark.clone()))
                })
            }
            fault => items.flat_map(move |item| bent_level(fault, item)).boxed(),
        }
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        if self.forgets(run.run) {
            return stream::once(async { Err(Error::not_found("forgotten")) }).boxed();
        }
        let resumed = from.is_some();
        let from = from.filter(|_| !self.has(Fault::CursorsAreIgnored));
        let items = self.inner.logs(run, from);
        match self.place.fault {
            Fault::CursorsSkip if resumed => items.skip(1).boxed(),
            Fault::ReadersHoldTheRun => held(items, self.control(run.run)),
            Fault::LogsAreNotFollowed => unfollowed(items),
            Fault::LogsComeAtTheEnd => {
                let ended = self.inner.watch(run).collect::<Vec<_>>();
                stream::once(ended)
                    .flat_map(move |_| stream::empty())
                    .chain(items)
                    .boxed()
            }
            Fault::LastChunkIsLost => all_but_the_last(items),
            Fault::LogSaysHello => stream::once(async { Ok(chunk("hello\n")) })
                .chain(items)
                .boxed(),
            Fault::LongLinesAreCut => items.take(8).boxed(),
            Fault::FinalNewlineIsAdded => {
                items.chain(stream::once(async { Ok(chunk("\n")) })).boxed()
            }
            Fault::OutOfOrder => {
                let pairs = items.chunks(2);
                pairs
                    .flat_map(|pair| stream::iter(pair.into_iter().rev()))
                    .boxed()
            }
            Fault::GapsAreHidden => items
                .filter(|item| {
                    let gap = matches!(
                        item,
                        Ok(LogChunk {
                            item: LogItem::Gap { .. },
                            ..
                        })
                    );
                    futures::future::ready(!gap)
                })
                .boxed(),
            Fault::ForeignCursorsAreTaken => items
                .take_while(|item| futures::future::ready(item.is_ok()))
                .boxed(),
            fault => items
                .map(move |item| item.map(|chunk| bent_chunk(fault, chunk)))
                .boxed(),
        }
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        let control = self.control(run.run);
        match self.place.fault {
            Fault::StopDoesNothing => Ok(()),
            Fault::StopBeforeStartIsForgotten if control.status().is_none() => Ok(()),
            Fault::StopIsRude if control.status().is_some() => {
                control.finish(Outcome::Stopped { by: None });
                Ok(())
            }
            Fault::StopNeedsUs => {
                let (inner, run) = (Arc::clone(&self.inner), run.clone());
                self.work.lock().unwrap().spawn(async move {
                    tokio::time::sleep(grace).await;
                    drop(inner.stop(&run, Duration::ZERO).await);
                });
                Ok(())
            }
            Fault::StopOnlyOnce if self.place.was_stopped(run.run) => {
                Err(Error::conflict("the run is being stopped"))
            }
            Fault::StopIsWonByTheFirst if self.place.was_stopped(run.run) => Ok(()),
            Fault::StopChangesTheEnd => {
                self.place.was_stopped(run.run);
                self.inner.stop(run, grace).await
            }
            _ => self.inner.stop(run, grace).await,
        }
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        let control = self.control(run.run);
        match self.place.fault {
            Fault::RemoveOnlyOnce if control.status().is_none() => {
                Err(Error::not_found("no such run"))
            }
            Fault::RemoveDoesNothing => Ok(()),
            Fault::RemoveOfAnything if control.status().is_some() => {
                control.vanish();
                Ok(())
            }
            Fault::RemoveTakesAll => {
                for run in self.inner.list().await? {
                    self.inner.remove(&run).await?;
                }
                Ok(())
            }
            _ => self.inner.remove(run).await,
        }
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        let mut list = self.inner.list().await?;
        list.retain(|handle| !self.forgets(handle.run));
        if self.has(Fault::ListForgetsTheFinished) {
            list.retain(|handle| self.control(handle.run).is_alive());
        }
        Ok(list)
    }
}

/// A level as the fault wants it.
fn bent_level(fault: Fault, item: Result<Status>) -> BoxStream<'static, Result<Status>> {
    let like = |status: &Status, state: State| Ok(Status::new(status.attempt, state));
    let items = match (fault, &item) {
        (Fault::RunningBeforeTheEnd, Ok(status)) if status.is_finished() => {
            vec![like(status, State::Running), item]
        }
        (Fault::LevelsGoBack, Ok(status)) if status.state == State::Running => {
            let back = like(status, State::Starting);
            vec![item, back]
        }
        (Fault::UnknownIsAnError, Ok(status))
            if matches!(status.outcome(), Some(Outcome::Lost { .. })) =>
        {
            vec![Err(Error::not_found("no such run"))]
        }
        (Fault::ErrorsAreSwallowed, Err(error)) => {
            let lost = State::Finished(Outcome::lost(error.report()));
            vec![Ok(Status::new(1, lost))]
        }
        _ => vec![item],
    };
    stream::iter(items).boxed()
}

/// A piece of a log as the fault wants it.
fn bent_chunk(fault: Fault, mut chunk: LogChunk) -> LogChunk {
    if let LogItem::Data { stream, bytes, .. } = &mut chunk.item {
        match fault {
            Fault::OnlyUnicode => *bytes = String::from_utf8_lossy(bytes).into_owned().into(),
            Fault::OnlyAscii => {
                let ascii = |byte: &u8| if byte.is_ascii() { *byte } else { b'?' };
                *bytes = bytes.iter().map(ascii).collect();
            }
            Fault::StreamsAreMixed => *stream = Stream::Out,
            _ => {}
        }
    }
    chunk
}

/// The levels with another end.
fn ends(
    items: BoxStream<'static, Result<Status>>,
    change: impl Fn(Outcome) -> Outcome + Send + 'static,
) -> BoxStream<'static, Result<Status>> {
    let changed = move |item: Result<Status>| {
        item.map(|mut status| {
            if let State::Finished(outcome) = status.state {
                status.state = State::Finished(change(outcome));
            }
            status
        })
    };
    items.map(changed).boxed()
}

/// A stream that ends its run when it is dropped.
fn held<T: Send + 'static>(
    items: BoxStream<'static, T>,
    control: Control,
) -> BoxStream<'static, T> {
    let holds = Holds(Some(control));
    items
        .map(move |item| {
            let _held = &holds;
            item
        })
        .boxed()
}

/// Each item once there is another behind it.
fn all_but_the_last<T: Send + 'static>(items: BoxStream<'static, T>) -> BoxStream<'static, T> {
    stream::unfold((items, None), |(mut items, held)| async {
        let held = match held {
            None => items.next().await?,
            Some(held) => held,
        };
        let next = items.next().await?;
        Some((held, (items, Some(next))))
    })
    .boxed()
}

/// A log that ends where there is nothing more for the moment.
fn unfollowed<T: Send + 'static>(items: BoxStream<'static, T>) -> BoxStream<'static, T> {
    stream::unfold(items, |mut items| async {
        let next = tokio::time::timeout(Duration::from_millis(1), items.next()).await;
        Some((next.ok()??, items))
    })
    .boxed()
}

fn chunk(text: &'static str) -> LogChunk {
    let item = LogItem::Data {
        stream: Stream::Out,
        time: None,
        bytes: Bytes::from_static(text.as_bytes()),
    };
    let next = "made up".parse().unwrap();
    LogChunk { item, next }
}
