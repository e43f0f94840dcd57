//! The identities that Azure's own platforms give: App Service and container apps, a virtual machine, a pod of AKS.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::process::Machine;

const IMDS: &str = "169.254.169.254:80";

/// A vault, and whoever gives tokens in that place.
struct Platform {
    azure: Azure,
    vault: Arc<Front>,
    tunnel: Tunnel,
    tokens: Front,
}

impl Platform {
    async fn new() -> Option<Self> {
        let azure = Azure::new()?;
        let vault = azure.fronts.front().await;
        Some(Self {
            tunnel: Tunnel::to(vault.address).await,
            tokens: Front::before(&azure.store, None, services::http()).await,
            vault,
            azure,
        })
    }

    /// A section that says no more than where the vault is.
    fn section(&self, identity: &str) -> Value {
        json!({
            "kind": "azure",
            "vault": "kv1",
            "identity": identity,
            "ca": self.azure.fronts.authority.file(),
            "proxy": self.tunnel.url(),
            "access": {"cache": "0s", "negative_cache": "0s"},
        })
    }

    /// As App Service sets the variables of an application.
    fn application(&self, identity: &str) -> Machine {
        Machine::with(self.section(identity))
            .variable(
                "IDENTITY_ENDPOINT",
                format!("{}/msi/token", self.tokens.url()),
            )
            .variable("IDENTITY_HEADER", "header-of-the-application")
    }

    async fn revoke(&self, client: &str) {
        let url = format!("{}/_admin/revoke?client={client}", self.azure.store);
        services::http().post(url).send().await.unwrap();
    }
}

#[tokio::test]
async fn an_application_reads_by_its_managed_identity_and_by_a_fresh_token_when_one_ends() {
    let Some(platform) = Platform::new().await else {
        return services::skipped();
    };
    platform.azure.lay("application", "value").await;
    let name = platform.azure.name("application");
    for identity in ["managed", "auto"] {
        let before = platform.tokens.seen("/msi/token");
        let machine = platform.application(identity);
        let mut application = machine
            .variable("AZURE_CLIENT_ID", "app-revoked")
            .start()
            .await;
        for _ in 0..2 {
            assert_eq!(application.get(&name).await.unwrap(), "value");
        }
        assert_eq!(platform.tokens.seen("/msi/token") - before, 1, "{identity}");
        let who = application.identity().await.unwrap();
        assert!(
            who.contains("appid app-revoked") && who.contains(VAULT),
            "{who}"
        );
        application.check().await.unwrap();
        platform.revoke("app-revoked").await;
        assert_eq!(application.get(&name).await.unwrap(), "value");
        assert_eq!(platform.tokens.seen("/msi/token") - before, 2, "{identity}");
    }
    assert!(
        platform
            .tokens
            .seen("x-identity-header: header-of-the-application")
            >= 4
    );
    assert_eq!(platform.tokens.seen("client_id=app-revoked"), 4);
    assert!(
        platform
            .tokens
            .seen("resource=https%3A%2F%2Fvault.azure.net")
            >= 4
    );
}

#[tokio::test]
async fn the_section_names_one_of_several_managed_identities_and_one_that_is_not_there_is_bad() {
    let Some(platform) = Platform::new().await else {
        return services::skipped();
    };
    platform.azure.lay("several", "value").await;
    let name = platform.azure.name("several");
    for (client, reads) in [("app-reader", true), ("app-unknown", false)] {
        let mut section = platform.section("managed");
        section["client_id"] = json!(client);
        let mut application = Machine::with(section)
            .variable(
                "IDENTITY_ENDPOINT",
                format!("{}/msi/token", platform.tokens.url()),
            )
            .variable("IDENTITY_HEADER", "h")
            .variable("AZURE_CLIENT_ID", "app-denied")
            .start()
            .await;
        let answer = application.get(&name).await;
        if reads {
            assert_eq!(answer.unwrap(), "value");
            continue;
        }
        let refused = answer.unwrap_err();
        assert_eq!(refused.refusal, "bad_identity", "{refused:?}");
        for part in [
            "the managed identity `app-unknown`",
            "has not been assigned",
        ] {
            assert!(refused.report.contains(part), "{part}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn a_virtual_machine_reads_by_the_identity_at_the_address_of_the_platform() {
    let Some(platform) = Platform::new().await else {
        return services::skipped();
    };
    if !Machine::has_networks() {
        return hybrid_runner_core::testing::skipped("no right to make a network namespace");
    }
    platform.azure.lay("machine", "value").await;
    let name = platform.azure.name("machine");
    let tunnel = platform.tunnel.address();
    let machine = |tokens: SocketAddr| {
        Machine::with(platform.section("auto"))
            .answers(IMDS, tokens)
            .answers(&tunnel.to_string(), tunnel)
    };
    let mut there = machine(platform.tokens.address).start().await;
    assert_eq!(there.get(&name).await.unwrap(), "value");
    // The machine's own: no client is named.
    let who = there.identity().await.unwrap();
    assert!(who.contains("appid app-admin"), "{who}");
    assert_eq!(platform.tokens.seen("/metadata/identity/oauth2/token"), 1);
    assert_eq!(platform.tokens.seen("client_id"), 0);
    platform.revoke("app-admin").await;
    assert_eq!(there.get(&name).await.unwrap(), "value");
    assert_eq!(platform.tokens.seen("/metadata/identity/oauth2/token"), 2);

    // Where nobody answers it is no bad identity, and given up in time.
    let gone = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut alone = machine(gone).start().await;
    let start = tokio::time::Instant::now();
    let refused = alone.get(&name).await.unwrap_err();
    assert_eq!(refused.refusal, "unreachable", "{refused:?}");
    assert!(start.elapsed().as_secs() <= 10, "{:?}", start.elapsed());
    assert_eq!(platform.vault.seen("client_secret"), 0);
}

impl Platform {
    /// As the webhook of AKS sets the variables of a pod.
    fn pod(&self, identity: &str, file: &Path, authority: &str) -> Machine {
        Machine::with(self.section(identity))
            .variable("AZURE_CLIENT_ID", "app-revoked")
            .variable("AZURE_TENANT_ID", TENANT)
            .variable("AZURE_FEDERATED_TOKEN_FILE", file)
            .variable("AZURE_AUTHORITY_HOST", authority)
    }
}

#[tokio::test]
async fn a_pod_of_aks_reads_by_the_token_in_its_file_and_by_the_next_one_when_its_own_ends() {
    let Some(platform) = Platform::new().await else {
        return services::skipped();
    };
    platform.azure.lay("pod", "value").await;
    let name = platform.azure.name("pod");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("azure-identity-token");
    for identity in ["auto", "workload"] {
        let tokens = [
            format!("first.of.{identity}"),
            format!("second.of.{identity}"),
        ];
        let asked = |token: &str| platform.vault.seen(&format!("client_assertion={token}"));
        std::fs::write(&file, &tokens[0]).unwrap();
        let machine = platform.pod(identity, &file, "https://login.microsoftonline.com/");
        let mut pod = machine.start().await;
        for _ in 0..2 {
            assert_eq!(pod.get(&name).await.unwrap(), "value");
        }
        let who = pod.identity().await.unwrap();
        assert!(who.contains("appid app-revoked"), "{who}");
        std::fs::write(&file, &tokens[1]).unwrap();
        platform.revoke("app-revoked").await;
        assert_eq!(pod.get(&name).await.unwrap(), "value");
        assert_eq!(tokens.each_ref().map(|token| asked(token)), [1, 1]);
        // What Entra ID does not take is told with its code.
        std::fs::write(&file, "no-token").unwrap();
        platform.revoke("app-revoked").await;
        let refused = pod.get(&name).await.unwrap_err();
        assert_eq!(refused.refusal, "bad_identity", "{refused:?}");
        assert!(refused.report.contains("AADSTS50027"), "{refused:?}");
        assert!(!refused.report.contains("no-token"), "{refused:?}");
    }
}

#[tokio::test]
async fn the_entra_id_of_another_cloud_is_asked_where_the_platform_says() {
    let Some(platform) = Platform::new().await else {
        return services::skipped();
    };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("azure-identity-token");
    std::fs::write(&file, "a.b.c").unwrap();
    let other = "https://login.microsoftonline.us/";
    let mut pod = platform.pod("auto", &file, other).start().await;
    // Here the certificate is of the public one alone.
    let refused = pod.get(&platform.azure.name("any")).await.unwrap_err();
    assert_eq!(refused.refusal, "unreachable", "{refused:?}");
    let asked = platform.tunnel.asked();
    let host = "CONNECT login.microsoftonline.us:443";
    assert!(asked.iter().any(|head| head.starts_with(host)), "{asked:?}");
}
