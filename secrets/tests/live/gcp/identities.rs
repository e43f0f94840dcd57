//! The identities that Google's own platforms give: a metadata server, as each machine and each pod of GKE has one.

use super::*;
use crate::process::Machine;

const METADATA: &str = "169.254.169.254:80";
const WHO: &str = "runner@p1.iam.gserviceaccount.com (projects/p1)";
const TOKEN: &str = "/service-accounts/default/token";

/// A section that says no more than where the service is, and what of it fits to every machine.
fn section(gcp: &Gcp, front: &Front) -> Value {
    json!({
        "kind": "gcp",
        "endpoint": front.url(),
        "ca": gcp.fronts.authority.file(),
        "access": {"cache": "0s", "negative_cache": "0s"},
    })
}

/// Reads twice, ends the token, and reads again.
async fn reads_and_is_renewed(gcp: &Gcp, machine: Machine, front: &Front, metadata: &Front) {
    let name = gcp.name("machine");
    let mut machine = machine.start().await;
    let before = metadata.seen(TOKEN);
    for _ in 0..2 {
        assert_eq!(machine.get(&name).await.unwrap(), "value");
    }
    assert_eq!(metadata.seen(TOKEN) - before, 1);
    assert_eq!(machine.identity().await.unwrap(), WHO);
    machine.check().await.unwrap();
    gcp.fronts.expire(front);
    assert_eq!(machine.get(&name).await.unwrap(), "value");
    assert_eq!(metadata.seen(TOKEN) - before, 2);
}

#[tokio::test]
async fn a_pod_of_gke_reads_by_its_metadata_server_and_by_a_fresh_token_when_one_ends() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    gcp.lay("machine", b"value").await;
    let front = gcp.fronts.front().await;
    let metadata = Front::before(&gcp.store, None, services::http()).await;
    let pod = Machine::with(section(&gcp, &front))
        .variable("GCE_METADATA_HOST", metadata.address.to_string())
        // The usual variables are not for it.
        .variable("HTTP_PROXY", "http://127.0.0.1:1");
    reads_and_is_renewed(&gcp, pod, &front, &metadata).await;
    assert!(metadata.seen("metadata-flavor: Google") > 0);
}

#[tokio::test]
async fn a_machine_finds_the_metadata_server_by_the_name_that_all_of_them_know() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    if !Machine::has_networks() {
        return hybrid_runner_core::testing::skipped("no right to make a network namespace");
    }
    gcp.lay("machine", b"value").await;
    let front = gcp.fronts.front().await;
    let metadata = Front::before(&gcp.store, None, services::http()).await;
    let machine = Machine::with(section(&gcp, &front))
        .answers(METADATA, metadata.address)
        .answers(&front.address.to_string(), front.address)
        .called("metadata.google.internal", "169.254.169.254")
        .variable("HTTP_PROXY", "http://127.0.0.1:1");
    reads_and_is_renewed(&gcp, machine, &front, &metadata).await;
}

/// The library would take the variable's, whatever the section says.
#[tokio::test]
async fn a_metadata_server_in_the_section_and_another_in_the_variable_are_refused() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    let front = gcp.fronts.front().await;
    let mut section = section(&gcp, &front);
    section["metadata"] = json!("http://127.0.0.1:1");
    let other = gcp.store.trim_start_matches("http://").to_owned();
    let mut machine = Machine::with(section)
        .variable("GCE_METADATA_HOST", other)
        .start()
        .await;
    let refused = machine.get(&gcp.name("any")).await.unwrap_err();
    assert_eq!(refused.refusal, "malformed", "{refused:?}");
    for part in ["GCE_METADATA_HOST", "`metadata`"] {
        assert!(refused.report.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(front.seen(":access"), 0);
}
