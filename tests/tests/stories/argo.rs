//! The seed's own story: its five variables, and a workflow that becomes a Workflow of Argo.
//!
//! The runner is outside of the cluster here, so that it needs a sixth: `KUBECONFIG`.

use hybrid_runner_tests::docker::BUSYBOX;
use hybrid_runner_tests::story::free_address;
use hybrid_runner_tests::{Binary, Server, Story, Workflow, skipped};
use serde_json::json;

const ID: &str = "WestEu1Runner";
const VALUE: &str = "wJalrXUtnFEMI-bPxRfiCYEXAMPLEKEY";

#[tokio::test]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn the_seeds_five_variables_run_a_workflow_through_argo() {
    let kubeconfig = std::env::var("HYBRID_RUNNER_TEST_KUBECONFIG").unwrap_or_default();
    if kubeconfig.is_empty() || !Binary::Clouds.is_there() {
        return skipped("no cluster, or no build with Argo: scripts/test makes both");
    }
    Story::told(120, async |story| {
        let server = Server::started(&story).await;
        let client = server.client();
        let (_, token) = client.token("runner", Some(ID)).await;
        let listen = free_address();
        let mut start = story.start(ID, Binary::Clouds, &["run"]);
        let variables = [
            ("AGENT_ID", ID.to_owned()),
            ("AUTH_TOKEN", token),
            ("SERVER_URL", format!("ws://{}", server.address())),
            ("ARGO_INGESTION_IMAGE", BUSYBOX.to_owned()),
            ("ARGO_EXTRA_ENVS_NOOP", format!("[AWS_REGION:eu-west-1, AWS_SECRET_ACCESS_KEY:{VALUE}]")),
            ("KUBECONFIG", kubeconfig),
            // Of the test: places of its own.
            ("HYBRID_RUNNER__RUNNER__DATA_DIR", story.path("data").display().to_string()),
            ("HYBRID_RUNNER__RUNNER__LISTEN", listen),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        start.environment.extend(variables);
        let _runner = start.spawn();

        let script = "echo it is $AWS_SECRET_ACCESS_KEY; echo '{{workflow.name}}'; cat $WORKFLOW_CONFIG; env | grep -c ^ARGO_TEMPLATE; exit 3";
        let workflow = Workflow::sh("orders", script).with("config", json!({ "source": 1 }));
        let run = client.submit(&workflow, ID).await;
        let end = client.finished(&run).await;
        end.expect_failed("exit", &["3"]);
        let text = client.text(&run).await;
        assert_eq!(text, "it is ***\n{{workflow.name}}\n{\"source\":1}0\n");
    })
    .await;
}
