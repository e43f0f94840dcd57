//! One workflow, every secret store: only the configuration changes.

use std::path::Path;

use hybrid_runner_tests::{Binary, Runner, Server, Story, skipped};
use serde_json::{Value, json};

/// What the workflow asks for, and what is there.
const VALUE: &str = "correct \"horse\" battery-staple";

/// What `scripts/services/secret-stores up` started, and the binary that can talk to it.
fn stores_and_binary() -> Option<Value> {
    stores().filter(|_| Binary::Clouds.is_there())
}

/// What `scripts/services/secret-stores up` started.
pub(super) fn stores() -> Option<Value> {
    let folder = std::env::var_os("HYBRID_RUNNER_STORES")?;
    let text = std::fs::read_to_string(Path::new(&folder).join("stores.json"));
    let text = text.expect("the services write it before they say that they are up");
    serde_json::from_str(&text).ok()
}

fn skip() {
    skipped("no secret stores, or no build with them: scripts/test makes both");
}

/// Lays a value in every store.
pub(super) async fn lay(stores: &Value, path: &str, value: &str) {
    let url = stores["admin"]["url"].as_str().expect("an address");
    let http = hybrid_runner_tests::rest::http();
    let body = json!({"path": path, "value": value});
    let answer = http.post(url).json(&body).send().await;
    let answer = answer.expect("the administrator of the stores answers");
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.unwrap_or_default()
    );
}

/// The section of somebody in AWS.
fn aws_of(story: &Story, stores: &Value, who: &str) -> String {
    let text = |pointer: &str| {
        let text = stores.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("no `{pointer}` in stores.json"))
    };
    let key = story.write(
        &format!("aws-key-{who}"),
        text(&format!("/aws/{who}/secret_key")),
    );
    format!(
        "region = \"{}\"\nendpoint = \"{1}\"\nsts_endpoint = \"{1}\"\naccess_key = {{ id = \"{2}\", secret_key = {{ file = \"{3}\" }} }}\n",
        text("/aws/region"),
        text("/aws/url"),
        text(&format!("/aws/{who}/id")),
        key.display(),
    )
}

/// The section of each store; the rest of the configuration is the same for all.
fn sections(story: &Story, stores: &Value) -> Vec<(&'static str, String)> {
    let text = |pointer: &str| {
        let text = stores.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("no `{pointer}` in stores.json"))
            .to_owned()
    };
    let aws = aws_of(story, stores, "reader");
    let client_secret = story.write("azure-secret", "reader-secret");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ingestion"}}],
        "clusters": [{"name": "c", "cluster": {"server": text("/kubernetes/url")}}],
        "users": [{"name": "u", "user": {"token": text("/kubernetes/token")}}],
    });
    let kubeconfig = story.write("kubeconfig", kubeconfig.to_string());
    vec![
        ("aws", aws.clone()),
        ("aws", format!("service = \"ssm\"\n{aws}")),
        (
            "azure",
            format!(
                "endpoint = \"{0}\"\nauthority = \"{0}\"\nskip_challenge_check = true\nca = \"{1}\"\ntenant = \"11111111-1111-1111-1111-111111111111\"\nclient_id = \"app-reader\"\nclient_secret = {{ file = \"{2}\" }}",
                text("/azure/url"),
                text("/azure/ca"),
                client_secret.display(),
            ),
        ),
        (
            "gcp",
            format!(
                "endpoint = \"{0}\"\nmetadata = \"{0}\"\nproject = \"p1\"",
                text("/gcp/url")
            ),
        ),
        (
            "vault",
            format!(
                "address = \"{}\"\nauth = {{ method = \"token\", token = {{ file = \"{}\" }} }}",
                text("/vault/url"),
                story.write("vault-token", text("/vault/token")).display(),
            ),
        ),
        (
            "kubernetes",
            format!("kubeconfig = \"{}\"", kubeconfig.display()),
        ),
    ]
}

#[tokio::test]
async fn one_workflow_file_runs_with_each_store_and_only_the_configuration_changes() {
    let Some(stores) = stores_and_binary() else {
        return skip();
    };
    Story::told(120, async |story| {
        let path = format!("/story{}/orders/password", std::process::id());
        lay(&stores, &path, VALUE).await;
        let script = "printf '%s' \"$WHOLE\" >\"$STORY/whole\"; printf '%s' \"$PART\" >\"$STORY/part\"; echo \"it is $WHOLE\"";
        let workflow = story
            .sh("orders", script)
            .env("WHOLE", &format!("secret:{path}"))
            .env("PART", &format!("mysql://u:${{secret:{path}}}@db"));
        let workflow = story.write("orders.yaml", workflow.to_yaml()).display().to_string();
        for (kind, section) in sections(&story, &stores) {
            let config = format!("[executors.here]\nkind = \"local\"\n[secrets.prod]\nkind = \"{kind}\"\n{section}\n");
            let config = story.write("config.toml", config).display().to_string();
            let exec = ["exec", &workflow, "-c", &config];
            let ended = story.command_of(Binary::Clouds, &exec, &[]).await;
            ended.expect(0);
            assert_eq!(story.read("whole"), VALUE, "{kind}");
            assert_eq!(story.read("part"), format!("mysql://u:{VALUE}@db"), "{kind}");
            assert!(ended.text().contains("it is ***"), "{kind}: {}", ended.text());

            let reference = format!("secret:prod:{path}");
            let check = ["secrets", "check", &reference, "secret:/story/nowhere", "-c", &config];
            let ended = story.command_of(Binary::Clouds, &check, &[]).await;
            ended.expect(1);
            let text = ended.text();
            let row = text.lines().find(|line| line.contains(&reference));
            assert!(row.is_some_and(|row| row.contains("prod") && row.contains("yes")), "{kind}: {}", ended.text());
            assert!(ended.err.contains("`secret:/story/nowhere` is not found in store `prod`"), "{kind}: {}", ended.err);
            let said = format!("{}{}", ended.text(), ended.err);
            assert!(!said.contains("horse"), "{kind}: {said}");

            let ended = story.command_of(Binary::Clouds, &["check", "-c", &config], &[]).await;
            ended.expect(0);
            assert!(ended.text().contains(&format!("store prod ({kind}): readable as")), "{kind}: {}", ended.text());
        }
    })
    .await;
}

#[tokio::test]
async fn a_profile_of_aws_the_role_it_names_and_a_role_beside_it_are_identities() {
    let Some(stores) = stores_and_binary() else {
        return skip();
    };
    Story::told(60, async |story| {
        let text = |pointer: &str| stores.pointer(pointer).and_then(Value::as_str).expect("it is in stores.json");
        let (url, region, role) = (text("/aws/url"), text("/aws/region"), text("/aws/role"));
        let path = format!("/profile{}/password", std::process::id());
        lay(&stores, &path, VALUE).await;
        // As `aws configure` writes them: the home of the story's programs is its folder.
        let keys = [text("/aws/reader/id"), text("/aws/reader/secret_key")];
        let keys = format!("[base]\naws_access_key_id = {}\naws_secret_access_key = {}\n", keys[0], keys[1]);
        story.write(".aws/credentials", keys);
        let profiles = format!(
            "[profile base]\nregion = {region}\n[profile ingestion]\nregion = {region}\nrole_arn = {role}\n\
             source_profile = base\nexternal_id = the-external-id\nrole_session_name = by-profile\n"
        );
        story.write(".aws/config", profiles);
        // Whom the profile's own role is asked of is AWS's own setting. Keys in variables must not come before the profile.
        let sts = [
            ("AWS_ENDPOINT_URL_STS", url),
            ("AWS_ACCESS_KEY_ID", "AKIAXXXXXXXXXXXXXXXX"),
            ("AWS_SECRET_ACCESS_KEY", "of-nobody"),
        ];
        let beside = format!("profile = \"base\"\nrole = \"{role}\"\nexternal_id = \"the-external-id\"\nsession_name = \"beside\"");
        for (identity, who) in [
            ("profile = \"base\"", "user/reader"),
            ("profile = \"ingestion\"", "assumed-role/runner/by-profile"),
            (&beside, "assumed-role/runner/beside"),
        ] {
            let config = format!(
                "[executors.here]\nkind = \"local\"\n[secrets.prod]\nkind = \"aws\"\n\
                 endpoint = \"{url}\"\nsts_endpoint = \"{url}\"\n{identity}\n"
            );
            let config = story.write("config.toml", config).display().to_string();
            let ended = story.command_of(Binary::Clouds, &["check", "-c", &config], &sts).await;
            ended.expect(0);
            let told = ended.text();
            assert!(told.contains("store prod (aws): readable as") && told.contains(who), "{identity}: {told}");
            let reference = format!("secret:prod:{path}");
            let check = ["secrets", "check", &reference, "-c", &config];
            story.command_of(Binary::Clouds, &check, &sts).await.expect(0);
        }
        // A profile that is not there is a bad identity, and named.
        let config = format!("[secrets.prod]\nkind = \"aws\"\nregion = \"{region}\"\nendpoint = \"{url}\"\nprofile = \"nobody\"\n");
        let config = story.write("config.toml", config).display().to_string();
        let ended = story.command_of(Binary::Clouds, &["secrets", "check", "secret:prod:/a", "-c", &config], &[]).await;
        ended.expect(4).says(&["the profile `nobody`"]);
    })
    .await;
}

#[tokio::test]
async fn two_accounts_of_one_kind_of_store_are_two_identities() {
    let Some(stores) = stores_and_binary() else {
        return skip();
    };
    Story::told(60, async |story| {
        let path = format!("/accounts{}/password", std::process::id());
        lay(&stores, &path, VALUE).await;
        let sections = ["reader", "nobody"].map(|who| {
            format!(
                "[secrets.{who}]\nkind = \"aws\"\n{}",
                aws_of(&story, &stores, who)
            )
        });
        let config = story
            .write("config.toml", sections.concat())
            .display()
            .to_string();
        let [mine, other] = ["reader", "nobody"].map(|who| format!("secret:{who}:{path}"));
        let check = ["secrets", "check", &mine, &other, "-c", &config];
        let ended = story.command_of(Binary::Clouds, &check, &[]).await;
        ended.expect(4).says(&[
            &format!("`{other}` is denied by store `nobody`"),
            "user/nobody",
        ]);
        assert!(
            ended
                .text()
                .lines()
                .any(|row| row.contains(&mine) && row.contains("yes")),
            "{}",
            ended.text()
        );
    })
    .await;
}

/// A secret that is there and disabled, as its administrator makes it.
async fn disable(stores: &Value, path: &str) {
    let name = path.trim_start_matches('/').replace('/', "_");
    let gcp = stores["gcp"]["url"].as_str().expect("an address");
    let url = format!("{gcp}/v1/projects/p1/secrets/{name}/versions/1:disable");
    let http = hybrid_runner_tests::rest::http();
    let answer = http
        .post(url)
        .bearer_auth("default.0")
        .json(&json!({}))
        .send()
        .await;
    assert!(answer.expect("the store answers").status().is_success());
}

#[tokio::test]
async fn whatever_a_store_refuses_stops_the_run_before_its_start() {
    let Some(stores) = stores_and_binary() else {
        return skip();
    };
    Story::told(120, async |story| {
        let [there, disabled] =
            ["there", "disabled"].map(|name| format!("/closed{}/{name}", std::process::id()));
        lay(&stores, &there, VALUE).await;
        lay(&stores, &disabled, VALUE).await;
        disable(&stores, &disabled).await;
        let of = |kind: &str| {
            let all = sections(&story, &stores);
            let found = all.into_iter().find(|(known, _)| *known == kind);
            found.expect("a section of this kind").1
        };
        let unknown = aws_of(&story, &stores, "reader").replace("id = \"AKIA", "id = \"AKIX");
        let gone =
            "address = \"http://127.0.0.1:9\"\nauth = { method = \"token\", token = \"t\" }\n"
                .to_owned();
        for (kind, section, reference, words) in [
            (
                "gcp",
                of("gcp"),
                "secret:/closed/nowhere",
                "is not found in store `prod`",
            ),
            (
                "aws",
                aws_of(&story, &stores, "nobody"),
                &format!("secret:{there}"),
                "is denied by store `prod`",
            ),
            (
                "aws",
                unknown,
                &format!("secret:{there}"),
                "UnrecognizedClientException",
            ),
            (
                "gcp",
                of("gcp"),
                &format!("secret:{disabled}"),
                "FAILED_PRECONDITION",
            ),
            (
                "vault",
                gone,
                &format!("secret:{there}"),
                "store `prod` is unreachable",
            ),
            ("azure", of("azure"), "secret:/___", "cannot hold the name"),
        ] {
            let config = format!(
                "[executors.here]\nkind = \"local\"\n[secrets.prod]\nkind = \"{kind}\"\n{section}\n"
            );
            let config = story.write("config.toml", config).display().to_string();
            let workflow = story
                .sh("closed", "touch $STORY/started")
                .env("A", reference)
                .env("B", &format!("secret:{there}"));
            let workflow = story
                .write("closed.yaml", workflow.to_yaml())
                .display()
                .to_string();
            let ended = story
                .command_of(Binary::Clouds, &["exec", &workflow, "-c", &config], &[])
                .await;
            ended.expect(1);
            let said = format!("{}{}", ended.text(), ended.err);
            for part in ["(secret)", reference, words] {
                assert!(said.contains(part), "{kind}: no `{part}` in {said}");
            }
            assert!(!story.path("started").exists(), "{kind}: {reference}");
            assert!(!said.contains("horse"), "{kind}: {said}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_example_of_all_clouds_is_understood_and_none_of_them_is_reached() {
    if !Binary::Clouds.is_there() {
        return skip();
    }
    Story::told(60, async |story| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the crate lies in the workspace");
        let example = root.join("examples/config/clouds.toml");
        let text = std::fs::read_to_string(&example).expect("the example is there");
        let sections = text
            .lines()
            .filter(|line| line.starts_with("[secrets."))
            .count();
        assert!(sections >= 11, "only {sections} stores in the example");
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.binary = Binary::Clouds;
        let stores = text.find("[secrets.").expect("it has stores");
        runner.sections = text[stores..].to_owned();
        // A proxy that nobody is would show who is asked.
        let proxy = hybrid_runner_tests::Proxy::new("127.0.0.1:1").await;
        let at = format!("http://{}", proxy.address());
        runner.environment = vec![
            ("HTTPS_PROXY".to_owned(), at.clone()),
            ("HTTP_PROXY".to_owned(), at),
        ];
        runner.start().await;
        let client = server.client();
        let run = client
            .submit(&story.sh("idle", "echo here"), "runner-1")
            .await;
        client.finished(&run).await.expect("succeeded");
        assert_eq!(
            proxy.taken(),
            0,
            "a store was reached although nobody asked for a secret"
        );
    })
    .await;
}

#[tokio::test]
async fn another_store_takes_over_when_the_file_changes_and_the_runner_is_told() {
    let Some(stores) = stores_and_binary() else {
        return skip();
    };
    Story::told(120, async |story| {
        let path = format!("/change{}/password", std::process::id());
        lay(&stores, &path, VALUE).await;
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.binary = Binary::Clouds;
        runner.start().await;
        let client = server.client();
        let workflow = story
            .sh("change", "echo \"$A\" | sha256sum | cut -c1-8")
            .env("A", &format!("secret:later:{path}"));
        let run = client.submit(&workflow, "runner-1").await;
        client
            .finished(&run)
            .await
            .expect_failed("secret", &["later", "files"]);

        let (kind, section) = sections(&story, &stores).remove(4);
        runner.sections = format!("[secrets.later]\nkind = \"{kind}\"\n{section}\n");
        runner.config();
        runner.program().signal(rustix::process::Signal::HUP);
        let soon = std::time::Duration::from_secs(20);
        runner
            .program()
            .says("read the configuration again", soon)
            .await;
        let run = client.submit(&workflow, "runner-1").await;
        client.finished(&run).await.expect("succeeded");

        // What is wrong changes nothing.
        runner.sections = "[secrets.later]\nkind = \"valt\"\n".to_owned();
        runner.config();
        runner.program().signal(rustix::process::Signal::HUP);
        runner.program().says("did you mean `vault`?", soon).await;
        let run = client.submit(&workflow, "runner-1").await;
        client.finished(&run).await.expect("succeeded");
        let (_, metrics) = runner.ask("metrics").await;
        let line = "hybrid_runner_secret_reads_total{store=\"later\",outcome=\"found\"} 2";
        assert!(metrics.contains(line), "{metrics}");
    })
    .await;
}
