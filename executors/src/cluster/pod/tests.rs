use hybrid_runner_core::RunId;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::secret::SecretValue;

use super::*;

fn spec() -> RunSpec {
    let run = RunId::generate().attempt(1);
    let mut spec = RunSpec::new(run, "orders".parse().unwrap(), ["run", "$(HOME) $$ $x"]);
    spec.image = Some("image:1".into());
    spec
}

fn restricted() -> PodSettings {
    PodSettings {
        restricted: true,
        ..PodSettings::default()
    }
}

fn planned(spec: &RunSpec, secrets: &Secrets) -> Plan {
    Plan::of(spec, secrets, &restricted(), "the-secret").unwrap()
}

fn variable<'a>(plan: &'a Plan, name: &str) -> &'a Value {
    let env = plan.pod["containers"][0]["env"].as_array().unwrap();
    env.iter().find(|entry| entry["name"] == name).unwrap()
}

#[test]
fn no_value_stands_in_the_pod() {
    let mut secrets = Secrets::none();
    secrets.insert("/p", SecretValue::new("hunter22"));
    let mut spec = spec();
    spec.env.insert("PLAIN".into(), "a$(B)".into());
    spec.env
        .insert("URL".into(), "mysql://u:${secret:/p}@db".into());
    spec.files.insert("KEY".into(), "secret:/p".into());
    spec.config = Some(json!({ "password": "secret:/p" }));
    spec.config_env = Some("CONFIG".into());
    let plan = planned(&spec, &secrets);
    assert!(!plan.pod.to_string().contains("hunter22"));
    assert_eq!(variable(&plan, "PLAIN")["value"], "a$$(B)");
    for secret in ["URL", "CONFIG"] {
        let source = &variable(&plan, secret)["valueFrom"]["secretKeyRef"];
        assert_eq!(source["name"], "the-secret", "{secret}");
    }
    assert_eq!(variable(&plan, "KEY")["value"], "/run/hybrid-runner/KEY");
    let paths = plan.pod["volumes"][0]["secret"]["items"]
        .as_array()
        .unwrap();
    let paths: Vec<&str> = paths
        .iter()
        .map(|item| item["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["config.json", "KEY"]);
}

#[test]
fn without_values_there_is_no_secret_and_words_arrive_as_written() {
    let plan = planned(&spec(), &Secrets::none());
    assert!(plan.delivery.is_none());
    let command = &plan.pod["containers"][0]["command"];
    assert_eq!(*command, json!(["run", "$$(HOME) $$$$ $$x"]));
}

#[test]
fn a_pod_is_restricted_by_default() {
    let plan = planned(&spec(), &Secrets::none());
    assert_eq!(plan.pod["securityContext"]["runAsNonRoot"], true);
    let container = &plan.pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(plan.pod["automountServiceAccountToken"], false);
}

#[test]
fn time_limits_stand_on_the_pod() {
    let mut spec = spec();
    assert!(planned(&spec, &Secrets::none()).pod["activeDeadlineSeconds"].is_null());
    spec.limits.timeout = Duration::from_millis(1500).into();
    spec.limits.start_timeout = Duration::from_secs(10).into();
    spec.limits.grace = Duration::ZERO.into();
    let pod = planned(&spec, &Secrets::none()).pod;
    assert_eq!(pod["activeDeadlineSeconds"], 12);
    assert_eq!(pod["terminationGracePeriodSeconds"], 1);
}

#[test]
fn what_a_pod_cannot_have_is_refused_and_says_how_to_ignore_it() {
    let mut pids = spec();
    pids.resources.limits.pids = Some(10);
    let mut stall = spec();
    stall.limits.stall_timeout = Duration::from_secs(1).into();
    for spec in [pids, stall] {
        let refused = Plan::of(&spec, &Secrets::none(), &restricted(), "s");
        let Err(error) = refused else { panic!() };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("ignore = ["), "{error}");
        let lenient = PodSettings {
            ignore_pids: true,
            ignore_stall: true,
            ..restricted()
        };
        Plan::of(&spec, &Secrets::none(), &lenient, "s").unwrap();
    }
}

#[test]
fn what_the_runner_was_given_for_each_workload_is_secret_and_the_runs_own_wins() {
    let given = |name: &str| (name.to_owned(), SecretValue::new("hunter22"));
    let settings = PodSettings {
        secret_env: vec![given("KEY"), given("OWN")],
        env: vec![("KEY".to_owned(), "of the runner".to_owned())],
        ..restricted()
    };
    let mut spec = spec();
    spec.env.insert("OWN".into(), "own".into());
    let plan = Plan::of(&spec, &Secrets::none(), &settings, "the-secret").unwrap();
    assert!(!plan.pod.to_string().contains("hunter22"));
    let source = &variable(&plan, "KEY")["valueFrom"]["secretKeyRef"];
    assert_eq!(source["name"], "the-secret");
    assert_eq!(variable(&plan, "OWN")["value"], "own");
    let shown = plan.delivery.unwrap().preview();
    assert_eq!(shown["data"], json!({ "env.0": "***", "value.0": "***" }));
}
