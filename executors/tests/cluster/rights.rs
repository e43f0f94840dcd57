//! What is missing in the Role is named, by the doctor and by who runs into it.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::Health;
use hybrid_runner_core::error::{Error, ErrorKind};
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::run::{Outcome, State};
use hybrid_runner_core::secret::Secrets;
use serde_json::json;

use crate::bench::{Bench, finds, until, within};
use crate::over::{Over, over_both};
use crate::place::{Place, kubeconfig};
use crate::secrets::secrets_of_ours;

over_both!(
    under_the_role_that_we_ship_all_is_well,
    each_missing_right_is_named_by_the_doctor,
    each_missing_right_is_named_by_who_runs_into_it,
    without_the_right_to_see_events_the_doctor_warns_and_runs_go_on,
    what_may_not_be_let_go_is_removed_with_its_values,
    without_the_right_to_delete_a_secret_it_goes_with_its_owner,
    a_time_limit_that_may_not_be_kept_is_told_while_the_work_runs,
);

/// A probe may have to wait for a pod, and for four others.
const LIMIT: Duration = Duration::from_mins(2);

async fn under_the_role_that_we_ship_all_is_well(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    bench.executor.check().await.unwrap();
    for finding in bench.executor.examine().await {
        assert_eq!(finding.health, Health::Ok, "{finding:?}");
    }
}

/// What runs into a missing right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    List,
    Watch,
    Log,
    Stop,
    StopAtOnce,
    Remove,
    /// Nothing does, only the doctor tells: it goes on by asking.
    None,
}

/// Each right of the Role, and who needs it.
fn needs(over: Over) -> Vec<(&'static str, &'static str, &'static str, Step)> {
    let (group, objects) = match over {
        Over::Jobs => ("batch", "jobs"),
        Over::Workflows => ("argoproj.io", "workflows"),
    };
    vec![
        (group, objects, "create", Step::Start),
        (group, objects, "get", Step::Watch),
        (group, objects, "list", Step::List),
        (group, objects, "watch", Step::None),
        (group, objects, "patch", Step::Start),
        (group, objects, "delete", Step::Remove),
        ("", "pods", "list", Step::Watch),
        ("", "pods", "watch", Step::None),
        ("", "pods", "patch", Step::Stop),
        ("", "pods", "delete", Step::StopAtOnce),
        ("", "pods/log", "get", Step::Log),
        ("", "secrets", "create", Step::Start),
        ("", "secrets", "get", Step::Log),
        // It goes with its owner.
        ("", "secrets", "delete", Step::None),
    ]
}

/// What we ship, without this one verb.
fn without(over: Over, resource: &str, verb: &str) -> String {
    let named = format!("resources: [{resource}], verbs: [");
    let lines = over.rbac().lines().map(|line| {
        let Some((before, verbs)) = line.split_once(&named) else {
            return line.to_owned();
        };
        let (verbs, after) = verbs.split_once(']').unwrap();
        assert!(verbs.split(", ").any(|one| one == verb), "{line}");
        let left: Vec<_> = verbs.split(", ").filter(|one| *one != verb).collect();
        let left = if left.is_empty() {
            "none".to_owned()
        } else {
            left.join(", ")
        };
        format!("{before}{named}{left}]{after}")
    });
    let lines: Vec<_> = lines.collect();
    let rbac = lines.join("\n") + "\n";
    assert_ne!(rbac, over.rbac(), "{resource}: {verb}");
    rbac
}

async fn bench_without(over: Over, resource: &str, verb: &str) -> Option<Bench> {
    let place = Place::with(over, Some(kubeconfig()?), json!({}));
    Some(Bench::at(place.with_rbac(without(over, resource, verb))).await)
}

async fn each_missing_right_is_named_by_the_doctor(over: Over) {
    for (group, resource, verb, _) in needs(over) {
        let Some(bench) = bench_without(over, resource, verb).await else {
            return;
        };
        let rule =
            format!("apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [{verb}]");
        finds(&*bench.executor, Health::Failed, &rule).await;
        let error = bench.executor.check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{resource}: {verb}");
    }
}

async fn without_the_right_to_see_events_the_doctor_warns_and_runs_go_on(over: Over) {
    let Some(bench) = bench_without(over, "events", "list").await else {
        return;
    };
    bench.executor.check().await.unwrap();
    let rule = "resources: [\"events\"]";
    finds(&*bench.executor, Health::Warning, rule).await;
    let run = bench.begin("true").await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
}

async fn each_missing_right_is_named_by_who_runs_into_it(over: Over) {
    let probes = needs(over).into_iter().filter(|need| need.3 != Step::None);
    let probes = probes.map(|(group, resource, verb, step)| async move {
        let Some(bench) = bench_without(over, resource, verb).await else {
            return;
        };
        let error = within(LIMIT, "a probe", run_into(&bench, step)).await;
        assert_eq!(
            error.kind(),
            ErrorKind::Denied,
            "{resource}: {verb}: {error:?}"
        );
        let rule = format!(
            "{{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"]}}"
        );
        assert!(error.message().contains(&rule), "{step:?}: {error}");
    });
    // Each of them waits for pods most of the time.
    futures::stream::iter(probes)
        .buffer_unordered(4)
        .collect::<Vec<()>>()
        .await;
}

async fn what_may_not_be_let_go_is_removed_with_its_values(over: Over) {
    let (_, objects, ..) = needs(over)[0];
    let Some(bench) = bench_without(over, objects, "patch").await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.config = Some(json!({}));
    let error = bench.try_start(&spec, &Secrets::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert_eq!(secrets_of_ours(&bench).await, 1);
    let run = Handle::of(spec.run);
    // As a runner does with what an attempt that failed has left.
    until("the removal", async || {
        match bench.executor.remove(&run).await {
            Ok(()) => return true,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
        }
        bench.executor.stop(&run, Duration::ZERO).await.unwrap();
        false
    })
    .await;
    assert_eq!(secrets_of_ours(&bench).await, 0);
    assert_eq!(bench.executor.list().await.unwrap().len(), 0);
}

async fn without_the_right_to_delete_a_secret_it_goes_with_its_owner(over: Over) {
    let Some(bench) = bench_without(over, "secrets", "delete").await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.config = Some(json!({}));
    let run = bench.start(&spec).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
    until("the end of the Secret", async || {
        secrets_of_ours(&bench).await == 0
    })
    .await;
}

async fn a_time_limit_that_may_not_be_kept_is_told_while_the_work_runs(over: Over) {
    let Some(bench) = bench_without(over, "pods", "patch").await else {
        return;
    };
    let mut spec = bench.spec("sleep 5");
    spec.limits.timeout = Duration::from_mins(1).into();
    let run = bench.start(&spec).await;
    let running = bench
        .status(&run, |status| status.state == State::Running)
        .await;
    let told = running.message.unwrap_or_default();
    let rule = "resources: [\"pods\"], verbs: [\"patch\"]";
    assert!(told.contains(rule), "{told}");
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
}

/// Does what is allowed up to this step.
async fn run_into(bench: &Bench, step: Step) -> Error {
    let executor = &bench.executor;
    if step == Step::List {
        return executor.list().await.unwrap_err();
    }
    let long = matches!(step, Step::Stop | Step::StopAtOnce);
    let script = if long {
        "trap '' TERM; echo on; while :; do sleep 0.2; done"
    } else {
        "echo done"
    };
    let mut spec = bench.spec(script);
    spec.config = Some(json!({}));
    let run = match bench.try_start(&spec, &Secrets::none()).await {
        Ok(run) => run,
        // Whatever it is about: the rule is compared.
        Err(error) => return error,
    };
    match step {
        Step::Watch => {
            let mut levels = executor.watch(&run);
            while let Some(level) = levels.next().await {
                if let Err(error) = level {
                    return error;
                }
            }
            // What is seen in passing needs no right to get it; a stop looks for itself.
            executor.stop(&run, Duration::ZERO).await.unwrap_err()
        }
        Step::Log => {
            let mut chunks = executor.logs(&run, None);
            chunks.next().await.unwrap().unwrap_err()
        }
        Step::Stop => {
            bench.running(&run).await;
            // As long as the pod's own, so that the pod stays.
            executor.stop(&run, LIMIT).await.unwrap_err()
        }
        Step::StopAtOnce => {
            bench.running(&run).await;
            executor.stop(&run, Duration::ZERO).await.unwrap_err()
        }
        Step::Remove => {
            bench.end(&run).await;
            executor.remove(&run).await.unwrap_err()
        }
        other => panic!("{other:?} met no resistance"),
    }
}
