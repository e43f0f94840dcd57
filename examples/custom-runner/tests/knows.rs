//! Every command of the binary knows the kinds that were built in.

#![expect(clippy::unwrap_used, reason = "tests: a failure is the test's")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn said(arguments: &[&str], code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_custom-runner"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    let ended = command.output().unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(
        ended.status.code(),
        Some(code),
        "{arguments:?}: {text}\n{errors}"
    );
    text
}

#[test]
fn version_and_list_and_schema_know_the_kinds() {
    let version: Value = serde_json::from_str(&said(&["version", "--json"], 0)).unwrap();
    let has = |list: &Value, name: &str| list.as_array().unwrap().iter().any(|kind| kind == name);
    assert!(has(&version["executors"], "batch") && has(&version["executors"], "local"));
    assert!(has(&version["secrets"], "json_file") && has(&version["secrets"], "env"));
    let schema: Value = serde_json::from_str(&said(&["config", "schema"], 0)).unwrap();
    let kinds = schema["properties"]["executors"]["additionalProperties"]["oneOf"]
        .as_array()
        .unwrap();
    let batch = kinds
        .iter()
        .find(|kind| kind["properties"]["kind"]["const"] == "batch")
        .unwrap();
    assert!(
        batch["properties"]["program"].is_object(),
        "its section is typed: {batch}"
    );
}

#[test]
fn a_workflow_runs_on_the_executor_with_a_secret_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let batch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../batch/batch.py");
    let config = format!(
        "[runner]\nexecutor = \"here\"\nsecrets = \"mine\"\n[executors.here]\nkind = \"batch\"\nprogram = \"{}\"\nfolder = \"{}\"\n\
         [secrets.mine]\nkind = \"json_file\"\npath = \"{}\"\n",
        batch.display(),
        folder.path().join("jobs").display(),
        folder.path().join("secrets.json").display(),
    );
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("config.toml"), config).unwrap();
    std::fs::write(path("secrets.json"), r#"{"/greeting":"good morning"}"#).unwrap();
    let workflow = "name: greet\ncommand: [/bin/sh, -c, 'echo $GREETING | wc -c; exit 0']\nenv: { GREETING: 'secret:/greeting' }\n";
    std::fs::write(path("greet.yaml"), workflow).unwrap();
    let text = said(
        &["exec", &path("greet.yaml"), "-c", &path("config.toml")],
        0,
    );
    assert_eq!(text.trim(), "13");
    // A wrong section is named with its key.
    std::fs::write(
        path("wrong.toml"),
        "[executors.here]\nkind = \"batch\"\nprogramme = \"x\"\n",
    )
    .unwrap();
    said(&["config", "lint", "-c", &path("wrong.toml")], 2);
}
