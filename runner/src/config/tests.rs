//! Precedence, the seed's and the chart's variables, and every error in words.

#[cfg(feature = "local")]
use std::fmt::Write as _;
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::*;

const MINIMAL: &str = "[executors.here]\nkind = \"local\"\n";

/// A machine with one file and some variables.
struct Machine {
    dir: tempfile::TempDir,
    inputs: Inputs,
}

impl Machine {
    fn new(file: &str, variables: &[(&str, &str)]) -> Self {
        Self::with("config.toml", file, variables)
    }

    fn with(name: &str, file: &str, variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, file).unwrap();
        let inputs = Inputs {
            file: Some(path),
            environment: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Inputs::default()
        };
        Self { dir, inputs }
    }

    fn load(&self) -> Loaded {
        load(&self.inputs).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The error, with the folder of this test left out.
    fn error(&self) -> String {
        let error = match load(&self.inputs) {
            Err(error) => error.to_string(),
            Ok(loaded) => {
                let owner = hybrid_runner_core::id::Owner::of("", &"a".parse().unwrap());
                match loaded.config.build(Path::new("/nowhere"), &owner) {
                    Err(error) => error.to_string(),
                    Ok(_) => "no error".to_owned(),
                }
            }
        };
        error.replace(&self.dir.path().display().to_string(), "DIR")
    }
}

fn token(loaded: &Loaded) -> String {
    match loaded.config.link.token.as_ref().unwrap() {
        TokenSource::Value(value) => value.expose_secret().to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn later_layers_win_and_each_value_knows_its_origin() {
    let file = "[runner]\nid = 'file'\nmax_runs = 2\ndrain = '1s'\nspool.per_run = '1MiB'\n";
    let mut machine = Machine::new(
        file,
        &[
            ("AGENT_ID", "seed"),
            ("HYBRID_RUNNER__RUNNER__ID", "ours"),
            ("HYBRID_RUNNER__RUNNER__MAX_RUNS", "3"),
        ],
    );
    machine
        .inputs
        .flags
        .push(("--listen", "runner.listen", "127.0.0.1:1".into()));
    let loaded = machine.load();
    let runner = &loaded.config.runner;
    assert_eq!(runner.id.as_ref().unwrap().as_str(), "ours");
    assert_eq!(runner.max_runs, 3);
    assert_eq!(runner.drain.as_secs(), 1);
    assert_eq!(runner.listen.unwrap().port(), 1);
    assert_eq!(runner.spool.total.to_string(), "10GiB");
    let from = |key: &str| {
        let shown = loaded.show();
        let one = shown.iter().find(|shown| shown.key == key).unwrap();
        one.source
            .replace(&machine.dir.path().display().to_string(), "DIR")
    };
    assert_eq!(from("runner.id"), "`HYBRID_RUNNER__RUNNER__ID`");
    assert_eq!(from("runner.drain"), "DIR/config.toml");
    assert_eq!(from("runner.spool.per_run"), "DIR/config.toml");
    assert_eq!(from("runner.spool.total"), "default");
    assert_eq!(from("runner.listen"), "`--listen`");
}

#[test]
fn strings_out_of_variables_stay_strings() {
    let machine = Machine::new(
        MINIMAL,
        &[
            ("AUTH_TOKEN", "00123"),
            ("HYBRID_RUNNER__RUNNER__ID", "007"),
            ("HYBRID_RUNNER__LINK__INSECURE", "true"),
            ("HYBRID_RUNNER__POLICY__IMAGES", "a/*, b"),
        ],
    );
    let loaded = machine.load();
    assert_eq!(token(&loaded), "00123");
    assert_eq!(loaded.config.runner.id.unwrap().as_str(), "007");
    assert_eq!(loaded.config.policy.images.unwrap().0, ["a/*", "b"]);
}

#[test]
fn a_token_has_the_source_of_the_highest_layer_alone() {
    let file = "[link]\ntoken = { file = '/a' }\n";
    let of = |variables: &[(&str, &str)]| token(&Machine::new(file, variables).load());
    assert_eq!(of(&[]), "File(\"/a\")");
    assert_eq!(of(&[("AUTH_TOKEN", "x")]), "x");
    assert_eq!(
        of(&[
            ("AUTH_TOKEN", "x"),
            ("HYBRID_RUNNER__LINK__TOKEN__ENV", "E")
        ]),
        "Env(\"E\")"
    );
    assert_eq!(of(&[("HYBRID_RUNNER__LINK__TOKEN", "00123")]), "00123");
}

#[test]
fn the_seeds_five_variables_are_honoured() {
    let machine = Machine::new(
        MINIMAL,
        &[
            ("AGENT_ID", "WestEu1Runner"),
            ("AUTH_TOKEN", "jwt"),
            ("SERVER_URL", "wss://acme.example.com"),
            ("ARGO_INGESTION_IMAGE", "img:1"),
            ("ARGO_EXTRA_ENVS_NOOP", "[REGION:eu-west-1, KEY:hunter2:x]"),
        ],
    );
    let loaded = machine.load();
    let config = &loaded.config;
    assert_eq!(config.runner.id.as_ref().unwrap().as_str(), "WestEu1Runner");
    assert_eq!(
        config.link.url.as_ref().unwrap().to_string(),
        "wss://acme.example.com/api/v1/link"
    );
    assert_eq!(token(&loaded), "jwt");
    assert_eq!(
        config.workload.settings["INGESTION_IMAGE"].expose_secret(),
        "img:1"
    );
    assert_eq!(config.workload.extra_envs[1].0, "KEY");
    assert_eq!(config.workload.extra_envs[1].1.expose_secret(), "hunter2:x");
    let shown = format!(
        "{:?} {:?} {:?}",
        loaded.show(),
        config,
        env(&machine.inputs.environment)
    );
    assert!(
        !shown.contains("hunter2") && !shown.contains("jwt"),
        "{shown}"
    );
}

#[test]
fn variables_of_the_chart_select_what_the_chart_takes_for_granted() {
    let of = |variables: &[(&str, &str)]| Machine::new("", variables).load().config;
    let seed = of(&[
        ("AGENT_ID", "a"),
        ("AUTH_TOKEN", "t"),
        ("SERVER_URL", "wss://h"),
    ]);
    assert!(seed.executors.is_empty());
    assert_eq!(seed.runner.resolve, Resolve::Runner);

    let chart = of(&[("INGESTION_NAMESPACE", "ns")]);
    assert_eq!(chart.runner.executor.unwrap().as_str(), "argo");
    assert_eq!(chart.runner.resolve, Resolve::Workload);
    assert_eq!(chart.runner.listen.unwrap().to_string(), "0.0.0.0:8989");
    assert!(chart.implied_executor);

    let simple = of(&[
        ("INGESTION_NAMESPACE", "ns"),
        ("EXECUTOR_TYPE", "simpleK8s"),
    ]);
    assert_eq!(
        simple.executors[&"kubernetes".parse().unwrap()].kind,
        "kubernetes"
    );
    assert!(!simple.implied_executor);

    let local = of(&[("EXECUTOR_TYPE", "LOCAL")]);
    assert_eq!(local.runner.executor.unwrap().as_str(), "local");
}

/// What the seed's documentation sets, and nothing else.
const SEED: [(&str, &str); 5] = [
    ("AGENT_ID", "WestEu1Runner"),
    ("AUTH_TOKEN", "jwt"),
    ("SERVER_URL", "wss://acme.example.com"),
    ("ARGO_INGESTION_IMAGE", "img:1"),
    ("ARGO_EXTRA_ENVS_NOOP", "[AWS_SECRET_ACCESS_KEY:hunter2]"),
];

#[test]
fn the_seeds_five_variables_alone_make_a_runner_with_argo() {
    let loaded = Machine::new("", &SEED).load();
    let section = &loaded.config.executors[&"argo".parse().unwrap()];
    assert_eq!(section.kind, "argo");
    let settings =
        serde_json::json!({ "image": "img:1", "mount_token": true, "restricted": false });
    assert_eq!(
        serde_json::Value::Object(section.settings.clone()),
        settings
    );
    let (name, value) = &loaded.config.workload.env()[0];
    assert_eq!(name, "AWS_SECRET_ACCESS_KEY");
    assert_eq!(value.expose_text().unwrap(), "hunter2");
    let shown = format!("{:?} {:?}", loaded.show(), loaded.config);
    assert!(!shown.contains("hunter2"), "{shown}");
    #[cfg(feature = "argo")]
    {
        let owner = hybrid_runner_core::id::Owner::of("test", &"a".parse().unwrap());
        let built = loaded.config.build(Path::new("/nowhere"), &owner).unwrap();
        assert_eq!(built.default_executor.unwrap().as_str(), "argo");
    }
}

#[test]
fn what_the_chart_says_of_pods_can_be_said_otherwise() {
    let mut variables = SEED.to_vec();
    variables.extend([
        ("INGESTION_SERVICE_ACCOUNT_NAME", "ingestion"),
        ("INGESTION_CPU_LIMIT", "1000m"),
        ("HYBRID_RUNNER__EXECUTORS__ARGO__RESTRICTED", "true"),
        ("HYBRID_RUNNER__EXECUTORS__ARGO__IMAGE", "img:2"),
    ]);
    let loaded = Machine::new("", &variables).load();
    let settings = &loaded.config.executors[&"argo".parse().unwrap()].settings;
    assert_eq!(settings["service_account"], "ingestion");
    assert_eq!(settings["resources"]["limits"]["cpu"], "1000m");
    assert_eq!(
        (&settings["restricted"], &settings["image"]),
        (&"true".into(), &"img:2".into())
    );
    let shown = loaded.show().into_iter();
    let source = |key: &str| {
        let mut shown = shown.clone();
        shown.find(|shown| shown.key == key).unwrap().source
    };
    assert_eq!(
        source("executors.argo.service_account"),
        "`INGESTION_SERVICE_ACCOUNT_NAME`"
    );
    assert!(source("executors.argo.mount_token").starts_with("default under "));
}

#[test]
fn old_names_of_variables_count_and_new_ones_win() {
    let of = |variables: &[(&str, &str)]| {
        let config = Machine::new(MINIMAL, variables).load().config;
        config.workload.settings["INGESTION_NAMESPACE"]
            .expose_secret()
            .to_owned()
    };
    assert_eq!(of(&[("ARGO_NAMESPACE", "old")]), "old");
    assert_eq!(
        of(&[("ARGO_NAMESPACE", "old"), ("INGESTION_NAMESPACE", "new")]),
        "new"
    );
    assert_eq!(
        of(&[("ARGO_NAMESPACE", "old"), ("INGESTION_NAMESPACE", "")]),
        "old"
    );
}

#[test]
#[cfg(feature = "local")]
fn numbers_out_of_variables_reach_a_backends_own_settings() {
    // The local executor has no number of its own to set: an unknown key shows that the section is read.
    let machine = Machine::new(
        MINIMAL,
        &[("HYBRID_RUNNER__EXECUTORS__HERE__NO_SUCH_KEY", "1")],
    );
    let error = machine.error();
    assert!(
        error.contains("`HYBRID_RUNNER__EXECUTORS__HERE__NO_SUCH_KEY`: [executors.here]"),
        "{error}"
    );
}

#[test]
#[cfg(feature = "argo")]
fn a_variable_of_the_chart_is_blamed_for_its_own_value() {
    for (name, value, key) in [
        ("INGESTION_CPU_LIMIT", "lots", "resources.limits.cpu"),
        ("INGESTION_NAMESPACE", "Bad_NS", "namespace"),
    ] {
        let mut variables = SEED.to_vec();
        variables.push((name, value));
        let error = Machine::new("", &variables).error();
        let told = format!("`{name}`: [executors.argo]: key `{key}`: ");
        assert!(error.contains(&told), "{error}");
    }
}

#[test]
fn a_link_url_is_completed_and_checked() {
    let of = |url: &str| url.parse::<LinkUrl>().map(|url| url.to_string());
    for (url, expected) in [
        ("wss://host", "wss://host/api/v1/link"),
        ("wss://host/", "wss://host/api/v1/link"),
        ("wss://host:8443/x?y=1", "wss://host:8443/x?y=1"),
        ("https://host", "wss://host/api/v1/link"),
        ("http://[::1]:80", "ws://[::1]/api/v1/link"),
    ] {
        assert_eq!(of(url).unwrap(), expected);
    }
    for wrong in [
        "",
        "host",
        "host:443",
        "ftp://host",
        "wss://",
        "wss://user:pw@host",
    ] {
        let error = of(wrong).unwrap_err();
        assert!(!error.contains("pw"), "{error}");
    }
    let v6: LinkUrl = "ws://[::1]:9".parse().unwrap();
    assert_eq!((v6.host(), v6.port(), v6.is_loopback()), ("::1", 9, true));
}

#[test]
fn files_are_found_in_their_usual_places() {
    let home = tempfile::tempdir().unwrap();
    let write = |path: &str, id: &str| {
        let path = home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("runner: {{ id: {id} }}")).unwrap();
        path
    };
    let mut inputs = Inputs {
        environment: Environment::from([("HOME".into(), home.path().to_str().unwrap().into())]),
        system: Some(home.path().join("etc")),
        ..Inputs::default()
    };
    let id = |inputs: &Inputs| {
        load(inputs)
            .unwrap()
            .config
            .runner
            .id
            .map(|id| id.to_string())
    };
    assert_eq!(id(&inputs), None);
    write("etc/config.yml", "etc");
    assert_eq!(id(&inputs).unwrap(), "etc");
    write(".config/hybrid-runner/config.yaml", "home");
    assert_eq!(id(&inputs).unwrap(), "home");
    let named = write("named.yaml", "named");
    inputs.environment.insert(
        "HYBRID_RUNNER_CONFIG".into(),
        named.to_str().unwrap().into(),
    );
    assert_eq!(id(&inputs).unwrap(), "named");
    inputs.file = Some(write("flag.yaml", "flag"));
    assert_eq!(id(&inputs).unwrap(), "flag");
}

#[test]
fn a_runner_that_can_write_nowhere_keeps_its_state_in_memory_and_says_so() {
    let memory = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(MINIMAL, &[]);
    // Below a file, nobody can make a folder.
    let nowhere = machine.inputs.file.clone().unwrap().join("state");
    let variable = "XDG_STATE_HOME".to_owned();
    let nowhere = nowhere.to_str().unwrap().to_owned();
    machine.inputs.environment.insert(variable.clone(), nowhere);
    machine.inputs.memory = Some(memory.path().to_owned());
    let loaded = machine.load();
    let in_memory = memory.path().join("hybrid-runner");
    assert_eq!(loaded.config.runner.data_dir, in_memory);
    assert!(
        loaded.warnings[0].contains("cannot be written"),
        "{:?}",
        loaded.warnings
    );
    assert!(!loaded.config.server.data_dir.starts_with(memory.path()));

    let somewhere = machine.dir.path().to_str().unwrap().to_owned();
    machine.inputs.environment.insert(variable, somewhere);
    let loaded = machine.load();
    assert!(
        loaded
            .config
            .runner
            .data_dir
            .starts_with(machine.dir.path())
    );
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn each_example_can_be_used() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/config");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let inputs = Inputs {
            file: Some(entry.unwrap().path()),
            ..Inputs::default()
        };
        let loaded = load(&inputs).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, Vec::<String>::new());
        seen += 1;
    }
    assert!(seen >= 3);
}

#[cfg(any(feature = "argo", feature = "kubernetes"))]
#[test]
fn the_cluster_of_the_example_is_built_and_not_reached() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/config");
    let names = [
        #[cfg(feature = "argo")]
        "argo.toml",
        #[cfg(feature = "kubernetes")]
        "kubernetes.toml",
    ];
    for name in names {
        let inputs = Inputs {
            file: Some(folder.join(name)),
            ..Inputs::default()
        };
        let config = load(&inputs).unwrap().config;
        let owner = hybrid_runner_core::id::Owner::of("test", &"a".parse().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let built = config.build(dir.path(), &owner);
        built.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn what_stores_keep_to_themselves_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let text = r#"
[secrets.v]
kind = "vault"
address = "https://v"
proxy = "http://u:hunter2@p:1"
auth = { method = "token", token = { value = "hunter2" } }
[secrets.a]
kind = "aws"
access_key = { id = "AKIA", secret_key = "hunter2", session_token = "hunter2" }
[secrets.z]
kind = "azure"
client_secret = "hunter2"
[secrets.slips]
kind = "vault"
address = "https://me:hunter2@h"
addresses = ["https://hunter2@h/a?b=c", "no address"]
auth = "hunter2"
access_key = "AKIB:hunter2"
api_token = "hunter2"
token_file = "/run/token"
access = "hunter2"
env = { PASSWORD = "hunter2" }
[executors.slips]
kind = "command"
env = { PASSWORD = "hunter2", MORE = { PASSWORD = "hunter2" } }
"#;
    std::fs::write(&path, text).unwrap();
    let inputs = Inputs {
        file: Some(path),
        ..Inputs::default()
    };
    let shown = load(&inputs).unwrap().show();
    let shown: Vec<String> = shown.iter().map(ToString::to_string).collect();
    let shown = shown.join("\n");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("AKIA") && shown.contains("https://v"),
        "{shown}"
    );
    let address = "https://me:***@h";
    let addresses = r#"["https://***@h/a?b=c","no address"]"#;
    assert!(
        shown.contains(address) && shown.contains(addresses) && shown.contains("/run/token"),
        "{shown}"
    );
}

#[test]
fn toml_and_yaml_say_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/config");
    let of = |name: &str| {
        let inputs = Inputs {
            file: Some(folder.join(name)),
            ..Inputs::default()
        };
        let shown = load(&inputs).unwrap().show();
        shown
            .into_iter()
            .map(|shown| (shown.key, shown.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("local.toml"), of("local.yaml"));
}

#[test]
fn yaml_scalars_are_taken_as_written() {
    let machine = Machine::with(
        "config.yaml",
        "runner: { id: 0123 }\nlink: { token: no, insecure: true }\n",
        &[],
    );
    let loaded = machine.load();
    assert_eq!(loaded.config.runner.id.as_ref().unwrap().as_str(), "0123");
    assert_eq!(token(&loaded), "no");
    assert!(
        loaded.warnings[0].contains("stands in the file itself"),
        "{:?}",
        loaded.warnings
    );
}

/// Every error text in one place: read it as a user would.
#[test]
#[cfg(feature = "local")]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_error_says_where_what_and_what_to_do() {
    let file = |text: &str| Machine::new(text, &[]);
    let variable = |name: &str, value: &str| Machine::new(MINIMAL, &[(name, value)]);
    let cases = [
        ("unknown section", file("[lnk]\nurl = 'x'")),
        ("unknown key", file("[runner]\nmax_run = 3")),
        (
            "unknown key, nothing near",
            file("[runner]\ncolour = 'red'"),
        ),
        (
            "unknown key in a nested table",
            file("[runner.spool]\ntotl = '1GiB'"),
        ),
        (
            "unknown key in a variable",
            variable("HYBRID_RUNNER__LINK__ULR", "wss://h"),
        ),
        (
            "unknown section in a variable",
            variable("HYBRID_RUNNER__RUNER__ID", "x"),
        ),
        ("wrong type", file("[runner]\nmax_runs = 'many'")),
        (
            "wrong type in a variable",
            variable("HYBRID_RUNNER__RUNNER__MAX_RUNS", "many"),
        ),
        (
            "a value where a table belongs",
            variable("HYBRID_RUNNER__RUNNER", "x"),
        ),
        (
            "a value where the sections belong",
            file("executors = 'docker'"),
        ),
        ("negative number", file("[runner]\nmax_runs = -1")),
        ("no runs at all", file("[runner]\nmax_runs = 0")),
        ("duration without unit", file("[runner]\ndrain = '30'")),
        ("duration as a number", file("[runner]\ndrain = 30")),
        (
            "size without sense",
            file("[runner.spool]\nper_run = 'big'"),
        ),
        (
            "one run larger than all",
            file("[runner.spool]\nper_run = '11GiB'"),
        ),
        ("unknown word", file("[runner]\nresolve = 'workloads'")),
        ("wrong level", file("[runner.log]\nlevel = 'loud=very'")),
        ("wrong address", file("[runner]\nlisten = 'everywhere'")),
        ("wrong id", variable("AGENT_ID", "not an id")),
        ("wrong url", variable("SERVER_URL", "runners.example.com")),
        (
            "plain url to elsewhere",
            variable("SERVER_URL", "ws://runners.example.com"),
        ),
        (
            "wrong proxy",
            variable("HYBRID_RUNNER__LINK__PROXY", "https://user:hunter2@proxy"),
        ),
        (
            "two sources of a token",
            file("[link]\ntoken = { file = '/a', env = 'B' }"),
        ),
        ("no source of a token", file("[link]\ntoken = {}")),
        (
            "unknown source of a token",
            file("[link]\ntoken = { path = '/a' }"),
        ),
        ("token of a wrong type", file("[link]\ntoken = 1234567")),
        (
            "token with a space",
            variable("AUTH_TOKEN", "hunter2 hunter2"),
        ),
        (
            "wrong reference of a token",
            file("[link]\ntoken = { secret = 'secret:' }"),
        ),
        (
            "certificate without key",
            file("[link]\nclient_cert = 'a.pem'"),
        ),
        (
            "executor that is not there",
            file("[runner]\nexecutor = 'her'\n[executors.here]\nkind = 'local'"),
        ),
        (
            "store that is not there",
            file("[runner]\nsecrets = 'prod'"),
        ),
        (
            "section without kind",
            file("[executors.here]\nimage = 'x'"),
        ),
        (
            "kind that is not in this build",
            file("[executors.here]\nkind = 'argo'"),
        ),
        ("kind with a slip", file("[secrets.here]\nkind = 'fil'")),
        (
            "wrong setting of a backend",
            file("[secrets.here]\nkind = 'env'\nprefx = 'A_'"),
        ),
        (
            "wrong name of a section",
            file("[executors.'a b']\nkind = 'local'"),
        ),
        (
            "unknown executor in a variable",
            variable("EXECUTOR_TYPE", "simplek8"),
        ),
        (
            "wrong extra variables",
            variable("ARGO_EXTRA_ENVS_NOOP", "[hunter2]"),
        ),
        (
            "plain server outside of loopback",
            file("[server]\nlisten = '0.0.0.0:8443'"),
        ),
        (
            "several at once",
            file("[runner]\nmax_runs = 0\nlisten = 'x'\n[link]\nurl = 'y'"),
        ),
        ("broken TOML", file("[link]\ntoken = 'hunter2\n")),
        (
            "broken YAML",
            Machine::with("config.yaml", "link:\n  token: [hunter2\n", &[]),
        ),
        (
            "twice in YAML",
            Machine::with("config.yaml", "link: {}\nlink: {}\n", &[]),
        ),
        (
            "a list in YAML",
            Machine::with("config.yaml", "- a\n- b\n", &[]),
        ),
        ("unknown format", Machine::with("config.ini", "", &[])),
    ];
    let mut all = String::new();
    for (name, machine) in cases {
        let error = machine.error();
        assert!(!error.contains("hunter2"), "{error}");
        writeln!(all, "## {name}\n{error}\n").unwrap();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_named_file_must_exist() {
    let mut machine = Machine::new("", &[]);
    machine.inputs.file = Some(machine.dir.path().join("gone.toml"));
    assert!(
        machine
            .error()
            .contains("`--config`: `DIR/gone.toml` does not exist"),
        "{}",
        machine.error()
    );
}

#[test]
fn what_config_show_prints_holds_no_secret() {
    let machine = Machine::new(
        MINIMAL,
        &[
            ("AUTH_TOKEN", "hunter2"),
            ("HYBRID_RUNNER__LINK__PROXY", "http://u:hunter2@p:1"),
        ],
    );
    let shown: Vec<String> = machine
        .load()
        .show()
        .iter()
        .map(ToString::to_string)
        .collect();
    let text = shown.join("\n");
    assert!(
        text.contains("link.token = \"***\"  # `AUTH_TOKEN`"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn the_schema_describes_the_examples() {
    let schema = schema(&Kinds::default());
    assert!(schema["properties"]["link"].is_object());
    let kinds = &schema["properties"]["secrets"]["additionalProperties"]["oneOf"];
    assert_eq!(kinds[0]["properties"]["kind"]["const"], "env");
    // Nothing is required of a section; a kind may well need something, as a plugin its command.
    for (name, section) in schema["properties"].as_object().unwrap() {
        let is_table = name == "executors" || name == "secrets";
        assert!(
            is_table || !section.to_string().contains("\"required\""),
            "{name}"
        );
    }
}

#[test]
fn every_reference_of_the_schema_leads_somewhere() {
    let schema = schema(&Kinds::default());
    let text = schema.to_string();
    let references = text.split("\"$ref\":\"#").skip(1);
    let mut seen = 0;
    for place in references.filter_map(|rest| rest.split('"').next()) {
        assert!(schema.pointer(place).is_some(), "{place}");
        seen += 1;
    }
    assert!(seen > 0);
}
