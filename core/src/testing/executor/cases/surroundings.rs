//! What `start` promises about what the work is given: arguments, variables, values.

use std::ffi::OsString;

use serde_json::json;

use crate::run::{Outcome, RunSpec, WORKFLOW_CONFIG, render};
use crate::secret::{SecretValue, Secrets};
use crate::testing::executor::Trial;
use crate::testing::script::{Script, Step, cksum};
use crate::testing::verdict::{Tried, done, ensure, equal, not_offered, shown};

pub(in super::super) async fn arguments_arrive_as_they_were_written(t: &Trial) -> Tried {
    let mut spec = t.spec(Script::new().then(Step::Arguments));
    let run = spec.run.run().to_string();
    let written = [
        ("two words", "two words"),
        ("", ""),
        ("*", "*"),
        ("ü \"q\" 'q' \\n %s", "ü \"q\" 'q' \\n %s"),
        ("$(HOME) $HOME `id`", "$(HOME) $HOME `id`"),
        ("{{workflow.name}}", "{{workflow.name}}"),
        ("id=$(WORKFLOW_RUN_ID)!", &format!("id={run}!")),
        ("$$(WORKFLOW_RUN_ID)", "$(WORKFLOW_RUN_ID)"),
    ];
    spec.args = Some(written.iter().map(|(text, _)| (*text).to_owned()).collect());
    let text = output_of(t, &spec, &Secrets::none()).await?;
    let expected: Vec<&str> = written.iter().map(|(_, text)| *text).collect();
    let came: Vec<&str> = text.lines().collect();
    equal("the arguments", &expected, &came)
}

pub(in super::super) async fn the_work_gets_its_variables(t: &Trial) -> Tried {
    let greeting = "a b=c %d 'q' \"d\" $HOME `id` ü";
    let names = ["GREETING", "EMPTY", "WORKFLOW_RUN_ID", "WORKFLOW_NAME"];
    let write = |script: Script, name: &&str| script.then(Step::Variable((*name).to_owned()));
    let script = names.iter().fold(Script::new(), write);
    let mut spec = t.spec(script.then(Step::Variable("WORKFLOW_ATTEMPT".into())));
    spec.env.insert("GREETING".into(), greeting.into());
    spec.env.insert("EMPTY".into(), String::new());
    let text = output_of(t, &spec, &Secrets::none()).await?;
    let run = spec.run.run().to_string();
    let expected = [greeting, "", &run, spec.name.as_str(), "1"];
    let came: Vec<&str> = text.lines().collect();
    equal("the variables", &expected.to_vec(), &came)
}

/// What a workload may have anyway: a place in the system, a language, what a shell sets for itself.
const HARMLESS: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "HOSTNAME",
    "TERM",
    "CONTAINER",
];

pub(in super::super) async fn the_work_gets_nothing_of_our_environment(t: &Trial) -> Tried {
    let ours = || {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let all = std::env::vars_os().filter_map(text);
        all.filter(|(name, value)| {
            !value.is_empty() && !HARMLESS.contains(&name.as_str()) && !name.starts_with("LC_")
        })
    };
    if ours().next().is_none() {
        return Err(not_offered("a variable in our own environment"));
    }
    // If it leaks, it may hold our tokens: no failure shows it.
    let (handle, _) = t.run(Script::new().then(Step::Environment)).await?;
    let text = t.text(&handle).await?;
    let whole = text.contains("WORKFLOW_RUN_ID=");
    ensure(whole, "the work's environment", || {
        "one without `WORKFLOW_RUN_ID`".into()
    })?;
    let leaks = |(name, value): &(String, String)| {
        let first_line = value.lines().next().unwrap_or_default();
        let leaked = format!("{name}={first_line}");
        text.lines().any(|line| line == leaked)
    };
    match ours().find(leaks) {
        None => Ok(()),
        Some((name, _)) => ensure(
            false,
            "no variable of ours in the work's environment",
            || format!("`{name}`"),
        ),
    }
}

/// Values that a careless hand breaks or prints.
const VALUES: [(&str, &str); 4] = [
    ("QUOTES", "pa\"ss'w\\o`rd$HOME"),
    ("NEWLINE", "first-line-of-it\nsecond-line-of-it"),
    ("PERCENT", "100%s%n%20-percent"),
    ("UNICODE", "pässwörd-日本-🦀"),
];

pub(in super::super) async fn a_value_in_a_variable_arrives_and_is_masked(t: &Trial) -> Tried {
    let mut script = Script::new();
    let mut values = Secrets::none();
    for (name, value) in VALUES {
        script = script
            .then(Step::VariableSum(name.into()))
            .then(Step::Variable(name.into()));
        values.insert(format!("/contract/{name}"), SecretValue::new(value));
    }
    script = script.then(Step::Variable("URL".into()));
    let mut spec = t.spec(script);
    for (name, _) in VALUES {
        spec.env
            .insert(name.into(), format!("secret:/contract/{name}"));
    }
    let url = "mysql://u:${secret:/contract/PERCENT}@db";
    spec.env.insert("URL".into(), url.into());
    let text = output_of(t, &spec, &values).await?;
    for (name, value) in VALUES {
        arrived(&text, name, value.as_bytes())?;
        masked(&text, name, value)?;
    }
    ensure(
        text.contains("mysql://u:***@db"),
        "the text around a value to stay",
        || shown(&text),
    )
}

pub(in super::super) async fn a_value_in_a_file_arrives_and_is_masked(t: &Trial) -> Tried {
    let binary: Vec<u8> = (0..=255).collect();
    let key = "-----BEGIN KEY-----\nTG9yZW0gaXBzdW0\n-----END KEY-----\n";
    let mut values = Secrets::none();
    values.insert("/contract/binary", SecretValue::new(binary.clone()));
    values.insert("/contract/key", SecretValue::new(key));
    let script = Script::new()
        .then(Step::FileSum("BINARY".into()))
        .then(Step::FileSum("KEY".into()))
        .then(Step::File("KEY".into()));
    let mut spec = t.spec(script);
    spec.files
        .insert("BINARY".into(), "secret:/contract/binary".into());
    spec.files
        .insert("KEY".into(), "secret:/contract/key".into());
    let text = output_of(t, &spec, &values).await?;
    arrived(&text, "BINARY", &binary)?;
    arrived(&text, "KEY", key.as_bytes())?;
    masked(&text, "KEY", "TG9yZW0gaXBzdW0")
}

pub(in super::super) async fn a_value_in_the_config_arrives_and_is_masked(t: &Trial) -> Tried {
    let mut values = Secrets::none();
    let mut config = serde_json::Map::new();
    for (name, value) in VALUES {
        values.insert(format!("/contract/{name}"), SecretValue::new(value));
        config.insert(
            name.into(),
            json!({ "password": format!("secret:/contract/{name}") }),
        );
    }
    let script = Script::new()
        .then(Step::FileSum(WORKFLOW_CONFIG.into()))
        .then(Step::File(WORKFLOW_CONFIG.into()));
    let mut spec = t.spec(script);
    spec.config = Some(config.into());
    let text = output_of(t, &spec, &values).await?;
    let rendered = done("a config", render(&spec, &values, ""))?.config;
    let rendered = rendered.expect("the spec has a config");
    // Only its sum is compared.
    arrived(&text, "the config", rendered.expose())?;
    for (name, value) in VALUES {
        masked(&text, name, value)?;
        let json = json!(value).to_string();
        masked(&text, name, &json[1..json.len() - 1])?;
    }
    Ok(())
}

pub(in super::super) async fn a_value_written_in_pieces_is_masked(t: &Trial) -> Tried {
    let value = "correct-horse-battery-staple";
    let mut values = Secrets::none();
    values.insert("/contract/pieces", SecretValue::new(value));
    let mut spec = t.spec(Script::new().then(Step::VariableInPieces("PIECES".into())));
    spec.env
        .insert("PIECES".into(), "secret:/contract/pieces".into());
    let text = output_of(t, &spec, &values).await?;
    masked(&text, "PIECES", "rect-horse-battery-staple")
}

async fn output_of(t: &Trial, spec: &RunSpec, values: &Secrets) -> Tried<String> {
    let handle = t.start_with(spec, values).await?;
    let outcome = t.end(&handle).await?;
    let text = t.text(&handle).await?;
    ensure(outcome == Outcome::Succeeded, "the work to succeed", || {
        format!("{} after {}", shown(&outcome), shown(&text))
    })?;
    Ok(text)
}

/// Fails unless the work wrote the sum of this value.
fn arrived(text: &str, name: &str, value: &[u8]) -> Tried {
    let sum = cksum(value);
    ensure(
        text.lines().any(|line| line.trim() == sum),
        &format!("the value of {name} to arrive byte for byte (sum `{sum}`)"),
        || shown(&text),
    )
}

/// Fails if the log holds a line of this value. The values of the suite are no secrets, so the message may show the log.
fn masked(text: &str, name: &str, value: &str) -> Tried {
    let leaked = value.lines().find(|line| text.contains(line));
    ensure(
        leaked.is_none() && text.contains("***"),
        &format!("the value of {name} as `***` in the log"),
        || shown(&text),
    )
}
