//! The log of a pod that is gone comes from where Argo archived it: here a store that
//! understands `PUT` and `GET`, as Artifactory does, in a pod of its own.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::log::LogCursor;
use hybrid_runner_core::run::Outcome;
use hybrid_runner_core::secret::{SecretValue, Secrets};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::bench::{Bench, Log, until, within};
use crate::over::Over;
use crate::place::{BUSYBOX, Place, kubeconfig};

const PATIENCE: Duration = Duration::from_mins(4);
const STORE: &str = "store";

/// Puts what is put, and gets it back.
const HANDLER: &str = r#"#!/bin/sh
end=$(printf '\r')
read -r method path _
path=/tmp/kept/$(echo "$path" | tr / _)
while read -r name value; do
  value=${value%$end}
  case $name in
    "$end") break ;;
    [Cc]ontent-[Ll]ength:) length=$value ;;
    [Tt]ransfer-[Ee]ncoding:) length=chunked ;;
  esac
done
answer() { printf 'HTTP/1.1 %s\r\nContent-Length: %s\r\nConnection: close\r\n\r\n' "$1" "$2"; }
some() { dd bs=1 count="$1" 2>/dev/null >>"$path.new"; }
case $method in
  PUT)
    : >"$path.new"
    if [ "$length" = chunked ]; then
      while read -r size && size=$((0x${size%$end})) && [ $size -gt 0 ]; do some $size; read -r _; done
    else
      some "$length"
    fi
    mv "$path.new" "$path"
    answer '200 OK' 0 ;;
  *) if [ -e "$path" ]; then answer '200 OK' "$(wc -c <"$path")"; cat "$path"; else answer '404 Not Found' 0; fi ;;
esac
"#;

/// A namespace with a store, and an executor whose Workflows are archived there.
async fn bench() -> Option<Bench> {
    let place = Place::with(Over::Workflows, Some(kubeconfig()?), json!({}));
    place.ready().await;
    let script = "mkdir /tmp/kept; printf %s \"$HANDLER\" >/tmp/handler; chmod +x /tmp/handler; exec nc -ll -p 8080 -e /tmp/handler";
    let store = json!({
        "metadata": { "name": STORE },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": STORE,
                "image": BUSYBOX,
                "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", script],
                "env": [{ "name": "HANDLER", "value": HANDLER }],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    let login = json!({ "metadata": { "name": STORE }, "stringData": { "user": "argo", "password": "of the store" } });
    let login = serde_json::from_value(login).unwrap();
    let secrets: Api<Secret> = Api::namespaced(place.client().await, &place.namespace);
    secrets
        .create(&PostParams::default(), &login)
        .await
        .unwrap();
    let store = serde_json::from_value(store).unwrap();
    let pods = pods(&place).await;
    pods.create(&PostParams::default(), &store).await.unwrap();
    let mut address = None;
    until("the store", async || {
        let status = pods.get(STORE).await.unwrap().status.unwrap();
        address = status.pod_ip;
        status.phase.as_deref() == Some("Running")
    })
    .await;
    let url = format!("http://{}:8080/{{{{workflow.name}}}}", address.unwrap());
    let login = |key: &str| json!({ "name": STORE, "key": key });
    let location = json!({
        "archiveLogs": true,
        "artifactory": { "url": url, "usernameSecret": login("user"), "passwordSecret": login("password") },
    });
    let template =
        json!({ "spec": { "templates": [{ "name": "main", "archiveLocation": location }] } });
    let executor = place.executor_at("one", &json!({ "template": template }));
    Some(Bench { place, executor })
}

async fn pods(place: &Place) -> Api<Pod> {
    Api::namespaced(place.client().await, &place.namespace)
}

/// Deletes the pods of the runs, by somebody else, once Argo has seen their end: before that it would make others.
async fn clear(place: &Place) {
    let objects = place.objects().await;
    until("the end of the Workflows", async || {
        let listed = objects.list(&ListParams::default()).await.unwrap();
        let mut phases = listed.items.iter().map(|it| &it.data["status"]["phase"]);
        phases.all(|phase| *phase == "Succeeded")
    })
    .await;
    let pods = pods(place).await;
    let of_runs = ListParams::default().labels("hybrid-runner.io/run");
    let none = DeleteParams::default();
    pods.delete_collection(&none, &of_runs).await.unwrap();
    until("the end of the pods", async || {
        pods.list(&of_runs).await.unwrap().items.is_empty()
    })
    .await;
}

/// What `seq` writes.
fn numbers(last: u32) -> String {
    (1..=last).fold(String::new(), |text, n| text + &format!("{n}\n"))
}

/// Nothing is left of what read the archive.
async fn is_clean(place: &Place) {
    let objects = place.objects().await;
    until("the end of what read the archive", async || {
        let listed = objects.list(&ListParams::default()).await.unwrap();
        let mut names = listed
            .items
            .iter()
            .filter_map(|it| it.metadata.name.clone());
        !names.any(|name| name.starts_with("hr-log-"))
    })
    .await;
}

/// The first of the log, and where it goes on.
async fn beginning(bench: &Bench, run: &Handle) -> (String, LogCursor) {
    let mut chunks = bench.executor.logs(run, None);
    let chunk = within(PATIENCE, "the first chunk", chunks.next()).await;
    let chunk = chunk.unwrap().unwrap();
    let next = chunk.next.clone();
    (Log(vec![chunk]).text(), next)
}

#[tokio::test]
async fn what_nobody_read_of_a_pod_that_is_gone_comes_from_the_archive() {
    let Some(bench) = bench().await else {
        return;
    };
    let script = r"seq 1 20000; printf 'of %s\r\nno end' $TOKEN";
    let mut spec = bench.spec(script);
    spec.env.insert("TOKEN".into(), "${secret:/token}".into());
    let mut secrets = Secrets::none();
    secrets.insert("/token", SecretValue::new("one-of-a-kind"));
    let run = bench.try_start(&spec, &secrets).await.unwrap();
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    clear(&bench.place).await;
    let log = bench.log(&run, None).await;
    let expected = numbers(20000) + "of ***\r\nno end";
    assert_eq!(log.gaps(), [0; 0]);
    assert!(log.text() == expected, "{} bytes", log.text().len());
    let waits = log.0.iter().filter(|chunk| chunk.item.is_empty());
    assert!(
        waits.count() > 0,
        "whoever reads hears that it takes its time"
    );
    // From each place in it comes exactly the rest.
    for at in [0, log.0.len() / 2, log.0.len() - 1] {
        let before = log.0[..=at].iter().map(|chunk| chunk.item.len());
        let before = before.sum::<usize>();
        let rest = bench.log(&run, Some(log.0[at].next.clone())).await;
        assert!(rest.text() == expected[before..], "behind {before}");
        assert_eq!(rest.gaps(), [0; 0]);
    }
    is_clean(&bench.place).await;
    bench.remove(&run).await;
}

#[tokio::test]
async fn what_was_read_in_part_goes_on_in_the_archive_if_the_place_is_certain() {
    let Some(bench) = bench().await else {
        return;
    };
    let certain = bench.begin("seq 1 500; sleep 3; seq 501 1000").await;
    let twofold = bench.begin("echo same; echo same; sleep 3; echo end").await;
    let (first, from) = beginning(&bench, &certain).await;
    let (_, of_twofold) = beginning(&bench, &twofold).await;
    bench.end(&certain).await;
    bench.end(&twofold).await;
    clear(&bench.place).await;
    let rest = bench.log(&certain, Some(from)).await;
    let all = numbers(1000);
    assert!(first + &rest.text() == all, "{}", rest.text());
    assert_eq!(rest.gaps(), [0; 0]);
    let rest = bench.log(&twofold, Some(of_twofold)).await;
    assert_eq!((rest.gaps(), rest.text().as_str()), (vec![0], ""));
    is_clean(&bench.place).await;
    // Without its store an archive is no better than none.
    let pods = pods(&bench.place).await;
    pods.delete(STORE, &DeleteParams::default()).await.unwrap();
    let is_gone = async || pods.get_opt(STORE).await.unwrap().is_none();
    until("the end of the store", is_gone).await;
    let log = bench.log(&certain, None).await;
    assert_eq!((log.gaps(), log.text().as_str()), (vec![0], ""));
    is_clean(&bench.place).await;
    bench.remove(&certain).await;
    bench.remove(&twofold).await;
}
