//! Each failure has its class, provoked for real, and says what to do.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, State};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::unit::ByteSize;
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota};
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::bench::{Bench, until};
use crate::fence::{Fence, Of};
use crate::over::{Over, over_both};
use crate::place::BUSYBOX;
use crate::webhook::Webhook;

async fn bench(over: Over) -> Option<Bench> {
    Bench::new(over).await
}

over_both!(
    a_command_that_is_not_there_is_the_authors_fault,
    a_program_that_may_not_be_executed_is_denied,
    the_end_of_memory_is_told_from_an_exit_code,
    an_image_that_no_node_has_and_may_not_be_pulled_fails_at_once,
    a_registry_that_does_not_answer_is_waited_for_and_told,
    an_invalid_name_of_an_image_is_said_to_be_one,
    an_image_that_runs_as_root_needs_a_user,
    what_no_node_can_give_is_named_while_it_waits,
    a_volume_that_is_not_there_is_named_while_it_waits,
    a_quota_that_is_used_up_is_named_while_it_waits,
    a_policy_of_the_namespace_is_named,
    a_policy_of_the_cluster_is_named,
    a_policy_about_our_objects_is_named_at_the_start,
    a_webhook_that_says_no_is_named,
    a_webhook_about_our_objects_is_named_at_the_start,
    a_webhook_that_does_not_answer_is_waited_for_and_named,
    a_pod_that_had_to_give_way_was_evicted,
    by_default_a_pod_keeps_the_restricted_profile,
    a_pod_that_somebody_deleted_was_killed,
    a_pod_that_takes_its_time_after_somebody_deleted_it_is_not_made_again,
    a_pod_that_was_deleted_without_grace_was_killed_and_another_does_not_live,
    a_pod_that_was_evicted_may_be_tried_again,
    an_object_that_somebody_deleted_after_its_pod_is_named,
    an_object_that_somebody_deleted_is_lost,
    a_time_limit_counts_from_the_beginning_of_the_work,
    a_pod_that_the_api_server_refuses_is_refused,
);

fn says(failure: &Failure, class: FailureClass, words: &str) {
    assert_eq!(failure.class, class, "{failure:?}");
    let all = format!(
        "{} {}",
        failure.message,
        failure.source.clone().unwrap_or_default()
    );
    assert!(all.contains(words), "`{words}` in {failure:?}");
}

/// The pod of the only run in the namespace.
async fn pod(bench: &Bench) -> (Api<Pod>, String) {
    let pods: Api<Pod> = Api::namespaced(bench.place.client().await, &bench.place.namespace);
    let listed = pods.list(&ListParams::default()).await.unwrap();
    let name = listed.items[0].metadata.name.clone().unwrap();
    (pods, name)
}

async fn a_command_that_is_not_there_is_the_authors_fault(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.command = Some(vec!["/no/such/command".into()]);
    let failure = bench.failure_of(&spec).await;
    says(&failure, FailureClass::Spec, "no such program in the image");
}

async fn a_program_that_may_not_be_executed_is_denied(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.command = Some(vec!["/etc/passwd".into()]);
    let failure = bench.failure_of(&spec).await;
    says(&failure, FailureClass::Denied, "may not be executed");
}

async fn the_end_of_memory_is_told_from_an_exit_code(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("head -c 200000000 /dev/zero | tail -n 1");
    spec.command = Some(vec![
        "/bin/sh".into(),
        "-c".into(),
        "exec tail -n 1 /dev/zero".into(),
    ]);
    spec.resources.limits.memory = Some(ByteSize::mib(32));
    let failure = bench.failure_of(&spec).await;
    says(&failure, FailureClass::Oom, "resources.limits.memory");
}

async fn an_image_that_no_node_has_and_may_not_be_pulled_fails_at_once(over: Over) {
    let Some(bench) = Bench::with(over, json!({ "pull": "never" })).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.image = Some("hybrid-runner-test/none:1".into());
    let failure = bench.failure_of(&spec).await;
    says(&failure, FailureClass::Image, "hybrid-runner-test/none:1");
}

async fn a_registry_that_does_not_answer_is_waited_for_and_told(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.image = Some("registry.invalid/none:1".into());
    let run = bench.start(&spec).await;
    let waits = |status: &hybrid_runner_core::Status| {
        let message = status.message.as_deref().unwrap_or_default();
        message.contains("registry.invalid/none:1")
    };
    let status = bench.status(&run, waits).await;
    assert_eq!(status.state, State::Starting);
    bench.executor.stop(&run, Duration::ZERO).await.unwrap();
    assert_eq!(bench.end(&run).await, Outcome::Stopped { by: None });
    bench.remove(&run).await;
}

async fn an_invalid_name_of_an_image_is_said_to_be_one(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.image = Some("NOT/a valid:name:".into());
    let failure = bench.failure_of(&spec).await;
    says(&failure, FailureClass::Image, "name of the image");
}

async fn an_image_that_runs_as_root_needs_a_user(over: Over) {
    for user in [json!(null), json!(0)] {
        let Some(bench) = Bench::with(over, json!({ "user": user })).await else {
            return;
        };
        let failure = bench.failure_of(&bench.spec("true")).await;
        says(&failure, FailureClass::Spec, "`user`");
    }
}

async fn what_no_node_can_give_is_named_while_it_waits(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.resources.requests.memory = Some(ByteSize::gib(4000));
    let run = bench.start(&spec).await;
    let told = |status: &hybrid_runner_core::Status| {
        let message = status.message.as_deref().unwrap_or_default();
        message.contains("Insufficient memory")
    };
    let status = bench.status(&run, told).await;
    assert_eq!(status.state, State::Starting);
    bench
        .executor
        .stop(&run, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(bench.place.pods().await, [], "the stop was carried out");
    assert_eq!(bench.end(&run).await, Outcome::Stopped { by: None });
    bench.remove(&run).await;
}

async fn a_volume_that_is_not_there_is_named_while_it_waits(over: Over) {
    let volume = json!({ "name": "keys", "secret": { "secretName": "not-there" } });
    let mount = json!({ "name": "keys", "mountPath": "/keys" });
    let main = json!({ "name": "main", "volumeMounts": [mount] });
    let more = json!({ "pod": { "volumes": [volume], "containers": [main] } });
    let Some(bench) = Bench::with(over, more).await else {
        return;
    };
    let run = bench.begin("true").await;
    // Neither the pod nor its object says so: an event does.
    let told = |status: &hybrid_runner_core::Status| {
        let message = status.message.as_deref().unwrap_or_default();
        message.contains("FailedMount") && message.contains("\"not-there\" not found")
    };
    let status = bench.status(&run, told).await;
    assert_eq!(status.state, State::Starting);
    bench.executor.stop(&run, Duration::ZERO).await.unwrap();
    assert_eq!(bench.end(&run).await, Outcome::Stopped { by: None });
    bench.remove(&run).await;
}

async fn a_quota_that_is_used_up_is_named_while_it_waits(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let client = bench.place.client().await;
    let quotas: Api<ResourceQuota> = Api::namespaced(client, &bench.place.namespace);
    let quota = json!({ "metadata": { "name": "none" }, "spec": { "hard": { "pods": "0" } } });
    let quota = serde_json::from_value(quota).unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    until("the quota to be counted", async || {
        let found = quotas.get("none").await.unwrap();
        found.status.is_some_and(|status| status.hard.is_some())
    })
    .await;
    let run = bench.begin("true").await;
    // An event comes after the Job; whoever looks later is told.
    until("the words about the quota", async || {
        let status = bench.status(&run, |_| true).await;
        assert_eq!(status.state, State::Starting);
        status
            .message
            .is_some_and(|message| message.contains("exceeded quota"))
    })
    .await;
    bench.executor.stop(&run, Duration::ZERO).await.unwrap();
    assert_eq!(bench.end(&run).await, Outcome::Stopped { by: None });
}

async fn a_policy_of_the_namespace_is_named(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let namespaces: Api<Namespace> = Api::all(bench.place.client().await);
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    let namespace = &bench.place.namespace;
    namespaces
        .patch(namespace, &PatchParams::default(), &patch)
        .await
        .unwrap();
    // Its template mounts a path of the host, which the profile forbids.
    let run = bench.begin("true").await;
    if over == Over::Workflows {
        // A Job waits for better times, Argo does not.
        let failure = bench.failure(&run).await;
        return says(&failure, FailureClass::Policy, "hostPath");
    }
    until("the words about the policy", async || {
        let status = bench.status(&run, |_| true).await;
        let message = status.message.unwrap_or_default();
        message.contains("violates PodSecurity") && message.contains("hostPath")
    })
    .await;
}

const NO: &str = "nothing runs here on a Sunday";

async fn a_policy_of_the_cluster_is_named(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let fence = Fence::of(&bench.place).await;
    fence.policy(Of::PODS, NO).await;
    pods_are_forbidden(&bench, over).await;
}

async fn a_webhook_that_says_no_is_named(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let webhook = Webhook::that_says(NO, &bench.place).await;
    let fence = Fence::of(&bench.place).await;
    fence.webhook(Of::PODS, &webhook).await;
    pods_are_forbidden(&bench, over).await;
}

/// Argo fails of it; a Job waits, and says for what.
async fn pods_are_forbidden(bench: &Bench, over: Over) {
    let run = bench.begin("true").await;
    if over == Over::Workflows {
        let failure = bench.failure(&run).await;
        return says(&failure, FailureClass::Policy, NO);
    }
    until("the words of the denial", async || {
        let status = bench.status(&run, |_| true).await;
        status.message.unwrap_or_default().contains(NO)
    })
    .await;
}

async fn a_policy_about_our_objects_is_named_at_the_start(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let fence = Fence::of(&bench.place).await;
    fence.policy(ours(over), NO).await;
    a_start_is_forbidden(&bench).await;
}

async fn a_webhook_about_our_objects_is_named_at_the_start(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let webhook = Webhook::that_says(NO, &bench.place).await;
    let fence = Fence::of(&bench.place).await;
    fence.webhook(ours(over), &webhook).await;
    a_start_is_forbidden(&bench).await;
}

fn ours(over: Over) -> Of {
    let (group, version, resources) = match over {
        Over::Jobs => ("batch", "v1", "jobs"),
        Over::Workflows => ("argoproj.io", "v1alpha1", "workflows"),
    };
    Of {
        group,
        version,
        resources,
    }
}

async fn a_start_is_forbidden(bench: &Bench) {
    let spec = bench.spec("true");
    let error = bench.try_start(&spec, &Secrets::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    says(&Failure::of_start(&error), FailureClass::Policy, NO);
    assert!(bench.executor.list().await.unwrap().is_empty());
}

async fn a_webhook_that_does_not_answer_is_waited_for_and_named(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let fence = Fence::of(&bench.place).await;
    fence.silent_webhook(Of::PODS).await;
    let run = bench.begin("true").await;
    until("the words about the webhook", async || {
        let status = bench.status(&run, |_| true).await;
        assert_eq!(status.state, State::Starting, "{status:?}");
        let message = status.message.unwrap_or_default();
        message.contains("failed calling webhook \"nobody.hybrid-runner.test\"")
    })
    .await;
    drop(fence);
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
}

async fn a_pod_that_had_to_give_way_was_evicted(over: Over) {
    let Some(place) = bench(over).await.map(|bench| bench.place) else {
        return;
    };
    let fence = Fence::of(&place).await;
    let resource = fence.single().await;
    let main = json!({ "name": "main", "resources": { "limits": { &resource: "1" } } });
    let section = json!({ "pod": { "containers": [main] } });
    let executor = place.executor_at("one", &section);
    let bench = Bench { place, executor };
    let run = bench.begin("trap 'exit 3' TERM; sleep 600 & wait").await;
    bench.running(&run).await;
    fence.usurper(&resource, BUSYBOX).await;
    let failure = bench.failure(&run).await;
    says(&failure, FailureClass::Evicted, "higher priority");
    assert!(failure.may_pass);
    bench.remove(&run).await;
}

async fn by_default_a_pod_keeps_the_restricted_profile(over: Over) {
    let Some(bench) = Bench::with(over, json!({ "pod": {} })).await else {
        return;
    };
    let namespaces: Api<Namespace> = Api::all(bench.place.client().await);
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    let namespace = &bench.place.namespace;
    namespaces
        .patch(namespace, &PatchParams::default(), &patch)
        .await
        .unwrap();
    let mut spec = bench.spec("id -u; cat $WORKFLOW_CONFIG");
    spec.config = Some("text".into());
    let run = bench.start(&spec).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "1000\ntext");
}

async fn a_pod_that_somebody_deleted_was_killed(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let run = bench.begin("sleep 600").await;
    bench.running(&run).await;
    let (pods, name) = pod(&bench).await;
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    let failure = bench.failure(&run).await;
    says(
        &failure,
        FailureClass::Killed,
        "somebody else deleted the pod",
    );
    until("the end of the pod", async || {
        pods.get_opt(&name).await.unwrap().is_none()
    })
    .await;
    assert_eq!(bench.failure(&run).await.class, FailureClass::Killed);
    bench.remove(&run).await;
}

async fn a_pod_that_takes_its_time_after_somebody_deleted_it_is_not_made_again(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    // Argo looks at a pod that runs once in ten seconds; it makes another for one that is gone by then.
    let evidence = bench.place.folder.path().join("evidence");
    let script = format!(
        "trap 'sleep 3; exit 0' TERM; echo begun >> {}; sleep 600 & wait",
        evidence.display()
    );
    let run = bench.begin(&script).await;
    bench.running(&run).await;
    until("the beginning", async || evidence.exists()).await;
    let (pods, name) = pod(&bench).await;
    let watcher = bench.failure(&run);
    let options = DeleteParams::default();
    let deleting = pods.delete(&name, &options);
    let (failure, deleted) = tokio::join!(watcher, deleting);
    deleted.unwrap();
    says(&failure, FailureClass::Killed, "somebody else");
    none_lives(&pods).await;
    assert_eq!(bench.failure(&run).await.class, FailureClass::Killed);
    let begun = std::fs::read_to_string(evidence).unwrap();
    assert_eq!(begun, "begun\n");
    bench.remove(&run).await;
}

async fn a_pod_that_was_deleted_without_grace_was_killed_and_another_does_not_live(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let run = bench.begin("sleep 600").await;
    bench.running(&run).await;
    let (pods, name) = pod(&bench).await;
    let watcher = bench.failure(&run);
    let now = DeleteParams::default().grace_period(0);
    let deleting = pods.delete(&name, &now);
    let (failure, deleted) = tokio::join!(watcher, deleting);
    deleted.unwrap();
    says(&failure, FailureClass::Killed, "somebody else");
    let afresh = bench.place.executor_of("one").await;
    let later = afresh.watch(&run).collect::<Vec<_>>().await;
    let later = later.into_iter().next_back().unwrap().unwrap();
    let Some(Outcome::Failed(later)) = later.outcome() else {
        panic!("{later:?}");
    };
    // By then the object may have ended, too, and what it says of that is told beside.
    assert_eq!(
        (later.class, &later.message),
        (failure.class, &failure.message)
    );
    // One that Argo made in its place in that moment goes with the Workflow at the latest.
    bench.remove(&run).await;
    none_lives(&pods).await;
}

/// No pod is there, and none comes.
async fn none_lives(pods: &Api<Pod>) {
    let lives = async || {
        let listed = pods.list(&ListParams::default()).await.unwrap();
        let mut phases = listed.items.into_iter().filter_map(|pod| pod.status?.phase);
        phases.any(|phase| phase == "Running" || phase == "Pending")
    };
    until("the end of all pods", async || !lives().await).await;
    // As long as Argo takes between two looks.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(!lives().await);
}

async fn a_pod_that_was_evicted_may_be_tried_again(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let run = bench.begin("trap 'exit 3' TERM; sleep 600 & wait").await;
    bench.running(&run).await;
    let (pods, name) = pod(&bench).await;
    pods.evict(&name, &EvictParams::default()).await.unwrap();
    let failure = bench.failure(&run).await;
    says(&failure, FailureClass::Evicted, "evicted");
    assert!(failure.may_pass);
}

async fn an_object_that_somebody_deleted_is_lost(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let run = bench.begin("sleep 600").await;
    bench.running(&run).await;
    let name = bench.place.object(run.run);
    let objects = bench.place.objects().await;
    objects
        .delete(&name, &DeleteParams::background())
        .await
        .unwrap();
    let outcome = bench.end(&run).await;
    assert!(
        matches!(&outcome, Outcome::Lost { why } if why.contains("deleted")),
        "{outcome}"
    );
}

async fn an_object_that_somebody_deleted_after_its_pod_is_named(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let run = bench.begin("trap 'exit 3' TERM; sleep 600 & wait").await;
    bench.running(&run).await;
    let objects = bench.place.objects().await;
    objects
        .delete(&bench.place.object(run.run), &DeleteParams::foreground())
        .await
        .unwrap();
    let what = match over {
        Over::Jobs => "deleted the Job",
        Over::Workflows => "deleted the Workflow",
    };
    says(&bench.failure(&run).await, FailureClass::Killed, what);
}

async fn a_time_limit_counts_from_the_beginning_of_the_work(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("sleep 600 & wait");
    spec.limits.timeout = Duration::from_secs(3).into();
    let run = bench.start(&spec).await;
    bench.running(&run).await;
    let failure = bench.failure(&run).await;
    says(&failure, FailureClass::Timeout, "`timeout`");
    let status = bench.status(&run, |_| true).await;
    let times = status.times;
    let lived = times
        .finished
        .unwrap()
        .duration_since(times.running.unwrap());
    assert!((2..=9).contains(&lived.as_secs()), "{lived}");
}

async fn a_pod_that_the_api_server_refuses_is_refused(over: Over) {
    let Some(bench) = bench(over).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.resources.requests.memory = Some(ByteSize::gib(2));
    spec.resources.limits.memory = Some(ByteSize::gib(1));
    let words = "must be less than or equal to memory limit";
    if over == Over::Workflows {
        // It learns of its pod only when the controller makes that.
        let failure = bench.failure_of(&spec).await;
        return says(&failure, FailureClass::Spec, words);
    }
    let error = bench.try_start(&spec, &Secrets::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    says(&Failure::of_start(&error), FailureClass::Spec, words);
    assert!(bench.executor.list().await.unwrap().is_empty());
}
