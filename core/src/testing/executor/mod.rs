//! The executor contract as a library: one named case for each promise.
//!
//! | file | holds |
//! |---|---|
//! | `trial` | one case's try at one executor: starts, waits with limits, cleans up |
//! | `cases/` | the cases, a file for each method |
//! | `processes` | which processes of this machine belong to a run |

mod cases;
mod processes;
#[cfg(test)]
mod tests;
mod trial;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::script::Script;
use super::verdict::{Tried, Unkept, Verdict, failed};
use crate::executor::Executor;
use crate::id::RunId;
use crate::run::RunSpec;
use crate::secret::Secrets;

pub use processes::processes_of;
pub use trial::Trial;

/// What the suite must know about a backend. Whoever writes an executor writes one of these.
///
/// Only [`Harness::executor`] is needed; each other method opens the cases that depend on it. A harness stands
/// for a place of its own: nobody else makes runs there meanwhile.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A new executor over the same backend each time.
    async fn executor(&self) -> Arc<dyn Executor>;

    /// A new id for a run. An attempt for an executor; a runner as seen from its server takes none.
    fn run_id(&self) -> RunId {
        RunId::generate().attempt(1)
    }

    /// How a script is expressed in this backend: as `/bin/sh -c …`; add an image here if it needs one.
    fn spec(&self, run: RunId, script: &Script) -> RunSpec {
        script.spec(run)
    }

    /// Lays values where the executor will find them, and says which travel beside the start. All of them;
    /// a harness of something that resolves for itself gives none and puts them into its store.
    async fn hand_over(&self, values: &Secrets) -> Secrets {
        values.clone()
    }

    /// The shortest time that this backend keeps well; time limits of the suite's runs are a few of it.
    fn tick(&self) -> Duration {
        Duration::from_millis(400)
    }

    /// How long one step of this backend may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// An executor of another owner in the same place.
    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        None
    }

    /// An executor whose backend does not answer.
    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        None
    }

    /// Leaves a half-done start of this run behind, as a crash would; `false` if it cannot.
    async fn half_start(&self, _spec: &RunSpec, _secrets: &Secrets) -> bool {
        false
    }

    /// Makes the spec ask for something that this backend refuses; `None` if there is nothing of the kind.
    /// Without it the suite asks for memory if the capabilities say that resources are not enforced.
    fn unsupported(&self, _spec: &RunSpec) -> Option<RunSpec> {
        None
    }

    /// Whether processes of a run live; `None` if the harness cannot tell. See [`processes_of`].
    async fn alive(&self, _run: RunId) -> Option<bool> {
        None
    }

    /// A file that the workload can append to and this process can read: evidence of each start.
    fn evidence(&self, _run: RunId) -> Option<PathBuf> {
        None
    }

    /// How often the work of a run began; the lines of [`Harness::evidence`] if there is such a file.
    async fn starts(&self, run: RunId) -> Option<u32> {
        let path = self.evidence(run)?;
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        u32::try_from(text.lines().count()).ok()
    }

    /// Makes the backend drop the beginning of a run's log, as a rotation does; `false` if it cannot.
    async fn drop_log(&self, _run: RunId) -> bool {
        false
    }

    /// A case is decided; what follows only cleans up behind it.
    fn decided(&self) {}

    /// Cases that this backend cannot be tried in, each with the reason.
    fn declines(&self) -> &[(&'static str, &'static str)] {
        &[]
    }
}

/// One promise of the executor contract.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// The promise, in `snake_case`.
    pub name: &'static str,
    /// The method that promises it.
    pub method: &'static str,
    run: for<'a> fn(&'a Trial) -> BoxFuture<'a, Tried>,
}

impl Case {
    /// The promise in words: `starting twice starts once`.
    pub fn title(&self) -> String {
        self.name.replace('_', " ")
    }

    /// Tries the promise, within its own time limit, and cleans up behind it.
    pub async fn check(&self, harness: Arc<dyn Harness>) -> Verdict {
        let declined = harness.declines().iter();
        if let Some((_, why)) = declined.into_iter().find(|(name, _)| *name == self.name) {
            return Verdict::NotOffered((*why).to_owned());
        }
        let limit = harness.patience() * 12;
        let trial = Trial::new(harness).await;
        if trial.lacks(self.method) {
            return Verdict::NotOffered(format!("a backend with `{}`", self.method));
        }
        let tried = tokio::time::timeout(limit, (self.run)(&trial)).await;
        let tried = tried.unwrap_or_else(|_| {
            Err(failed(
                format!("the whole case within {limit:?}"),
                "no end of it",
            ))
        });
        trial.harness.decided();
        trial.clean_up().await;
        match tried {
            Err(Unkept::Unsupported(failed)) if !trial.missing.is_empty() => {
                Verdict::NotOffered(format!("a backend that can do it; {}", failed.came))
            }
            tried => tried.into(),
        }
    }
}

/// Tries each promise of the contract, one after the other.
///
/// ```
/// # use hybrid_runner_core::testing::{FakeBackend, executor_contract};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// for (case, verdict) in executor_contract(std::sync::Arc::new(FakeBackend::new())).await {
///     verdict.assert_kept(case.name);
/// }
/// # }
/// ```
pub async fn executor_contract(harness: Arc<dyn Harness>) -> Vec<(&'static Case, Verdict)> {
    let mut verdicts = Vec::with_capacity(CASES.len());
    for case in CASES {
        verdicts.push((case, case.check(Arc::clone(&harness)).await));
    }
    verdicts
}

/// Tries the promise of that name and panics if it is not kept: the body of one test.
pub async fn check_executor_case(name: &str, harness: Arc<dyn Harness>) {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("the executor contract has no case `{name}`"));
    case.check(harness).await.assert_kept(name);
}

macro_rules! table {
    ({} $($method:ident in $module:ident: $($name:ident)+;)+) => {
        /// Every promise of the executor contract.
        pub const CASES: &[Case] = &[$($(Case {
            name: stringify!($name),
            method: stringify!($method),
            run: |trial| Box::pin(cases::$module::$name(trial)),
        }),+),+];
    };
}
crate::__executor_cases!(table {});

/// Makes one test of each promise of the executor contract.
///
/// ```
/// # use hybrid_runner_core::testing::FakeBackend;
/// mod contract {
///     hybrid_runner_core::executor_contract_tests!(super::FakeBackend::new());
/// }
/// mod contract_under_a_paused_clock {
///     hybrid_runner_core::executor_contract_tests!(
///         #[tokio::test(start_paused = true)]
///         super::FakeBackend::new()
///     );
/// }
/// # fn main() {}
/// ```
///
/// Without an attribute each is a `#[tokio::test]`. The expression makes a [`Harness`](crate::testing::Harness); it is evaluated anew in each test, inside its runtime.
#[macro_export]
macro_rules! executor_contract_tests {
    (# $test:tt $harness:expr) => {
        $crate::__executor_cases!($crate::__contract_tests { # $test ($harness) check_executor_case });
    };
    ($harness:expr) => {
        $crate::executor_contract_tests!(#[tokio::test] $harness);
    };
}

/// The one list of cases of the executor contract; hands it to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __executor_cases {
    ($callback:path { $($given:tt)* }) => {
        $callback! {
            { $($given)* }
            capabilities in check:
                capabilities_are_told_alike_by_every_executor;
            check in check:
                check_answers_without_side_effects
                check_says_what_is_missing;
            examine in check:
                the_doctor_answers_without_side_effects
                the_doctor_says_what_is_missing;
            start in start:
                starting_twice_starts_once
                starting_at_the_same_time_starts_once
                starting_a_finished_run_starts_nothing
                a_half_done_start_is_completed
                a_start_dropped_at_any_await_is_completed_by_the_next
                a_start_after_a_stop_is_refused
                a_start_after_the_stop_of_a_running_run_is_refused
                a_field_that_cannot_be_honoured_is_refused_before_anything_is_made
                a_missing_value_is_refused_before_anything_is_made
                a_missing_command_is_a_run_that_fails;
            start in surroundings:
                arguments_arrive_as_they_were_written
                the_work_gets_its_variables
                the_work_gets_nothing_of_our_environment
                a_value_in_a_variable_arrives_and_is_masked
                a_value_in_a_file_arrives_and_is_masked
                a_value_in_the_config_arrives_and_is_masked
                a_value_written_in_pieces_is_masked;
            start in limits:
                timeout_ends_the_run
                timeout_ends_a_run_that_ignores_the_request
                stall_timeout_ends_a_silent_run
                output_keeps_a_run_from_stalling;
            watch in watch:
                the_present_status_comes_first_at_once
                watch_ends_after_finished
                a_finished_run_says_finished_first_and_only
                an_unknown_run_is_lost
                a_backend_that_does_not_answer_is_an_error
                exit_codes_are_told_as_they_were
                signals_are_told_as_they_were
                levels_never_go_back
                all_watchers_see_the_same_end
                a_new_executor_watches_by_the_id_alone
                dropping_a_watch_stops_nothing;
            logs in logs:
                from_any_cursor_comes_exactly_the_rest
                a_reader_that_comes_back_misses_nothing
                a_running_run_is_followed
                logs_end_only_after_the_run
                the_last_words_are_delivered
                a_run_without_output_has_an_empty_log
                unicode_comes_as_written
                binary_comes_as_written
                a_long_line_comes_as_written
                a_missing_final_newline_stays_missing
                much_output_comes_in_order
                streams_are_told_apart
                what_was_dropped_is_one_gap
                a_foreign_cursor_is_refused
                a_new_executor_reads_by_the_id_alone
                dropping_a_reader_stops_nothing;
            stop in stop:
                stop_ends_the_whole_tree
                stop_ends_what_left_its_session
                stop_ends_a_polite_run_at_once
                stop_asks_politely_first
                stop_is_carried_out_without_us
                stopping_twice_is_stopping_once
                stopping_a_finished_run_changes_nothing
                a_stop_before_the_start_prevents_it
                a_second_stop_shortens_the_grace
                a_stop_dropped_at_any_await_is_completed_by_the_next;
            remove in remove:
                removing_twice_is_removing_once
                removing_an_unknown_run_succeeds
                a_run_that_has_not_ended_is_not_removed
                a_removed_run_is_neither_listed_nor_known
                removing_one_run_keeps_the_others
                a_removal_dropped_at_any_await_is_completed_by_the_next;
            list in list:
                list_finds_every_run_until_it_is_removed
                list_shows_nothing_of_another_owner;
        }
    };
}
