//! An engine over TCP, which wants our certificate and shows its own.

use std::fs;
use std::path::Path;

use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::run::Outcome;
use hybrid_runner_core::secret::{References, SecretValue, Secrets};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bench::Bench;
use crate::own::Own;

/// An authority, and what it signed for an engine and for us.
fn authority(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(
        folder.join("ca.pem"),
        params.self_signed(&key).unwrap().pem(),
    )
    .unwrap();
    let issuer = Issuer::new(params, key);
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let signed = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), signed.pem()).unwrap();
        fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

fn client(ca: &Path, own: &Path) -> Value {
    json!({ "tls": {
        "ca": ca.join("ca.pem"),
        "cert": own.join("client.pem"),
        "key": own.join("client-key.pem"),
    }})
}

#[tokio::test]
async fn an_engine_over_tls_runs_work_and_both_sides_must_be_known() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let [ours, strangers] = [folders[0].path(), folders[1].path()];
    authority(ours);
    authority(strangers);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let host = format!("tcp://127.0.0.1:{port}");
    let option = |name: &str, file: &str| format!("--{name}={}", ours.join(file).display());
    let options = [
        format!("--host={host}"),
        "--tlsverify".to_owned(),
        option("tlscacert", "ca.pem"),
        option("tlscert", "server.pem"),
        option("tlskey", "server-key.pem"),
    ];
    let Some(_own) = Own::up(&options.each_ref().map(String::as_str)).await else {
        return;
    };

    let bench = Bench::at(host.clone(), client(ours, ours), References::none());
    let mut spec = bench.spec("echo \"word: $WORD\"; exit 3");
    spec.env.insert("WORD".into(), "secret:/word".into());
    let mut secrets = Secrets::none();
    secrets.insert("/word", SecretValue::new("correct-horse-battery"));
    let run = bench.start_with(&spec, &secrets).await;
    let end = bench.end(&run).await;
    assert!(
        matches!(&end, Outcome::Failed(failure) if failure.exit_code == Some(3)),
        "{end}"
    );
    assert_eq!(bench.text(&run).await, "word: ***\n");
    bench.remove(&run).await;
    assert_eq!(bench.listed().await, []);

    // An engine that we do not know, and one that does not know us, or is not told who we are.
    for (settings, kind, says) in [
        (client(strangers, ours), ErrorKind::Denied, "`tls.ca`"),
        (client(ours, strangers), ErrorKind::Denied, "`tls.cert`"),
        (json!({}), ErrorKind::Invalid, "HTTPS"),
        (
            client(&ours.join("nowhere"), ours),
            ErrorKind::Invalid,
            "nowhere/ca.pem",
        ),
    ] {
        let bench = Bench::at(host.clone(), settings, References::none());
        let error = bench.docker.check().await.unwrap_err();
        assert!(
            error.report().contains(says),
            "no `{says}` in {}",
            error.report()
        );
        assert_eq!(error.kind(), kind);
    }
}
