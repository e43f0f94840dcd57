//! Jobs that somebody else holds back or lets go: a queue, or a person with `kubectl`.

use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, Status};
use hybrid_runner_core::secret::{SecretValue, Secrets};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::bench::{Bench, read_and_watch, until};
use crate::over::Over;
use crate::place::Place;

#[tokio::test]
async fn a_job_that_a_queue_holds_back_from_the_beginning_waits() {
    let Some(bench) = Bench::new(Over::Jobs).await else {
        return;
    };
    // As a webhook of a queue would make it.
    let spec = bench.spec("true");
    let mut object = bench
        .executor
        .preview(&spec, &Secrets::none())
        .await
        .unwrap();
    object[0]["spec"]["suspend"] = true.into();
    let made = serde_json::from_value(object.swap_remove(0)).unwrap();
    let objects = bench.place.objects().await;
    objects.create(&PostParams::default(), &made).await.unwrap();
    let run = bench.start(&spec).await;
    let told = |status: &Status| {
        status
            .message
            .as_ref()
            .is_some_and(|it| it.contains("suspended"))
    };
    bench.status(&run, told).await;
    suspend(&bench.place, &run, false).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
}

/// Where it is a queue's to let a Job go, handing values over does not pass it.
#[tokio::test]
async fn a_job_of_a_queue_waits_with_its_values_until_the_queue_lets_it_go() {
    let labels = json!({ "kueue.x-k8s.io/queue-name": "users" });
    let more = json!({ "template": { "metadata": { "labels": labels } } });
    let Some(bench) = Bench::with(Over::Jobs, more).await else {
        return;
    };
    let run = begin_with_value(&bench, "echo of $TOKEN").await;
    let told = |status: &Status| {
        let message = status.message.as_deref().unwrap_or_default();
        message.contains("a queue, holds it back")
    };
    bench.status(&run, told).await;
    // As Kueue does it, with where it is to run.
    let admitted = json!({ "spec": {
        "suspend": false,
        "template": { "spec": { "nodeSelector": { "kubernetes.io/os": "linux" } } },
    } });
    bench.place.patch(run.run, admitted).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "of ***\n");
    assert_eq!(pods_made(&bench.place).await, 1);
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_job_that_somebody_suspended_while_nobody_looked_was_killed() {
    let Some(bench) = Bench::new(Over::Jobs).await else {
        return;
    };
    let run = bench.begin("sleep 600").await;
    bench.running(&run).await;
    let Bench { place, executor } = bench;
    drop(executor);
    suspend(&place, &run, true).await;
    cleared(&place).await;
    let bench = Bench::at(place).await;
    let failure = taken_back(&bench, &run).await;
    // That is for ever.
    suspend(&bench.place, &run, false).await;
    resumed(&bench.place, &run).await;
    cleared(&bench.place).await;
    assert_eq!(bench.failure(&run).await, failure);
    assert_eq!(pods_made(&bench.place).await, 1);
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_job_that_somebody_also_let_go_again_while_nobody_looked_was_killed() {
    for has_value in [false, true] {
        let Some(bench) = Bench::new(Over::Jobs).await else {
            return;
        };
        let run = if has_value {
            begin_with_value(&bench, "sleep 600").await
        } else {
            bench.begin("sleep 600").await
        };
        bench.running(&run).await;
        let Bench { place, executor } = bench;
        drop(executor);
        suspend(&place, &run, true).await;
        cleared(&place).await;
        suspend(&place, &run, false).await;
        until("the second pod", async || {
            let phase = |pod: &Pod| pod.status.as_ref()?.phase.clone();
            place
                .pods()
                .await
                .iter()
                .any(|pod| phase(pod).as_deref() == Some("Running"))
        })
        .await;
        let bench = Bench::at(place).await;
        taken_back(&bench, &run).await;
        cleared(&bench.place).await;
        bench.remove(&run).await;
    }
}

#[tokio::test]
async fn a_job_that_somebody_suspends_for_a_moment_ends_and_is_not_made_anew() {
    let Some(bench) = Bench::new(Over::Jobs).await else {
        return;
    };
    let run = bench
        .begin("trap 'sleep 2; echo last; exit 3' TERM; echo first; sleep 600 & wait")
        .await;
    bench.running(&run).await;
    let place = &bench.place;
    let meddled = async {
        suspend(place, &run, true).await;
        until("the deletion of the pod", async || {
            let pods = place.pods().await;
            pods.iter()
                .all(|pod| pod.metadata.deletion_timestamp.is_some())
        })
        .await;
        suspend(place, &run, false).await;
    };
    let ((log, _), ()) = tokio::join!(read_and_watch(&*bench.executor, &run), meddled);
    assert_eq!(log.text(), "first\nlast\n");
    taken_back(&bench, &run).await;
    suspend(place, &run, false).await;
    resumed(place, &run).await;
    cleared(place).await;
    assert_eq!(pods_made(place).await, 1);
    bench.remove(&run).await;
}

/// A change of the cluster's settings for a Job that still runs is no suspension.
#[tokio::test]
async fn a_job_that_somebody_changes_otherwise_goes_on() {
    let Some(bench) = Bench::new(Over::Jobs).await else {
        return;
    };
    let run = begin_with_value(&bench, "sleep 3").await;
    bench.running(&run).await;
    for ttl in [700_000, 800_000] {
        let patch = json!({ "spec": { "ttlSecondsAfterFinished": ttl } });
        bench.place.patch(run.run, patch).await;
    }
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
}

/// Starts a run with a value to hand over: its Job is suspended by us at first.
async fn begin_with_value(bench: &Bench, script: &str) -> Handle {
    let mut spec = bench.spec(script);
    spec.env.insert("TOKEN".into(), "secret:/token".into());
    let mut secrets = Secrets::none();
    secrets.insert("/token", SecretValue::new("one of a kind"));
    bench.try_start(&spec, &secrets).await.unwrap()
}

async fn suspend(place: &Place, run: &Handle, is: bool) {
    place
        .patch(run.run, json!({ "spec": { "suspend": is } }))
        .await;
}

/// How it failed: because somebody suspended it.
async fn taken_back(bench: &Bench, run: &Handle) -> Failure {
    let failure = bench.failure(run).await;
    assert_eq!(failure.class, FailureClass::Killed);
    assert!(failure.message.contains("suspended"), "{failure:?}");
    failure
}

async fn cleared(place: &Place) {
    let is_empty = async || place.pods().await.is_empty();
    until("the end of the pods", is_empty).await;
}

/// The cluster has heard that it may go.
async fn resumed(place: &Place, run: &Handle) {
    let jobs: Api<Job> = Api::namespaced(place.client().await, &place.namespace);
    until("the cluster to let it go", async || {
        let job = jobs.get(&place.object(run.run)).await.unwrap();
        let conditions = job.status.and_then(|status| status.conditions);
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|it| it.type_ == "Suspended" && it.status == "False")
    })
    .await;
}

/// How many pods there ever were.
async fn pods_made(place: &Place) -> usize {
    let events: Api<Event> = Api::namespaced(place.client().await, &place.namespace);
    let listed = events.list(&ListParams::default()).await.unwrap();
    let made = |event: &&Event| event.reason.as_deref() == Some("SuccessfulCreate");
    listed.items.iter().filter(made).count()
}
