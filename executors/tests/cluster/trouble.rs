//! The API server answers badly, late, not at all, or by half: each run is made once and ends right, and its log is whole.

use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::run::{Outcome, RunSpec};
use hybrid_runner_core::secret::Secrets;
use serde_json::json;

use crate::bench::{Bench, read_and_watch, within};
use crate::front::{Fault, Front, On};
use crate::over::{Over, over_both};

over_both!(
    a_watch_whose_version_is_forgotten_begins_anew,
    an_api_server_that_is_too_busy_is_asked_again,
    an_api_server_that_fails_is_asked_again,
    an_answer_that_was_lost_starts_nothing_twice,
    an_api_server_that_is_slow_is_waited_for,
    one_that_takes_a_request_and_says_nothing_is_asked_again,
    a_watch_that_died_without_a_word_is_found_out,
    an_answer_that_breaks_off_is_asked_for_again,
    a_log_that_died_without_a_word_is_read_to_its_end,
    a_log_of_which_nothing_is_there_is_no_gap_before_its_end,
);

/// More than the longest silence of a watch and of a question.
const PATIENCE: Duration = Duration::from_mins(4);

/// A run, seen and made through a front.
struct Through {
    bench: Bench,
    front: Front,
    executor: Arc<dyn Executor>,
}

impl Through {
    async fn new(over: Over) -> Option<Self> {
        let bench = Bench::new(over).await?;
        let front = Front::of(&bench.place).await;
        let section = bench.place.through(&front.address());
        let executor = bench.place.executor_at("one", &section);
        Some(Self {
            bench,
            front,
            executor,
        })
    }

    /// Notes each beginning, and writes a line each tenth of a second.
    fn spec(&self, lines: u32) -> RunSpec {
        let evidence = self.bench.place.folder.path().join("evidence");
        let script = format!(
            "echo begun >> {}; i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; sleep 0.1; done",
            evidence.display()
        );
        let mut spec = self.bench.spec(&script);
        // So that there is something to hand over: the longest way of a start.
        spec.config = Some(json!({ "a": 1 }));
        spec
    }

    /// Asks again as long as that may help, as a runner does.
    async fn start(&self, spec: &RunSpec) -> Handle {
        loop {
            let progress = Progress::none();
            let secrets = Secrets::none();
            match self.executor.start(spec, &secrets, &progress).await {
                Ok(run) => return run,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The whole life of a run: all that was to be spoilt was, and nothing came of it.
    async fn ends_well(&self, lines: u32) {
        let spec = self.spec(lines);
        let life = async {
            let run = self.start(&spec).await;
            let (log, status) = read_and_watch(&*self.executor, &run).await;
            assert_eq!(status.outcome(), Some(&Outcome::Succeeded));
            let expected = (1..=lines).fold(String::new(), |text, n| text + &format!("line {n}\n"));
            assert_eq!(log.text(), expected);
            assert_eq!(log.gaps(), [0; 0]);
            let evidence = self.bench.place.folder.path().join("evidence");
            assert_eq!(std::fs::read_to_string(evidence).unwrap(), "begun\n");
            while let Err(error) = self.executor.remove(&run).await {
                assert!(error.is_transient(), "{error:?}");
            }
        };
        within(PATIENCE, "the life of a run", life).await;
        assert_eq!(self.front.left(), 0, "not all was spoilt that should be");
        assert!(self.bench.executor.list().await.unwrap().is_empty());
    }
}

async fn a_watch_whose_version_is_forgotten_begins_anew(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil(On::Watches, Fault::Status(410), 2)
        .spoil(On::Watches, Fault::Forgotten, 2);
    through.ends_well(30).await;
}

async fn an_api_server_that_is_too_busy_is_asked_again(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil(On::Makes, Fault::Status(429), 1)
        .spoil(On::Changes, Fault::Status(429), 1)
        .spoil(On::Logs, Fault::Status(429), 2)
        .spoil_each(2, On::All, Fault::Status(429), 5);
    through.ends_well(30).await;
}

async fn an_api_server_that_fails_is_asked_again(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil(On::Makes, Fault::Status(500), 1)
        .spoil(On::Changes, Fault::Status(503), 1)
        .spoil(On::Logs, Fault::Status(500), 2)
        .spoil_each(2, On::All, Fault::Status(500), 5);
    through.ends_well(30).await;
}

async fn an_answer_that_was_lost_starts_nothing_twice(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil_each(1, On::Makes, Fault::AnswerLost, 2)
        .spoil(On::Changes, Fault::AnswerLost, 1);
    through.ends_well(5).await;
}

async fn an_api_server_that_is_slow_is_waited_for(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil(On::All, Fault::Late(Duration::from_secs(2)), 8);
    through.ends_well(30).await;
}

async fn one_that_takes_a_request_and_says_nothing_is_asked_again(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil(On::Makes, Fault::Silence, 1)
        .spoil(On::Changes, Fault::Silence, 1);
    through.ends_well(5).await;
}

async fn a_watch_that_died_without_a_word_is_found_out(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    // Both of them: that the work has begun is the first that they do not tell.
    through.front.spoil(On::Watches, Fault::HangsAfter(0), 2);
    through.ends_well(5).await;
}

async fn an_answer_that_breaks_off_is_asked_for_again(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil(On::Watches, Fault::BreaksAfter(700), 2)
        .spoil(On::Logs, Fault::BreaksAfter(100), 3);
    through.ends_well(50).await;
}

/// As of a node that has put the log away before the cluster says that the container has ended.
async fn a_log_of_which_nothing_is_there_is_no_gap_before_its_end(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through
        .front
        .spoil(On::Logs, Fault::EndsAfter(100), 1)
        .spoil(On::Logs, Fault::EndsAfter(0), 3);
    through.ends_well(50).await;
}

async fn a_log_that_died_without_a_word_is_read_to_its_end(over: Over) {
    let Some(through) = Through::new(over).await else {
        return;
    };
    through.front.spoil(On::Logs, Fault::HangsAfter(100), 1);
    through.ends_well(50).await;
}
