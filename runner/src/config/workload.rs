//! What the chart's variables say about workloads, as settings of the executor that they select.

use std::path::Path;

use hybrid_runner_core::unit::{ByteSize, Cpu};
use serde_json::{Value, json};

use super::variables::{Becomes, VARIABLES, Variable};
use super::{Environment, Problem};

/// The least that an executor over a cluster takes as `ttl`: the chart's own default.
const LEAST_TTL: u64 = 7 * 24 * 60 * 60;
/// The container of the work.
const MAIN: &str = "main";
/// The type of pipelines that the chart sets resources for.
const AUTOMATION: &str = "automation";

/// Settings of a section of this kind, each with the variable that says so.
pub(super) fn settings(
    environment: &Environment,
    kind: &str,
) -> Result<Vec<(&'static str, Value)>, Problem> {
    let mut settings: Vec<(&'static str, Value)> = Vec::new();
    // Several variables are about one list, which a later layer would replace as a whole.
    let mut automation: Option<(&'static str, Value)> = None;
    for variable in VARIABLES {
        let Some((name, value)) = variable.find(environment) else {
            continue;
        };
        if variable.becomes != Becomes::Workload {
            continue;
        }
        if let Some((part, amount)) = automation_resource(variable) {
            let value = quantity(amount, value.trim())
                .map_err(|why| Problem::new("", why).written_in(format!("`{name}`")))?;
            let (_, resources) = automation.get_or_insert((name, json!({})));
            resources[part][amount] = value.into();
            continue;
        }
        let setting = setting(variable, kind, value.trim());
        let setting = setting.map_err(|why| Problem::new("", why).written_in(format!("`{name}`")));
        if let Some(setting) = setting? {
            settings.push((name, setting));
        }
    }
    if let Some((name, resources)) = automation.filter(|_| is_cluster(kind)) {
        let said = settings.iter().rev();
        let mut said =
            said.filter_map(|(_, setting)| setting["types"][AUTOMATION]["containers"].as_array());
        let containers = with_resources(said.next().cloned().unwrap_or_default(), resources);
        let types = json!({ AUTOMATION: { "containers": containers } });
        settings.push((name, json!({ "types": types })));
    }
    Ok(settings)
}

/// These containers, that of the work with these resources; where it says some itself, they are its own.
fn with_resources(mut containers: Vec<Value>, resources: Value) -> Vec<Value> {
    match containers.iter_mut().find(|one| one["name"] == MAIN) {
        Some(main) if main["resources"].is_null() => main["resources"] = resources,
        Some(_) => {}
        None => containers.push(json!({ "name": MAIN, "resources": resources })),
    }
    containers
}

fn is_cluster(kind: &str) -> bool {
    matches!(kind, "argo" | "kubernetes")
}

/// What one variable says, if it says something to this kind. Errors never hold the value.
fn setting(variable: &Variable, kind: &str, value: &str) -> Result<Option<Value>, String> {
    if variable.name == "INGESTION_IMAGE" && (kind == "docker" || is_cluster(kind)) {
        return Ok(Some(json!({ "image": value })));
    }
    if !is_cluster(kind) {
        return Ok(None);
    }
    let is_argo = kind == "argo";
    Ok(Some(match variable.name {
        "INGESTION_NAMESPACE" => json!({ "namespace": value }),
        "INGESTION_SERVICE_ACCOUNT_NAME" => json!({ "service_account": value }),
        "INGESTION_IMAGE_PULL_SECRETS" => {
            let names = value.split(',').map(str::trim);
            let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
            json!({ "pull_secrets": names })
        }
        "INGESTION_AUTOMOUNT_SA_TOKEN" => json!({ "mount_token": truth(value)? }),
        "INGESTION_CUSTOMER_TOLERATION" => json!({ "pod": { "tolerations": toleration(value) } }),
        "INGESTION_CPU_LIMIT" => json!({ "resources": { "limits": { "cpu": value } } }),
        "INGESTION_CPU_REQUEST" => json!({ "resources": { "requests": { "cpu": value } } }),
        "INGESTION_MEMORY_LIMIT" => json!({ "resources": { "limits": { "memory": value } } }),
        "INGESTION_MEMORY_REQUEST" => json!({ "resources": { "requests": { "memory": value } } }),
        "ARGO_PIPELINE_TYPE_CONFIGS" if is_argo => json!({ "types": types(value)? }),
        "SIMPLEK8S_PIPELINE_TYPE_CONFIGS" if !is_argo => json!({ "types": types(value)? }),
        "ARGO_INGESTION_CONTAINER_SPEC_FILE_PATH" => {
            let Some(mut container) = partial(Path::new(value))? else {
                return Ok(None);
            };
            container["name"] = MAIN.into();
            json!({ "pod": { "containers": [container] } })
        }
        "ARGO_INGESTION_WORKFLOW_SPEC_FILE_PATH" => match partial(Path::new(value))? {
            // The chart calls it so without Argo, too: what its examples hold is of the pod then.
            Some(spec) if is_argo => json!({ "template": { "spec": spec } }),
            Some(spec) => json!({ "pod": spec }),
            None => return Ok(None),
        },
        "ARGO_SECONDS_AFTER_COMPLETION_TTL" => {
            let seconds: u64 = value
                .parse()
                .map_err(|_| "it is no number of seconds".to_owned())?;
            json!({ "ttl": format!("{}s", seconds.max(LEAST_TTL)) })
        }
        // Its value stays where it is.
        "ARGO_TOKEN" if is_argo => json!({ "token_env": variable.name }),
        _ => return Ok(None),
    }))
}

fn automation_resource(variable: &Variable) -> Option<(&'static str, &'static str)> {
    let resource = variable
        .name
        .strip_prefix("INGESTION_AUTOMATION_WORKFLOW_")?;
    match resource {
        "CPU_LIMIT" => Some(("limits", "cpu")),
        "CPU_REQUEST" => Some(("requests", "cpu")),
        "MEMORY_LIMIT" => Some(("limits", "memory")),
        "MEMORY_REQUEST" => Some(("requests", "memory")),
        _ => None,
    }
}

/// As Kubernetes writes an amount of this.
fn quantity(amount: &str, value: &str) -> Result<String, String> {
    let written = if amount == "cpu" {
        let cpu: Result<Cpu, _> = value.parse();
        cpu.map(|cpu| format!("{}m", cpu.millis()))
    } else {
        let size: Result<ByteSize, _> = value.parse();
        size.map(|size| size.get().to_string())
    };
    written.map_err(|error| error.message().to_owned())
}

fn truth(value: &str) -> Result<bool, String> {
    match value.to_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

/// One or several as JSON; else the key of a taint, whatever its value.
fn toleration(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(Value::Array(all)) => all.into(),
        Ok(Value::Object(one)) => json!([one]),
        _ => json!([{ "key": value, "operator": "Exists" }]),
    }
}

/// Settings by type: an object of objects.
fn types(value: &str) -> Result<Value, String> {
    let types: Option<Value> = serde_json::from_str(value).ok();
    types
        .filter(|types| {
            let members = types.as_object();
            members.is_some_and(|members| members.values().all(Value::is_object))
        })
        .ok_or_else(|| {
            "expected JSON like `{\"automation\": {\"priorityClassName\": \"high\"}}`".to_owned()
        })
}

/// A partial object in a file; nothing if that is empty.
fn partial(path: &Path) -> Result<Option<Value>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    let read: Result<Option<Value>, _> = serde_saphyr::from_str(&text);
    match read {
        Ok(None | Some(Value::Null)) => Ok(None),
        Ok(Some(Value::Object(members))) => Ok(Some(members.into())),
        Ok(Some(_)) => Err(format!("`{shown}` is no YAML of members and values")),
        // Its words may show a line, and that a value.
        Err(_) => Err(format!("`{shown}` is not valid YAML")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, variables: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let settings = settings(&environment, kind).map_err(|problem| problem.to_string())?;
        Ok(settings.into_iter().map(|(_, setting)| setting).collect())
    }

    #[test]
    fn each_variable_becomes_a_setting_of_its_kind() {
        for (name, value, setting) in [
            ("ARGO_INGESTION_IMAGE", "i:1", json!({ "image": "i:1" })),
            ("ARGO_NAMESPACE", "n", json!({ "namespace": "n" })),
            (
                "INGESTION_IMAGE_PULL_SECRETS",
                "a, b,",
                json!({ "pull_secrets": ["a", "b"] }),
            ),
            (
                "INGESTION_AUTOMOUNT_SA_TOKEN",
                "False",
                json!({ "mount_token": false }),
            ),
            (
                "ARGO_WORKFLOW_CPU_LIMIT",
                "1000m",
                json!({ "resources": { "limits": { "cpu": "1000m" } } }),
            ),
            (
                "ARGO_SECONDS_AFTER_COMPLETION_TTL",
                "60",
                json!({ "ttl": "604800s" }),
            ),
            (
                "ARGO_SECONDS_AFTER_COMPLETION_TTL",
                "2419200",
                json!({ "ttl": "2419200s" }),
            ),
            (
                "ARGO_TOKEN",
                "hunter2",
                json!({ "token_env": "ARGO_TOKEN" }),
            ),
            (
                "INGESTION_CUSTOMER_TOLERATION",
                "batch",
                json!({ "pod": { "tolerations": [{ "key": "batch", "operator": "Exists" }] } }),
            ),
            (
                "ARGO_PIPELINE_TYPE_CONFIGS",
                r#"{"automation":{"priorityClassName":"high"}}"#,
                json!({ "types": { "automation": { "priorityClassName": "high" } } }),
            ),
        ] {
            assert_eq!(of("argo", &[(name, value)]).unwrap(), [setting], "{name}");
        }
        assert_eq!(
            of("local", &[("INGESTION_IMAGE", "i")]).unwrap(),
            Vec::<Value>::new()
        );
        let simple = [
            ("SIMPLEK8S_PIPELINE_TYPE_CONFIGS", "{}"),
            ("ARGO_TOKEN", "x"),
            ("ARGO_PIPELINE_TYPE_CONFIGS", "{}"),
        ];
        assert_eq!(of("kubernetes", &simple).unwrap(), [json!({ "types": {} })]);
    }

    #[test]
    fn the_resources_of_automations_are_one_setting() {
        let all = [
            ("INGESTION_AUTOMATION_WORKFLOW_CPU_LIMIT", "500m"),
            ("ARGO_AUTOMATION_WORKFLOW_MEMORY_REQUEST", "256Mi"),
        ];
        let resources =
            json!({ "limits": { "cpu": "500m" }, "requests": { "memory": "268435456" } });
        let main = json!({ "name": "main", "resources": resources });
        let expected = json!({ "types": { "automation": { "containers": [main] } } });
        assert_eq!(of("argo", &all).unwrap(), [expected]);
    }

    #[test]
    fn files_of_the_chart_are_merged_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let container = write("container.yaml", "env:\n- {name: A, value: b}\n");
        let spec = write("spec.yaml", "tolerations:\n- {operator: Exists}\n");
        let empty = write("empty.yaml", "# nothing\n");
        let (of_container, of_spec) = (
            "ARGO_INGESTION_CONTAINER_SPEC_FILE_PATH",
            "ARGO_INGESTION_WORKFLOW_SPEC_FILE_PATH",
        );
        let both = [(of_container, container.as_str()), (of_spec, &spec)];
        let main = json!({ "name": "main", "env": [{ "name": "A", "value": "b" }] });
        let tolerations = json!({ "tolerations": [{ "operator": "Exists" }] });
        let first = json!({ "pod": { "containers": [main] } });
        let argo = [
            first.clone(),
            json!({ "template": { "spec": tolerations } }),
        ];
        assert_eq!(of("argo", &both).unwrap(), argo);
        assert_eq!(
            of("kubernetes", &both).unwrap(),
            [first, json!({ "pod": tolerations })]
        );
        assert_eq!(
            of("argo", &[(of_container, &empty)]).unwrap(),
            Vec::<Value>::new()
        );
        let error = of("argo", &[(of_spec, "/no/such")]).unwrap_err();
        assert!(
            error.contains(of_spec) && error.contains("/no/such"),
            "{error}"
        );
    }

    #[test]
    fn resources_of_automations_leave_what_else_is_said_of_their_container() {
        let more =
            r#"{"automation": {"containers": [{"name": "main", "env": []}, {"name": "side"}]}}"#;
        let variables = [
            ("ARGO_PIPELINE_TYPE_CONFIGS", more),
            ("INGESTION_AUTOMATION_WORKFLOW_CPU_LIMIT", "500m"),
        ];
        let settings = of("argo", &variables).unwrap();
        let containers = &settings.last().unwrap()["types"]["automation"]["containers"];
        let main =
            json!({ "name": "main", "env": [], "resources": { "limits": { "cpu": "500m" } } });
        assert_eq!(*containers, json!([main, { "name": "side" }]));
    }

    #[test]
    fn what_is_wrong_names_the_variable_and_no_value() {
        for name in [
            "INGESTION_AUTOMOUNT_SA_TOKEN",
            "ARGO_PIPELINE_TYPE_CONFIGS",
            "ARGO_SECONDS_AFTER_COMPLETION_TTL",
        ] {
            let error = of("argo", &[(name, "hunter2")]).unwrap_err();
            assert!(
                error.contains(name) && !error.contains("hunter2"),
                "{error}"
            );
        }
        for name in [
            "INGESTION_AUTOMATION_WORKFLOW_CPU_LIMIT",
            "ARGO_AUTOMATION_WORKFLOW_MEMORY_REQUEST",
        ] {
            let error = of("argo", &[(name, "lots")]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
