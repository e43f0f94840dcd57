//! No value stands anywhere but in the run's Secret, and not after it.

use std::time::Duration;

use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::log::{GapReason, LogItem};
use hybrid_runner_core::run::Outcome;
use hybrid_runner_core::secret::{SecretValue, Secrets};
use serde_json::{Value, json};

use crate::bench::{Bench, until};
use crate::over::{Over, over_both};

const VALUE: &str = "correct-horse-battery-staple";

over_both!(
    a_value_stands_in_the_runs_secret_alone,
    who_comes_back_masks_by_the_secret,
    without_its_secret_a_log_is_held_back,
    a_secret_goes_with_its_object_whoever_removes_that,
    what_an_object_left_behind_is_found_and_removed,
    a_start_after_a_stop_hands_nothing_over,
    what_would_be_made_is_shown_without_a_value,
    what_the_runner_was_given_for_each_workload_is_in_no_log,
);

/// All objects of a kind in the namespace, as the API gives them.
async fn all(bench: &Bench, place: &str, kind: &str) -> Value {
    let client = bench.place.client().await;
    let path = format!("/{place}/namespaces/{}/{kind}", bench.place.namespace);
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    client.request(request).await.unwrap()
}

/// How many Secrets there are in the namespace of a bench.
pub(crate) async fn secrets_of_ours(bench: &Bench) -> usize {
    let secrets = all(bench, "api/v1", "secrets").await;
    secrets["items"].as_array().unwrap().len()
}

fn given() -> Secrets {
    let mut secrets = Secrets::none();
    secrets.insert("/password", SecretValue::new(VALUE));
    secrets
}

fn spec(bench: &Bench, script: &str) -> hybrid_runner_core::RunSpec {
    let mut spec = bench.spec(script);
    spec.env
        .insert("URL".into(), "mysql://u:${secret:/password}@db".into());
    spec.config = Some(json!({ "password": "secret:/password" }));
    spec.files.insert("KEY".into(), "secret:/password".into());
    spec
}

async fn a_value_stands_in_the_runs_secret_alone(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let spec = spec(&bench, "echo $URL; cat $WORKFLOW_CONFIG $KEY");
    let run = bench.try_start(&spec, &given()).await.unwrap();
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, VALUE);
    for (place, kind) in [
        ("apis/batch/v1", "jobs"),
        ("apis/argoproj.io/v1alpha1", "workflows"),
        ("apis/argoproj.io/v1alpha1", "workflowtaskresults"),
        ("api/v1", "pods"),
        ("api/v1", "events"),
        ("api/v1", "configmaps"),
    ] {
        let objects = all(&bench, place, kind).await.to_string();
        assert!(
            !objects.contains(VALUE) && !objects.contains(&encoded),
            "{kind}"
        );
    }
    assert!(
        all(&bench, "api/v1", "secrets")
            .await
            .to_string()
            .contains(&encoded)
    );
    let text = bench.log(&run, None).await.text();
    assert_eq!(text, "mysql://u:***@db\n{\"password\":\"***\"}***");
    bench.remove(&run).await;
    assert_eq!(secrets_of_ours(&bench).await, 0);
}

async fn who_comes_back_masks_by_the_secret(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let run = bench
        .try_start(&spec(&bench, "cat $KEY"), &given())
        .await
        .unwrap();
    bench.end(&run).await;
    let anew = bench.place.executor_of("one").await;
    let bench = Bench {
        executor: anew,
        ..bench
    };
    let text = bench.log(&Handle::of(run.run), None).await.text();
    assert_eq!(text, "***");
}

async fn without_its_secret_a_log_is_held_back(over: Over) {
    use futures::StreamExt as _;
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let run = bench
        .try_start(&spec(&bench, "cat $KEY"), &given())
        .await
        .unwrap();
    bench.end(&run).await;
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
        kube::Api::namespaced(bench.place.client().await, &bench.place.namespace);
    let name = bench.place.object(run.run);
    secrets
        .delete(&name, &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let log: Vec<_> = bench.executor.logs(&run, None).collect().await;
    let [Ok(chunk)] = log.as_slice() else {
        panic!("{log:?}");
    };
    let gap = LogItem::Gap {
        bytes: None,
        why: GapReason::HeldBack,
    };
    assert_eq!(chunk.item, gap);
    let next = Some(chunk.next.clone());
    let behind = bench.executor.logs(&run, next).next().await;
    assert!(behind.is_none(), "{behind:?}");
}

/// A run that has its values.
async fn running(over: Over) -> Option<(Bench, Handle)> {
    let bench = Bench::new(over).await?;
    let started = bench.try_start(&spec(&bench, "sleep 600"), &given()).await;
    let run = started.unwrap();
    bench.running(&run).await;
    Some((bench, run))
}

async fn a_secret_goes_with_its_object_whoever_removes_that(over: Over) {
    let Some((bench, run)) = running(over).await else {
        return;
    };
    let objects = bench.place.objects().await;
    let background = kube::api::DeleteParams::background();
    objects
        .delete(&bench.place.object(run.run), &background)
        .await
        .unwrap();
    until("the end of the Secret", async || {
        secrets_of_ours(&bench).await == 0
    })
    .await;
}

async fn what_an_object_left_behind_is_found_and_removed(over: Over) {
    let Some((bench, run)) = running(over).await else {
        return;
    };
    let objects = bench.place.objects().await;
    let orphan = kube::api::DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..kube::api::DeleteParams::default()
    };
    let name = bench.place.object(run.run);
    objects.delete(&name, &orphan).await.unwrap();
    let outcome = bench.end(&run).await;
    assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome}");
    assert_eq!(secrets_of_ours(&bench).await, 1);
    // Whoever has lost its disk finds it, too.
    let listed = bench.executor.list().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|handle| handle.run).collect();
    assert_eq!(listed, [run.run]);
    bench.remove(&run).await;
    assert_eq!(secrets_of_ours(&bench).await, 0);
    until("the end of the pod", async || {
        bench.place.pods().await.is_empty()
    })
    .await;
    assert!(bench.executor.list().await.unwrap().is_empty());
}

async fn a_start_after_a_stop_hands_nothing_over(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let spec = spec(&bench, "true");
    let run = Handle::of(spec.run);
    bench.executor.stop(&run, Duration::ZERO).await.unwrap();
    bench.try_start(&spec, &given()).await.unwrap_err();
    assert_eq!(secrets_of_ours(&bench).await, 0);
    bench.remove(&run).await;
    assert!(bench.executor.list().await.unwrap().is_empty());
}

async fn what_would_be_made_is_shown_without_a_value(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let spec = spec(&bench, "true");
    let shown = bench.executor.preview(&spec, &given()).await.unwrap();
    assert_eq!(shown[0]["metadata"]["name"], bench.place.object(spec.run));
    assert_eq!(shown[1]["kind"], "Secret");
    assert!(!json!(shown).to_string().contains(VALUE));
    assert!(bench.executor.list().await.unwrap().is_empty());
}

async fn what_the_runner_was_given_for_each_workload_is_in_no_log(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let given = vec![("GIVEN".to_owned(), SecretValue::new(VALUE))];
    let executor = bench.place.executor_with("one", &json!({}), given);
    let bench = Bench { executor, ..bench };
    let run = bench.begin("echo $GIVEN | tr a-z A-Z; echo $GIVEN").await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    let text = bench.log(&run, None).await.text();
    assert_eq!(text, format!("{}\n***\n", VALUE.to_uppercase()));
    bench.remove(&run).await;
    assert_eq!(secrets_of_ours(&bench).await, 0);
}
