//! The pod of a run as the `podSpecPatch` of its Workflow.
//!
//! Argo replaces `{{…}}` in all that a Workflow says. What a run's command, arguments and variables hold must arrive as it was written, so
//! they travel in the patch, which is text that Argo reads as JSON once it has replaced all there is: each brace that could begin a
//! placeholder is written there as `\u007b`.

use serde_json::{Value, json};

use crate::cluster::pod::MAIN;

/// Argo's own containers that ask the API server.
const INIT: &str = "init";
const WAIT: &str = "wait";
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

/// What Argo needs in the pod besides what it brings.
pub(super) fn completed(pod: &Value) -> Value {
    let mut pod = pod.clone();
    // The work is no first process, so that nothing is gained; and `wait`, which has a token, would be seen from it.
    pod["shareProcessNamespace"] = false.into();
    if pod["automountServiceAccountToken"] != json!(false) {
        return pod;
    }
    let mount = json!({ "name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": true });
    let with_token = |name| json!({ "name": name, "volumeMounts": [mount] });
    add(&mut pod, "initContainers", with_token(INIT));
    add(&mut pod, "containers", with_token(WAIT));
    let sources = json!([
        { "serviceAccountToken": { "path": "token", "expirationSeconds": TOKEN_LIFE } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
    ]);
    add(
        &mut pod,
        "volumes",
        json!({ "name": TOKEN, "projected": { "sources": sources } }),
    );
    pod
}

fn add(pod: &mut Value, list: &str, item: Value) {
    match pod[list].as_array_mut() {
        Some(items) => items.push(item),
        None => pod[list] = json!([item]),
    }
}

/// The image of the work.
pub(super) fn image(pod: &Value) -> &Value {
    let containers = pod["containers"].as_array();
    let mut containers = containers.into_iter().flatten();
    let main = containers.find(|container| container["name"] == MAIN);
    main.map_or(&Value::Null, |main| &main["image"])
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
        let completed = completed(&pod(false));
        let containers = completed["containers"].as_array().unwrap();
        assert_eq!(containers[0], pod(false)["containers"][0]);
        assert_eq!(containers[1]["name"], "wait");
        assert_eq!(completed["initContainers"][0]["name"], "init");
        assert_eq!(completed["volumes"][0]["name"], TOKEN);
        assert_eq!(image(&completed), "image:1");
    }

    #[test]
    fn a_token_for_all_needs_no_volume() {
        let completed = completed(&pod(true));
        assert_eq!(completed["containers"], pod(true)["containers"]);
        assert_eq!(completed["volumes"], json!([]));
    }
}
