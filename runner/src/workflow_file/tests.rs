use super::*;
use serde_json::json;

fn good(text: &str) -> Workflow {
    parse(text, "w.yaml").unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn bad(text: &str) -> String {
    match parse(text, "w.yaml") {
        Ok(_) => panic!("read: {text}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            error.report()
        }
    }
}

const ALL: &str = r#"
version: 1                             # of this format; absent: 1
name: orders-metadata
executor: here
image: openmetadata/ingestion-base:1.13.3
command: [metadata, ingest]
args: [-c, $(WORKFLOW_CONFIG)]
workdir: /work
env:
  LOG_LEVEL: info
  DB_URL: "mysql://u:${secret:/prod/orders/password}@db/orders"
files: { GOOGLE_APPLICATION_CREDENTIALS: "secret:/prod/gcp/key.json" }
config: { source: { type: mysql } }
config_env: config
start_timeout: 15m
timeout: 2h
stall_timeout: 0s
grace: 30s
resources: { requests: { cpu: 500m, memory: 1Gi }, limits: { memory: 4Gi } }
retries: { limit: 2, delay: 5m, on: [exit, evicted, backend] }
labels: { team: data }
schedule: { cron: "0 3 * * *", timezone: Europe/Berlin, start: 2026-12-01, end: 2027-12-01, catchup: false, max_active_runs: 1, at_limit: skip, jitter: 0s, paused: false }
"#;

#[test]
fn every_field_is_read() {
    let workflow = good(ALL);
    assert_eq!(workflow.args.as_ref().unwrap()[1], "$(WORKFLOW_CONFIG)");
    assert_eq!(workflow.config, Some(json!({"source": {"type": "mysql"}})));
    let schedule = workflow.schedule.unwrap();
    assert_eq!(schedule.start.as_deref(), Some("2026-12-01"));
}

#[test]
fn texts_are_taken_as_they_are_written() {
    let text = r#"
name: 0123
command: [no, 1e5, 0x10, true, 1.0]
env: { A: 0123, B: no, C: 1e5, D: 1_000, E: 1.50, F: true, G: "", H: 12345678901234567890123, I: 2026-12-01, J: .inf, K: 0o17, L: " x " }
labels: { a: yes, b: 007 }
files: { X: 1.0 }
workdir: 1e3
"#;
    let workflow = good(text);
    assert_eq!(workflow.name.as_str(), "0123");
    assert_eq!(
        workflow.command.unwrap(),
        ["no", "1e5", "0x10", "true", "1.0"]
    );
    let env: Vec<&str> = workflow.env.values().map(String::as_str).collect();
    let want = [
        "0123",
        "no",
        "1e5",
        "1_000",
        "1.50",
        "true",
        "",
        "12345678901234567890123",
        "2026-12-01",
        ".inf",
        "0o17",
        " x ",
    ];
    assert_eq!(env, want);
    assert_eq!(workflow.labels["a"], "yes");
    assert_eq!(workflow.labels["b"], "007");
    assert_eq!(workflow.files["X"], "1.0");
    assert_eq!(workflow.workdir.unwrap(), "1e3");
}

#[test]
fn config_keeps_types_and_takes_only_true_and_false_for_truth() {
    let text = "
name: a
command: [x]
config:
  words: [no, yes, on, off, y, n, No]
  truth: [true, false]
  text: [0123, 1_000, 2026-12-01, '1', 12:30:45]
  numbers: [1, -1, 1.5, 18446744073709551615]
  nothing: [null, ~, ]
";
    let config = good(text).config.unwrap();
    assert_eq!(
        config["words"],
        json!(["no", "yes", "on", "off", "y", "n", "No"])
    );
    assert_eq!(config["truth"], json!([true, false]));
    assert_eq!(
        config["text"],
        json!(["0123", "1_000", "2026-12-01", "1", "12:30:45"])
    );
    assert_eq!(
        config["numbers"],
        json!([1, -1, 1.5, 18_446_744_073_709_551_615_u64])
    );
    assert_eq!(config["nothing"], json!([null, null]));
}

#[test]
fn a_string_as_config_stays_as_it_is() {
    let config = good("name: a\ncommand: [x]\nconfig: |\n  a: 1\n  b: no\n").config;
    assert_eq!(config, Some(json!("a: 1\nb: no\n")));
}

#[test]
fn json_is_read_too() {
    let text = "{\n\t\"name\": \"a\",\n\t\"command\": [\"x\\/\\u00e9\\ud83d\\ude00\"],\n\t\"env\": {\"A\": 1}\n}\n";
    let workflow = good(text);
    assert_eq!(workflow.command.unwrap(), ["x/é😀"]);
    assert_eq!(workflow.env["A"], "1");
    let error = bad("{\"name\": \"a\",\n \"comand\": []}");
    assert!(
        error.starts_with("w.yaml:2:2: unknown field `comand`"),
        "{error}"
    );
}

#[test]
fn an_unknown_field_has_its_place_and_the_near_miss() {
    let error = bad("name: a\ncomand: [x]\n");
    assert_eq!(
        error,
        "w.yaml:2:1: unknown field `comand`; did you mean `command`?\n 2 | comand: [x]\n   | ^"
    );
    let error = bad("name: a\ncommand: [x]\nschedule:\n  cron: '@daily'\n  timezon: UTC\n");
    assert!(
        error.starts_with("w.yaml:5:3: unknown field `timezon`; did you mean `timezone`?"),
        "{error}"
    );
    let error = bad("name: a\ncommand: [x]\nretries: { on: [exot] }\n");
    assert!(
        error.contains("unknown value `exot`; did you mean `exit`?"),
        "{error}"
    );
    let error = bad("name: a\ncommand: [x]\nzzzzzzzz: 1\n");
    assert!(error.contains("expected one of version, name"), "{error}");
}

#[test]
fn each_error_has_its_line() {
    for (text, line, words) in [
        (
            "name: a\ncommand: [x]\nname: b\n",
            3,
            "`name` stands here twice",
        ),
        (
            "name: a\ncommand: [x]\nenv: {A: 1, A: 2}\n",
            3,
            "`A` stands here twice",
        ),
        (
            "name: a\ncommand: [x]\nconfig:\n  b: 1\n  b: 2\n",
            5,
            "`b` stands here twice",
        ),
        (
            "name: a\ncommand: [x]\ntimeout: 30\n",
            3,
            "`30` is not a duration",
        ),
        ("name: a\ncommand: x\n", 2, "a list is needed"),
        ("name: a\ncommand: [x\n", 2, "unclosed"),
        ("name: a\ncommand: [x]\nenv:\n  A:\n", 4, "write `\"\"`"),
        ("name: a b\ncommand: [x]\n", 1, "is not a workflow name"),
        (
            "name: a\ncommand: [x]\nenv:\n  A: b\n  B: ${secret:/a\n",
            5,
            "never closed",
        ),
        (
            "name: a\ncommand: [x]\nargs:\n- -p\n- ${secret:/prod/pw}\n",
            5,
            "`args` has the secret reference `${secret:/prod/pw}`; references belong into `env`",
        ),
        (
            "name: a\ncommand:\n- x\n- secret:/x\n",
            4,
            "`command` has the secret reference `secret:/x`",
        ),
        (
            "name: a\ncommand: [x]\nworkdir: /data/${secret:/x}\n",
            3,
            "`workdir` has the secret reference `${secret:/x}`",
        ),
        (
            "name: a\ncommand: [x]\nlabels:\n  team: data\n  key: secret:prod:/x\n",
            5,
            "`labels` has the secret reference `secret:prod:/x`",
        ),
        (
            "name: a\ncommand: [x]\nimage: secret:/image\n",
            3,
            "`image` has the secret reference `secret:/image`",
        ),
        (
            "name: a\ncommand: [x]\nenv:\n  A: secret:/a ${secret:/b}\n",
            4,
            "one reference is the whole string",
        ),
        ("name: a\ncommand: [x]\nimage: ''\n", 3, "`image` is empty"),
        (
            "name: a\ncommand: [x]\nenv:\n  A: b\n  WORKFLOW_B: c\n",
            5,
            "set by the runner",
        ),
        (
            "name: a\ncommand: [x]\nconfig:\n  l:\n  - 1\n  - secret:/a?b=c\n",
            6,
            "malformed reference",
        ),
        (
            "name: a\ncommand: [x]\nconfig: !!python/object x\n",
            3,
            "tag",
        ),
        ("name: a\ncommand: [x]\nconfig: .inf\n", 3, "quotes"),
        (
            "name: a\ncommand: [x]\n---\nname: b\ncommand: [x]\n",
            4,
            "a file of its own",
        ),
        ("name: a\n\tcommand: [x]\n", 1, "tab"),
        ("name: a\ncommand: [x]\nconfig: *b\n", 3, "unknown"),
        (
            "version: 0\nname: a\ncommand: [x]\n",
            1,
            "this build reads version 1",
        ),
    ] {
        let error = bad(text);
        assert!(
            error.starts_with(&format!("w.yaml:{line}:")),
            "{text}\n{error}"
        );
        assert!(error.contains(words), "{text}\n{error}");
    }
}

#[test]
fn what_has_no_line_is_clear_too() {
    for (text, words) in [
        ("", "is empty"),
        ("# nothing\n\n---\n", "is empty"),
        ("name: a\n", "nothing to run"),
        ("command: [x]\n", "`name` is missing"),
        (
            "version: 7\nname: a\nnew_thing: {a: 1}\n",
            "version 7; this build reads version 1",
        ),
        ("just text", "fields are needed"),
        ("[1, 2]", "fields are needed"),
    ] {
        let error = bad(text);
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn anchors_work_and_bombs_do_not() {
    let text = "name: a\ncommand: [x]\nconfig:\n  a: &a {b: 1}\n  c: *a\n  d: {<<: *a, e: 2}\n";
    let config = good(text).config.unwrap();
    assert_eq!(config["c"], json!({"b": 1}));
    assert_eq!(config["d"], json!({"b": 1, "e": 2}));
    let mut bomb = "name: a\ncommand: [x]\nconfig:\n  a0: &a0 [x]\n".to_owned();
    for i in 1..20 {
        let alias = format!("*a{},", i - 1).repeat(9);
        bomb.extend([
            "  a",
            &i.to_string(),
            ": &a",
            &i.to_string(),
            " [",
            &alias,
            "]\n",
        ]);
    }
    let error = bad(&bomb);
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn size_and_depth_are_bounded() {
    let large = format!("name: a\ncommand: [x]\nconfig: {}\n", "x".repeat(MAX_BYTES));
    assert!(bad(&large).contains("larger than 4 MiB"));
    for deep in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
    ] {
        bad(&format!("name: a\ncommand: [x]\nconfig:\n  {deep}\n"));
    }
    let many = format!(
        "name: a\ncommand: [x]\nconfig: [{}]\n",
        "1,".repeat(MAX_NODES)
    );
    assert!(bad(&many).contains("too large"));
}

#[test]
fn a_file_is_read_or_says_why_not() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("w.yaml");
    assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(read(place.path()).unwrap_err().kind(), ErrorKind::Invalid);
    std::fs::write(&path, ALL).unwrap();
    assert_eq!(read(&path).unwrap(), good(ALL));
    std::fs::write(&path, b"name: a\ncommand: [\xff]\n").unwrap();
    let error = read(&path).unwrap_err();
    assert!(
        error
            .message()
            .ends_with("w.yaml:2: the file is not UTF-8 text"),
        "{error}"
    );
    std::fs::write(&path, vec![b'#'; MAX_BYTES + 1]).unwrap();
    assert!(read(&path).unwrap_err().message().contains("4 MiB"));
}

#[test]
fn no_prefix_or_change_of_a_file_makes_it_panic() {
    for end in 0..ALL.len() {
        drop(parse(&ALL[..end], "w.yaml"));
        for with in ["{", "\"", "\n- ", "&a *a", "\u{0}", "é"] {
            let changed = format!("{}{with}{}", &ALL[..end], &ALL[end..]);
            drop(parse(&changed, "w.yaml"));
        }
    }
}
