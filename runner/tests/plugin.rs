//! `plugin test` and `plugin list`, as they are typed.

#![cfg(all(feature = "plugin", feature = "local"))]
#![expect(clippy::unwrap_used, reason = "tests: a failure is the test's")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_hybrid-runner");

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.env("HOME", folder);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_program_is_certified_with_a_line_for_each_promise_and_in_junit() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "plugin",
        "test",
        "--only",
        "starting_twice",
        "--only",
        "stdout",
        "--only",
        "missing",
        "--junit",
        "junit.xml",
        "--",
        BINARY,
        "plugin",
        "serve",
        "local",
    ];
    let ended = run(folder.path(), &arguments);
    let told = text(&ended.stdout);
    assert!(ended.status.success(), "{told}{}", text(&ended.stderr));
    for line in [
        "passed       starting twice starts once",
        "not offered  check says what is missing: needs",
        "0 failed",
    ] {
        assert!(told.contains(line), "{told}");
    }
    let junit = std::fs::read_to_string(folder.path().join("junit.xml")).unwrap();
    assert!(
        junit.contains("name=\"starting_twice_starts_once\"/>") && junit.contains("<skipped"),
        "{junit}"
    );
    let ended = run(folder.path(), &[&["--json"], &arguments[..]].concat());
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["failed"], 0);
    assert!(report["passed"].as_u64().unwrap() >= 2, "{report}");
}

#[test]
fn a_program_that_is_no_plugin_is_an_answer_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    for (program, words) in [
        ("/bin/false", "exit status: 1"),
        ("./missing", "is it there"),
    ] {
        let ended = run(folder.path(), &["plugin", "test", "--", program]);
        assert_eq!(ended.status.code(), Some(1));
        let told = text(&ended.stdout);
        assert!(told.contains("failed       it can be used"), "{told}");
        assert!(told.contains(words), "{told}");
    }
    let ended = run(folder.path(), &["plugin", "test"]);
    assert_eq!(ended.status.code(), Some(2));
}

#[test]
fn the_list_shows_kinds_sections_capabilities_and_health() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[executors.piped]\nkind = \"plugin\"\ncommand = [\"{BINARY}\", \"plugin\", \"serve\", \"local\"]\n\
         [executors.gone]\nkind = \"plugin\"\ncommand = [\"./gone\"]\n\
         [executors.batch]\nkind = \"command\"\nstart = [\"true\"]\nstatus = [\"true\"]\n"
    );
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let ended = run(
        folder.path(),
        &["--json", "plugin", "list", "-c", "config.toml"],
    );
    assert_eq!(
        ended.status.code(),
        Some(1),
        "one of them cannot be used: {}",
        text(&ended.stderr)
    );
    let listed: Vec<Value> = serde_json::from_slice(&ended.stdout).unwrap();
    let of = |name: &str| listed.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(of("piped")["health"], "ok");
    assert_eq!(of("piped")["capabilities"]["streams"], true);
    assert_eq!(of("gone")["health"], "failed");
    assert!(of("gone")["why"].as_str().unwrap().contains("./gone"));
    assert_eq!(of("batch")["capabilities"]["missing"][0], "logs");
    assert_eq!(of("batch")["capabilities"]["named_start"], false);
    let kinds: Vec<_> = listed
        .iter()
        .filter(|one| one["health"] == "available")
        .map(|one| one["kind"].as_str().unwrap())
        .collect();
    for kind in ["local", "plugin", "command", "env", "file"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}
