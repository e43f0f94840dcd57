//! The pod of a run as the `podSpecPatch` of its Workflow.
//!
//! Argo replaces `{{…}}` in all that a Workflow says. What a run's command, arguments and variables hold must arrive as it was written, so
//! they travel in the patch, which is text that Argo reads as JSON once it has replaced all there is: each brace that could begin a
//! placeholder is written there as `\u007b`.

use serde_json::{Value, json};

use crate::cluster::pod::MAIN;
use crate::cluster::template::merge;

/// Argo's own containers that ask the API server.
const OWN: [(&str, &str); 2] = [("initContainers", "init"), ("containers", "wait")];
/// The user for whom their image is made, where the section names none.
const USER: u32 = 8737;
/// The volume of their token.
const TOKEN: &str = "hybrid-runner-argo-token";
/// Where programs in a pod look for it.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the node may use a token before it renews it.
const TOKEN_LIFE: u32 = 3607;

/// A pod as text in which Argo replaces nothing.
pub(super) fn text(pod: &Value) -> String {
    // Outside of its strings JSON has no two such braces in a row.
    pod.to_string().replace("{{", "\\u007b\\u007b")
}

/// What the work mounts of volumes that are none of its pod's: the Workflow has them.
pub(super) fn mounts_of_workflow(pod: &Value) -> Vec<Value> {
    let main = named(&pod["containers"], MAIN).unwrap_or(&Value::Null);
    mounts_of_others(pod, main).cloned().collect()
}

/// What a container mounts of volumes that are none of its pod's.
fn mounts_of_others<'a>(pod: &'a Value, container: &'a Value) -> impl Iterator<Item = &'a Value> {
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let is_of_pod = |mount: &Value| {
        let name = mount["name"].as_str().unwrap_or_default();
        named(&pod["volumes"], name).is_some()
    };
    mounts.filter(move |mount| !is_of_pod(mount))
}

/// Gives the pod those volumes of its Workflow that only containers beside the work mount, which Argo does not look at.
fn take_volumes(pod: &mut Value, of_workflow: &Value) {
    let all = ["initContainers", "containers"];
    let all = all
        .iter()
        .filter_map(|list| pod[*list].as_array())
        .flatten();
    let beside = all.filter(|container| container["name"] != MAIN);
    let mounts = beside.flat_map(|container| mounts_of_others(pod, container));
    let names = mounts.filter_map(|mount| mount["name"].as_str());
    let of_work = mounts_of_workflow(pod);
    let is_of_work = |name: &str| of_work.iter().any(|mount| mount["name"] == name);
    let volumes = names.filter(|name| !is_of_work(name));
    let volumes: Vec<Value> = volumes
        .filter_map(|name| named(of_workflow, name).cloned())
        .collect();
    if !volumes.is_empty() {
        merge(pod, &json!({ "volumes": volumes }));
    }
}

/// What Argo needs in the pod besides what it brings; `volumes`: of its Workflow.
pub(super) fn completed(pod: &Value, volumes: &Value) -> Value {
    let mut pod = pod.clone();
    take_volumes(&mut pod, volumes);
    // The work is no first process, so that nothing is gained; and `wait`, which has a token, would be seen from it.
    pod["shareProcessNamespace"] = false.into();
    for (list, name) in OWN {
        if let Some(security) = security(&pod) {
            let container = json!({ "name": name, "securityContext": security });
            merge(&mut pod, &json!({ list: [container] }));
        }
    }
    if pod["automountServiceAccountToken"] != json!(false) {
        return pod;
    }
    let mount = json!({ "name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": true });
    for (list, name) in OWN {
        let container = json!({ "name": name, "volumeMounts": [mount] });
        merge(&mut pod, &json!({ list: [container] }));
    }
    let sources = json!([
        { "serviceAccountToken": { "path": "token", "expirationSeconds": TOKEN_LIFE } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
    ]);
    let volume = json!({ "name": TOKEN, "projected": { "sources": sources } });
    merge(&mut pod, &json!({ "volumes": [volume] }));
    pod
}

/// The pod of a run, with another command and nothing of what its work was given.
pub(super) fn only_work(pod: &Value, command: &[String]) -> Value {
    const OF_MAIN: [&str; 5] = [
        "name",
        "image",
        "imagePullPolicy",
        "securityContext",
        "resources",
    ];
    let mut pod = pod.clone();
    let kept = |name: &Value| {
        let own = OWN.iter().any(|(_, own)| name == own);
        own || name == MAIN || name == TOKEN
    };
    for list in ["initContainers", "containers", "volumes"] {
        if let Some(list) = pod[list].as_array_mut() {
            list.retain(|it| kept(&it["name"]));
        }
    }
    let containers = pod["containers"].as_array_mut();
    if let Some(main) = containers
        .into_iter()
        .flatten()
        .find(|it| it["name"] == MAIN)
        && let Some(members) = main.as_object_mut()
    {
        members.retain(|name, _| OF_MAIN.contains(&name.as_str()));
        main["command"] = json!(command);
    }
    if let Some(members) = pod.as_object_mut() {
        members.remove("activeDeadlineSeconds");
    }
    pod
}

/// What Argo's own containers lack for the profile that the pod keeps.
fn security(pod: &Value) -> Option<Value> {
    let of_pod = &pod["securityContext"];
    if of_pod["runAsNonRoot"] != json!(true) {
        return None;
    }
    let mut security =
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    if of_pod["runAsUser"].is_null() {
        security["runAsUser"] = USER.into();
    }
    Some(security)
}

/// The image of the work.
pub(super) fn image(pod: &Value) -> &Value {
    named(&pod["containers"], MAIN).map_or(&Value::Null, |main| &main["image"])
}

/// The one of this name in a list.
pub(super) fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    let mut list = list.as_array().into_iter().flatten();
    list.find(|one| one["name"] == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(token: bool) -> Value {
        json!({
            "automountServiceAccountToken": token,
            "containers": [{ "name": "main", "image": "image:1", "args": ["{{workflow.name}}", "{{{=x}} {{", "{", "\\u007b{{"] }],
            "volumes": [],
        })
    }

    #[test]
    fn no_placeholder_stands_in_the_text_and_all_arrives_as_it_was() {
        let text = text(&pod(false));
        assert!(!text.contains("{{"), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, pod(false));
    }

    #[test]
    fn the_token_is_mounted_where_argo_needs_it_alone() {
        let completed = completed(&pod(false), &Value::Null);
        let containers = completed["containers"].as_array().unwrap();
        assert_eq!(containers[0], pod(false)["containers"][0]);
        assert_eq!(containers[1]["name"], "wait");
        assert_eq!(completed["initContainers"][0]["name"], "init");
        assert_eq!(completed["volumes"][0]["name"], TOKEN);
        assert_eq!(image(&completed), "image:1");
    }

    #[test]
    fn argos_containers_keep_the_profile_that_the_pod_keeps() {
        let mut pod = pod(true);
        pod["securityContext"] = json!({ "runAsNonRoot": true });
        let completed = completed(&pod, &Value::Null);
        for container in [&completed["containers"][1], &completed["initContainers"][0]] {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["runAsUser"], USER);
        }
        let own = &completed["containers"][0];
        assert_eq!(own["securityContext"], Value::Null);
    }

    #[test]
    fn volumes_of_the_workflow_are_mounted_by_all_containers() {
        let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}") });
        let pod = json!({
            "containers": [
                { "name": "main", "image": "i", "volumeMounts": [mount("own"), mount("a")] },
                { "name": "beside", "volumeMounts": [mount("a"), mount("b"), mount("nowhere")] },
            ],
            "volumes": [{ "name": "own", "emptyDir": {} }],
        });
        assert_eq!(mounts_of_workflow(&pod), [mount("a")]);
        let of_workflow = json!([{ "name": "a", "emptyDir": {} }, { "name": "b", "emptyDir": {} }]);
        let completed = completed(&pod, &of_workflow);
        let names = completed["volumes"].as_array().unwrap().iter();
        let names: Vec<&Value> = names.map(|volume| &volume["name"]).collect();
        assert_eq!(names, ["own", "b"]);
    }

    #[test]
    fn a_token_for_all_needs_no_volume() {
        let completed = completed(&pod(true), &Value::Null);
        assert_eq!(completed["containers"], pod(true)["containers"]);
        assert_eq!(completed["volumes"], json!([]));
    }
}
