//! What a section says of pods and objects does what it says, and cannot make a run more than one.

use std::time::Duration;

use hybrid_runner_core::Health;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, Status};
use hybrid_runner_core::secret::SecretValue;
use serde_json::{Value, json};

use crate::bench::{Bench, finds};
use crate::over::{Over, over_both};
use crate::place::{BUSYBOX, kubeconfig};

over_both!(
    tries_and_haste_of_a_template_are_left_out,
    what_ends_in_time_is_not_late_although_its_pod_is,
    a_container_beside_the_work_that_fails_once_fails_nothing,
    a_time_limit_of_the_template_is_no_deletion_by_somebody,
    a_container_before_the_work_that_fails_is_named,
    a_variable_of_the_template_takes_the_place_of_a_value,
    a_misspelt_key_is_named,
    a_namespace_that_is_not_there_is_found_out,
    what_the_api_server_would_not_make_is_found_out,
);

async fn tries_and_haste_of_a_template_are_left_out(over: Over) {
    let ignored =
        json!([{ "action": "Ignore", "onExitCodes": { "operator": "In", "values": [3] } }]);
    let spec = match over {
        Over::Jobs => json!({
            "backoffLimit": 2,
            "podFailurePolicy": { "rules": ignored },
            "ttlSecondsAfterFinished": 1,
        }),
        Over::Workflows => json!({
            "retryStrategy": { "limit": 2 },
            "ttlStrategy": { "secondsAfterCompletion": 1, "secondsAfterFailure": 1 },
        }),
    };
    let more = json!({ "template": { "spec": spec } });
    let Some(bench) = Bench::with(over, more).await else {
        return;
    };
    let run = bench.begin("exit 3").await;
    let failure = bench.failure(&run).await;
    assert_eq!(
        (failure.class, failure.exit_code),
        (FailureClass::Exit, Some(3))
    );
    let objects = bench.place.objects().await;
    let object = objects.get(&bench.place.object(run.run)).await.unwrap();
    let spec = &object.data["spec"];
    let (tries, life) = match over {
        Over::Jobs => (&spec["podFailurePolicy"], &spec["ttlSecondsAfterFinished"]),
        Over::Workflows => (
            &spec["retryStrategy"],
            &spec["ttlStrategy"]["secondsAfterCompletion"],
        ),
    };
    assert_eq!(*tries, Value::Null);
    assert!(life.as_u64() >= Some(7 * 24 * 3600), "{life}");
    assert_eq!(spec["ttlStrategy"]["secondsAfterFailure"], Value::Null);
    bench.remove(&run).await;
}

async fn what_ends_in_time_is_not_late_although_its_pod_is(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    // The node looks once a second, and the pod's end takes it longer than the second that is left.
    for (code, expected) in [
        (0, Outcome::Succeeded),
        (3, Outcome::Failed(Failure::exit(3))),
    ] {
        let mut spec = bench.spec(&format!("sleep 4; exit {code}"));
        spec.limits.timeout = Duration::from_secs(5).into();
        let run = bench.start(&spec).await;
        let last = bench.status(&run, Status::is_finished).await;
        let ended = last.times.finished.unwrap();
        let lived = ended.duration_since(last.times.running.unwrap());
        // On a node that is busy the work itself may be late, as counted from the container's beginning.
        if lived.as_secs() <= 5 {
            assert_eq!(last.outcome(), Some(&expected));
        }
        bench.remove(&run).await;
    }
}

async fn a_container_beside_the_work_that_fails_once_fails_nothing(over: Over) {
    let script =
        "test -e /s/seen || { touch /s/seen; exit 1; }; trap 'exit 0' TERM; sleep 600 & wait";
    let beside = json!({
        "name": "beside",
        "image": BUSYBOX,
        "restartPolicy": "Always",
        "command": ["/bin/sh", "-c", script],
        "volumeMounts": [{ "name": "s", "mountPath": "/s" }],
    });
    let pod = json!({ "initContainers": [beside], "volumes": [{ "name": "s", "emptyDir": {} }] });
    let Some(bench) = Bench::with(over, json!({ "pod": pod })).await else {
        return;
    };
    let run = bench.begin("echo done").await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "done\n");
    bench.remove(&run).await;
}

async fn a_time_limit_of_the_template_is_no_deletion_by_somebody(over: Over) {
    let more = json!({ "template": { "spec": { "activeDeadlineSeconds": 15 } } });
    let Some(bench) = Bench::with(over, more).await else {
        return;
    };
    let failure = bench.failure_of(&bench.spec("sleep 600")).await;
    assert_eq!(failure.class, FailureClass::Timeout, "{failure:?}");
}

async fn a_container_before_the_work_that_fails_is_named(over: Over) {
    let before =
        json!({ "name": "prepare", "image": BUSYBOX, "command": ["/bin/sh", "-c", "exit 7"] });
    let more = json!({ "pod": { "initContainers": [before] } });
    let Some(bench) = Bench::with(over, more).await else {
        return;
    };
    let failure = bench.failure_of(&bench.spec("true")).await;
    let words = "the container `prepare`, which comes before the work, ended with exit code 7";
    assert!(failure.message.contains(words), "{failure:?}");
}

async fn a_variable_of_the_template_takes_the_place_of_a_value(over: Over) {
    let main = json!({ "name": "main", "env": [{ "name": "REGION", "value": "of the template" }] });
    let more = json!({ "pod": { "containers": [main] } });
    let Some(bench) = Bench::with(over, more.clone()).await else {
        return;
    };
    let given = vec![("REGION".to_owned(), SecretValue::new("of the runner"))];
    let executor = bench.place.executor_with("one", &more, given);
    let bench = Bench { executor, ..bench };
    let run = bench.begin("echo $REGION").await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "of the template\n");
    bench.remove(&run).await;
}

async fn a_misspelt_key_is_named(over: Over) {
    let more = json!({ "pod": { "tollerations": [] } });
    let Some(bench) = Bench::with(over, more).await else {
        return;
    };
    finds(&*bench.executor, Health::Warning, "`pod.tollerations`").await;
}

async fn a_namespace_that_is_not_there_is_found_out(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let as_administrator = json!({ "kubeconfig": kubeconfig(), "namespace": "nowhere" });
    let executor = bench.place.executor_at("one", &as_administrator);
    finds(&*executor, Health::Failed, "no namespace `nowhere`").await;
}

#[tokio::test]
async fn what_runs_beside_the_work_of_a_job_has_no_more_time_than_it() {
    let beside = json!({ "name": "beside", "image": BUSYBOX, "command": ["sleep", "600"] });
    let more = json!({ "pod": { "containers": [beside] } });
    let Some(bench) = Bench::with(Over::Jobs, more).await else {
        return;
    };
    let mut spec = bench.spec("echo done");
    spec.limits.timeout = Duration::from_secs(4).into();
    let run = bench.start(&spec).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "done\n");
    bench.remove(&run).await;
}

#[tokio::test]
async fn volumes_of_a_workflow_are_mounted_by_the_work_and_by_what_is_beside_it() {
    let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}") });
    let containers = json!([
        { "name": "main", "volumeMounts": [mount("shared"), mount("mine")] },
        {
            "name": "beside",
            "image": BUSYBOX,
            "command": ["sh", "-c", "echo hello > /shared/word; touch /yours/seen; sleep 600"],
            "volumeMounts": [mount("shared"), mount("yours")],
        },
    ]);
    let volume = |name: &str| json!({ "name": name, "emptyDir": {} });
    let volumes = [volume("shared"), volume("mine"), volume("yours")];
    let more = json!({
        "pod": { "containers": containers },
        "template": { "spec": { "volumes": volumes } },
    });
    let Some(bench) = Bench::with(Over::Workflows, more).await else {
        return;
    };
    let script = "until cat /shared/word 2>/dev/null; do sleep 0.1; done; touch /mine/seen";
    let run = bench.begin(script).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "hello\n");
    bench.remove(&run).await;
}

async fn what_the_api_server_would_not_make_is_found_out(over: Over) {
    let label = json!({ "template": { "metadata": { "labels": { "a b": "c" } } } });
    let Some(bench) = Bench::with(over, label).await else {
        return;
    };
    finds(&*bench.executor, Health::Failed, "metadata.labels").await;
    if over == Over::Workflows {
        // The pod in it is read by Argo alone.
        return;
    }
    let resources = json!({ "requests": { "cpu": "2" }, "limits": { "cpu": "1" } });
    let pod = json!({ "containers": [{ "name": "main", "resources": resources }] });
    let types = json!({ "automation": pod });
    for (section, health, words) in [
        (json!({ "pod": pod }), Health::Failed, "the Job of a run: "),
        (
            json!({ "types": types }),
            Health::Failed,
            "the Job of a run of type `automation`: ",
        ),
        (
            json!({ "template": { "spec": { "paralelism": 1 } } }),
            Health::Warning,
            "\"spec.paralelism\"",
        ),
    ] {
        let bench = Bench::with(over, section).await.unwrap();
        finds(&*bench.executor, health, words).await;
    }
}
