//! `docs/plugins.md` says what is so: its messages are exchanged, its sections are read, its code is that of the examples.

use std::path::Path;
use std::process::Stdio;

use hybrid_runner::config::{Inputs, load};
use hybrid_runner_core::id::Owner;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::{ODD, Place, root, told};

/// Members whose value is the reader's own; only their type is compared.
const FREE: [&str; 10] = [
    "software",
    "message",
    "next",
    "streams",
    "resources",
    "images",
    "contained",
    "spool",
    "time",
    "identity",
];

/// The fenced blocks of the page that are opened by this line.
fn blocks(opening: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let line_in_list = line.strip_prefix("  ").unwrap_or(line);
        match &mut block {
            None if line == opening => block = Some(String::new()),
            Some(_) if line_in_list == "```" || line == "```" => found.extend(block.take()),
            Some(lines) => lines.extend([line, "\n"]),
            None => {}
        }
    }
    assert!(!found.is_empty(), "no block `{opening}`");
    found
}

/// Whether all that was expected came; more may have.
fn fits(key: &str, expected: &Value, came: &Value) -> bool {
    match (expected, came) {
        (Value::Object(expected), Value::Object(came)) => expected
            .iter()
            .all(|(key, value)| came.get(key).is_some_and(|came| fits(key, value, came))),
        (Value::Array(expected), Value::Array(came)) => {
            // How much a doctor finds depends on the machine.
            (expected.len() == came.len() || key == "findings" && expected.len() < came.len())
                && expected
                    .iter()
                    .zip(came)
                    .all(|(expected, came)| fits(key, expected, came))
        }
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_))
            if FREE.contains(&key) =>
        {
            true
        }
        _ => expected == came,
    }
}

/// Exchanges the messages of a block with a plugin.
async fn exchange(block: &str, arguments: &[&str]) {
    let place = Place::new();
    let mut plugin = Command::new(ODD)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = plugin.stdin.take().unwrap();
    let mut stdout = BufReader::new(plugin.stdout.take().unwrap()).lines();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    for line in block.lines() {
        let line = line.replace("DATA", data.to_str().unwrap());
        if let Some(sent) = line.strip_prefix("-> ") {
            let _: Value = serde_json::from_str(sent).unwrap();
            stdin
                .write_all(format!("{sent}\n").as_bytes())
                .await
                .unwrap();
        } else if let Some(expected) = line.strip_prefix("<- ") {
            let came = stdout.next_line().await.unwrap().unwrap();
            let expected: Value = serde_json::from_str(expected).unwrap();
            let message: Value = serde_json::from_str(&came).unwrap();
            assert!(
                fits("", &expected, &message),
                "expected {expected}\n    came {message}"
            );
        } else {
            panic!("neither sent nor received: {line}");
        }
    }
    drop(stdin);
    assert!(
        stdout.next_line().await.unwrap().is_none(),
        "more than the page says"
    );
    assert!(plugin.wait().await.unwrap().success());
}

#[tokio::test]
async fn the_messages_of_the_page_are_those_that_are_exchanged() {
    for block in blocks("```jsonl") {
        told(60, exchange(&block, &["local"])).await;
    }
    for block in blocks("```jsonl store") {
        told(60, exchange(&block, &["store"])).await;
    }
}

#[test]
fn the_sections_of_the_page_are_read_and_built() {
    let place = Place::new();
    for (number, block) in blocks("```toml").iter().enumerate() {
        let file = place.path(&format!("config-{number}.toml"));
        std::fs::write(&file, block).unwrap();
        let mut inputs = Inputs::of_process(Some(file));
        inputs.environment.clear();
        let loaded = load(&inputs).unwrap_or_else(|error| panic!("{error}\n{block}"));
        let owner = Owner::of("docs", &"me".parse().unwrap());
        let built = loaded.config.build(&place.path("data"), &owner);
        built.unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
}

#[test]
fn the_code_of_the_page_is_that_of_the_example() {
    let example = root().join("examples/custom-executor-python/executor.py");
    let example = std::fs::read_to_string(example).unwrap();
    for block in blocks("```python") {
        assert!(example.contains(&block), "not in the example:\n{block}");
    }
    let rust = ["custom-runner/src/main.rs", "custom-executor/src/lib.rs"];
    let rust =
        rust.map(|path| std::fs::read_to_string(root().join("examples").join(path)).unwrap());
    for block in blocks("```rust") {
        let is_there = rust.iter().any(|text| text.contains(&block));
        assert!(is_there, "not in the examples:\n{block}");
    }
}

/// Lines of Rust in a folder, without comments and blank ones.
fn code(folder: &Path) -> usize {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let lines = |file: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        text.lines().filter(is_code).count()
    };
    std::fs::read_dir(folder).unwrap().map(lines).sum()
}

#[test]
fn the_examples_stay_small() {
    let lines = |path: &str| {
        std::fs::read_to_string(root().join("examples").join(path))
            .unwrap()
            .lines()
            .count()
    };
    assert!(lines("custom-executor-python/hybrid_runner.py") <= 250);
    assert!(lines("custom-executor-python/executor.py") <= 60);
    for (example, most) in [
        ("custom-executor", 60),
        ("custom-secrets", 60),
        ("custom-runner", 10),
    ] {
        let code = code(&root().join("examples").join(example).join("src"));
        assert!((1..=most).contains(&code), "{example}: {code} lines");
    }
}
