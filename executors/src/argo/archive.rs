//! Where Argo archived the log of a run, and a Workflow that reads it from there.
//!
//! The archive is one of many kinds of store, with credentials that only pods of the namespace have. Argo brings what it archived into a
//! pod, whatever the store is, so a Workflow with that one input and the run's own image prints it.

use serde_json::{Value, json};

use crate::cluster::names::READS;
use crate::cluster::object::Archive;
use crate::cluster::pod::MAIN;

use super::patch;

/// What Argo calls the log of a container.
const ARTIFACT: &str = "main-logs";
/// Where it is put into the pod that reads it.
const FILE: &str = "/hybrid-runner-log";
/// How many seconds such a Workflow may live, and stays behind if nobody removes it.
const LIFE: u32 = 600;

/// Where the log of this Workflow is, and what reads it from there: first its size in a line, then in base64 what is behind the first `from` bytes.
pub(super) fn of(workflow: &Value, name: &str, from: u64) -> Archive {
    let status = &workflow["status"];
    let nodes = status["nodes"].as_object().into_iter().flatten();
    let artifacts = nodes.filter_map(|(_, node)| node["outputs"]["artifacts"].as_array());
    let mut artifacts = artifacts.flatten();
    let Some(artifact) = artifacts.find(|it| it["name"] == ARTIFACT && it["deleted"] != true)
    else {
        return if is_archived(workflow) && !is_over(status) {
            Archive::Later
        } else {
            Archive::Nowhere
        };
    };
    Archive::At(Box::new(reader(workflow, artifact, name, from)))
}

/// Whether a Workflow says that its log be archived.
pub(super) fn is_asked_for(workflow: &Value) -> bool {
    let of_template = template(workflow).map(|it| &it["archiveLocation"]["archiveLogs"]);
    match of_template {
        Some(Value::Bool(is)) => *is,
        _ => workflow["spec"]["archiveLogs"] == true,
    }
}

fn is_archived(workflow: &Value) -> bool {
    let repository = &workflow["status"]["artifactRepositoryRef"]["artifactRepository"];
    repository["archiveLogs"] == true || is_asked_for(workflow)
}

fn is_over(status: &Value) -> bool {
    let phase = status["phase"].as_str().unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Error")
}

fn template(workflow: &Value) -> Option<&Value> {
    patch::named(&workflow["spec"]["templates"], MAIN)
}

/// It runs where the run itself could, as the same user, with the same account: all but its work is the run's.
fn reader(workflow: &Value, artifact: &Value, name: &str, from: u64) -> Value {
    const OF_SPEC: [&str; 13] = [
        "affinity",
        "artifactRepositoryRef",
        "dnsConfig",
        "dnsPolicy",
        "executor",
        "hostAliases",
        "imagePullSecrets",
        "nodeSelector",
        "podPriorityClassName",
        "schedulerName",
        "securityContext",
        "serviceAccountName",
        "tolerations",
    ];
    const OF_TEMPLATE: [&str; 8] = [
        "affinity",
        "archiveLocation",
        "executor",
        "hostAliases",
        "nodeSelector",
        "securityContext",
        "serviceAccountName",
        "tolerations",
    ];
    let template = template(workflow).unwrap_or(&Value::Null);
    let mut input = artifact.clone();
    input["name"] = "log".into();
    input["path"] = FILE.into();
    input["mode"] = 0o444.into();
    // As it is, whatever it looks like.
    input["archive"] = json!({ "none": {} });
    let mut reading = picked(template, &OF_TEMPLATE);
    reading["name"] = MAIN.into();
    reading["metadata"] = json!({ "labels": { READS: name } });
    reading["inputs"] = json!({ "artifacts": [input] });
    reading["container"] = picked(&template["container"], &["image", "imagePullPolicy"]);
    let pod = template["podSpecPatch"].as_str().unwrap_or_default();
    let pod = serde_json::from_str(pod).unwrap_or_default();
    reading["podSpecPatch"] = patch::text(&patch::only_work(&pod, &command(from))).into();
    if reading["archiveLocation"]["archiveLogs"] == true {
        reading["archiveLocation"]["archiveLogs"] = false.into();
    }
    let mut spec = picked(&workflow["spec"], &OF_SPEC);
    spec["archiveLogs"] = false.into();
    spec["activeDeadlineSeconds"] = LIFE.into();
    spec["ttlStrategy"] = json!({ "secondsAfterCompletion": LIFE });
    spec["entrypoint"] = MAIN.into();
    spec["templates"] = json!([reading]);
    let labels = &workflow["metadata"]["labels"];
    json!({ "metadata": { "name": name, "labels": picked(labels, &[super::workflow::INSTANCE]) }, "spec": spec })
}

fn command(from: u64) -> [String; 3] {
    let behind = from + 1;
    let script = format!("wc -c <{FILE} && tail -c +{behind} {FILE} | base64 -w 0");
    ["/bin/sh".to_owned(), "-c".to_owned(), script]
}

/// Those of these members that are there.
fn picked(from: &Value, names: &[&str]) -> Value {
    let there = names.iter().filter(|name| !from[**name].is_null());
    there
        .map(|name| ((*name).to_owned(), from[*name].clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow() -> Value {
        let pod = json!({
            "activeDeadlineSeconds": 3600,
            "securityContext": { "runAsUser": 1000 },
            "initContainers": [{ "name": "init", "volumeMounts": [{ "name": "hybrid-runner-argo-token" }] }, { "name": "before" }],
            "containers": [
                {
                    "name": "main", "image": "i", "command": ["work"], "args": ["hard"], "securityContext": {},
                    "env": [{ "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "of-the-run" } } }],
                    "volumeMounts": [{ "name": "hybrid-runner-private" }],
                },
                { "name": "wait" },
                { "name": "beside" },
            ],
            "volumes": [{ "name": "hybrid-runner-private" }, { "name": "hybrid-runner-argo-token" }],
        });
        json!({
            "metadata": { "labels": { super::super::workflow::INSTANCE: "ours", "hybrid-runner.io/run": "it" } },
            "spec": {
                "serviceAccountName": "a",
                "onExit": "more",
                "templates": [{
                    "name": "main",
                    "container": { "image": "i", "command": ["work"] },
                    "podSpecPatch": patch::text(&pod),
                    "archiveLocation": { "archiveLogs": true, "s3": { "bucket": "b" } },
                }],
            },
            "status": { "phase": "Succeeded", "nodes": { "n": { "outputs": { "artifacts": [
                { "name": "main-logs", "s3": { "key": "k/main.log" } },
            ] } } } },
        })
    }

    #[test]
    fn the_reader_has_nothing_of_the_work_but_where_and_as_whom_it_ran() {
        let Archive::At(reader) = of(&workflow(), "it", 7) else {
            panic!("it is archived");
        };
        let labels = json!({ super::super::workflow::INSTANCE: "ours" });
        assert_eq!(reader["metadata"]["labels"], labels);
        let spec = &reader["spec"];
        assert_eq!(spec["serviceAccountName"], "a");
        assert!(spec["onExit"].is_null());
        let template = &spec["templates"][0];
        assert_eq!(reader["metadata"]["name"], "it");
        assert_eq!(template["metadata"]["labels"], json!({ READS: "it" }));
        assert_eq!(template["container"], json!({ "image": "i" }));
        let place = json!({ "archiveLogs": false, "s3": { "bucket": "b" } });
        assert_eq!(template["archiveLocation"], place);
        assert_eq!(
            template["inputs"]["artifacts"][0]["s3"]["key"],
            "k/main.log"
        );
        let pod: Value = serde_json::from_str(template["podSpecPatch"].as_str().unwrap()).unwrap();
        let names = |list: &Value| {
            let names = list.as_array().unwrap().iter();
            names.map(|it| it["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&pod["containers"]), ["main", "wait"]);
        assert_eq!(names(&pod["initContainers"]), ["init"]);
        assert_eq!(names(&pod["volumes"]), ["hybrid-runner-argo-token"]);
        assert_eq!(pod["securityContext"]["runAsUser"], 1000);
        assert!(pod["activeDeadlineSeconds"].is_null());
        let main = &pod["containers"][0];
        let script = "wc -c </hybrid-runner-log && tail -c +8 /hybrid-runner-log | base64 -w 0";
        assert_eq!(main["command"], json!(["/bin/sh", "-c", script]));
        for left_out in ["args", "env", "volumeMounts"] {
            assert!(main[left_out].is_null(), "{left_out}");
        }
    }

    #[test]
    fn what_is_not_archived_is_told_from_what_is_not_yet() {
        let mut workflow = workflow();
        workflow["status"]["nodes"]["n"]["outputs"]["artifacts"][0]["deleted"] = true.into();
        assert_eq!(of(&workflow, "it", 0), Archive::Nowhere);
        workflow["status"]["phase"] = "Running".into();
        assert_eq!(of(&workflow, "it", 0), Archive::Later);
        workflow["spec"]["templates"][0]["archiveLocation"]["archiveLogs"] = false.into();
        assert_eq!(of(&workflow, "it", 0), Archive::Nowhere);
        workflow["spec"]["templates"][0]["archiveLocation"] = Value::Null;
        workflow["spec"]["archiveLogs"] = true.into();
        assert_eq!(of(&workflow, "it", 0), Archive::Later);
    }
}
