use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;

use super::*;

fn settings(more: Value) -> Settings {
    let owner = Owner::of("server", &"agent".parse().unwrap());
    let context = Context::new("here".parse().unwrap(), more, "/nowhere", owner, 1 << 30);
    Settings::read(&context, |_| None).unwrap()
}

fn read(workflow: Value) -> Standing {
    Workflow.standing(&serde_json::from_value(workflow).unwrap())
}

fn ended(phase: &str, node: &Value, message: &str) -> End {
    let status = json!({ "phase": phase, "message": message, "nodes": { "n": node } });
    read(json!({ "status": status })).end.unwrap()
}

#[test]
fn a_workflow_that_is_held_is_no_controllers_and_one_that_goes_is_the_one_of_the_section() {
    let settings = settings(json!({ "labels": { INSTANCE: "ours" } }));
    let pod = json!({ "containers": [{ "name": "main", "image": "i" }] });
    let labels = json!({ INSTANCE: "ours" });
    let mut shell = Shell {
        settings: &settings,
        labels: &labels,
        pod: &pod,
        is_held: true,
    };
    let kept = Workflow.keep(&shell);
    assert_eq!(kept["metadata"]["labels"][INSTANCE], NOBODY);
    assert_eq!(kept["spec"]["suspend"], true);
    assert_eq!(
        Workflow.go(&settings)["metadata"]["labels"][INSTANCE],
        "ours"
    );
    shell.is_held = false;
    let kept = Workflow.keep(&shell);
    assert_eq!(kept["metadata"], Value::Null);
    assert_eq!(kept["spec"]["suspend"], Value::Null);
}

#[test]
fn the_object_has_a_deadline_only_where_its_pod_has_one() {
    let settings = settings(json!({}));
    for (pod, deadline) in [
        (json!({}), Value::Null),
        (json!({ "activeDeadlineSeconds": 60 }), json!(120)),
    ] {
        let spec = Workflow.spec(&Shell {
            settings: &settings,
            labels: &json!({}),
            pod: &pod,
            is_held: false,
        });
        assert_eq!(spec["activeDeadlineSeconds"], deadline);
    }
}

#[test]
fn unknown_fields_and_a_status_that_is_not_there_are_no_trouble() {
    let standing = read(json!({ "apiVersion": "argoproj.io/v1alpha9", "spec": { "new": 1 } }));
    assert!(standing.untaken.is_some() && standing.end.is_none());
    let standing = read(json!({ "spec": { "suspend": true } }));
    assert!(standing.is_suspended && standing.is_held && standing.untaken.is_none());
    let standing =
        read(json!({ "spec": { "shutdown": "Stop" }, "status": { "phase": "Running" } }));
    assert!(standing.is_held && standing.is_shut && !standing.is_suspended);
}

#[test]
fn what_a_workflow_waits_for_is_told() {
    for (status, words) in [
        (
            json!({ "phase": "Pending", "message": "a lock" }),
            Some("a lock"),
        ),
        (json!({ "phase": "Running", "message": "a lock" }), None),
        (
            json!({ "phase": "Running", "nodes": { "n": { "type": "Pod", "message": "exceeded quota" } } }),
            Some("exceeded quota"),
        ),
    ] {
        assert_eq!(read(json!({ "status": status })).waits.as_deref(), words);
    }
}

#[test]
fn what_argo_says_of_an_end_is_put_into_words() {
    for (node, message, class) in [
        (
            json!({ "type": "Pod", "message": "pod deleted", "hostNodeName": "n" }),
            "",
            FailureClass::Killed,
        ),
        (
            json!({ "type": "Pod", "message": "main: Error (exit code 3)", "hostNodeName": "n" }),
            "",
            FailureClass::Exit,
        ),
        (
            json!({ "type": "Pod", "message": "main: OOMKilled (exit code 137)", "hostNodeName": "n" }),
            "",
            FailureClass::Oom,
        ),
        (
            json!({}),
            "error in entry template execution: pods \"a\" is forbidden: error looking up service account a/b: serviceaccount \"b\" not found",
            FailureClass::Spec,
        ),
        (
            json!({}),
            "error in entry template execution: pods \"a\" is forbidden: violates PodSecurity \"restricted\"",
            FailureClass::Policy,
        ),
        (
            json!({}),
            "pods \"a\" is forbidden: failed quota: b: must specify requests.memory for: main",
            FailureClass::Quota,
        ),
        (
            json!({}),
            "pods \"a\" is forbidden: failed quota: b: must specify limits.memory for: init,wait",
            FailureClass::Quota,
        ),
        (
            json!({}),
            "Failed to load workflow: cannot unmarshall spec: cannot restore slice from int64",
            FailureClass::Spec,
        ),
        (
            json!({}),
            "volume 'a' not found in workflow spec",
            FailureClass::Spec,
        ),
        (
            json!({}),
            "pods \"a\" is forbidden: maximum memory usage per Container is 64Mi, but limit is 1Gi",
            FailureClass::Policy,
        ),
        (
            json!({}),
            "pods \"a\" is forbidden: no PriorityClass with name b was found",
            FailureClass::Spec,
        ),
        (
            json!({}),
            "configmaps is forbidden: User \"system:serviceaccount:argo:argo\" cannot create resource",
            FailureClass::Spec,
        ),
        (json!({}), "Error applying PodSpecPatch", FailureClass::Spec),
        (
            json!({}),
            "invalid spec: templates.main",
            FailureClass::Spec,
        ),
        (
            json!({}),
            "Stopped with strategy 'Stop'",
            FailureClass::Killed,
        ),
        (
            json!({}),
            "Max duration limit exceeded",
            FailureClass::Pending,
        ),
        (json!({}), "something new", FailureClass::Backend),
    ] {
        let end = ended("Failed", &node, message);
        assert_eq!(Workflow.blame(&end).class, class, "{end:?}");
    }
    assert!(ended("Succeeded", &json!({ "type": "Pod" }), "").is_complete);
}

#[test]
fn the_end_of_the_work_counts_while_the_workflow_waits_for_a_report() {
    let status = |more: Value| {
        let node = json!({ "type": "Pod", "phase": "Error", "message": "pod deleted", "hostNodeName": "n" });
        let mut nodes = json!({ "n": node });
        crate::cluster::template::merge(&mut nodes, &more);
        read(json!({ "status": { "phase": "Running", "nodes": nodes } })).end
    };
    let end = status(json!({})).unwrap();
    assert!(!end.is_complete && !end.never_began);
    assert_eq!(Workflow.blame(&end).class, FailureClass::Killed);
    let lives = json!({ "n": { "phase": "Running" } });
    assert_eq!(status(lives), None);
    let has_tries = json!({ "r": { "type": "Retry", "phase": "Running" } });
    assert_eq!(status(has_tries), None);
    let has_another = json!({ "x": { "type": "Pod", "phase": "Succeeded" } });
    assert_eq!(status(has_another), None);
}

#[test]
fn no_tries_of_its_own_are_left_in_a_workflow() {
    let template = json!({ "spec": {
        "retryStrategy": { "limit": 3 },
        "templateDefaults": { "retryStrategy": { "limit": 3 }, "timeout": "1h" },
    } });
    let settings = settings(json!({ "template": template }));
    let kept = Workflow.keep(&Shell {
        settings: &settings,
        labels: &json!({}),
        pod: &json!({}),
        is_held: false,
    });
    let mut object = template;
    crate::cluster::template::merge(&mut object, &kept);
    let spec = &object["spec"];
    assert_eq!(spec["templateDefaults"], json!({ "timeout": "1h" }));
    assert_eq!(spec["retryStrategy"], Value::Null);
}
