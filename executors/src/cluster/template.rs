//! A partial object of the section, merged into the object that we make.
//!
//! As a JSON merge patch (RFC 7386): members are merged, `null` removes, anything else replaces. But lists of things that have
//! a `name` (containers, volumes) are merged by it, so that a template can add one without repeating ours; mounts by their path, since
//! one volume may have several. A variable, a volume or a mount takes the place of the one before as a whole: each is of one of several kinds.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Lists whose things are not merged with the one of the same key, but take its place.
const WHOLE: [&str; 4] = ["env", "volumeDevices", "volumeMounts", "volumes"];

/// Merges the template into the object.
pub(crate) fn merge(object: &mut Value, template: &Value) {
    merge_member("", object, template);
}

fn merge_member(member: &str, object: &mut Value, template: &Value) {
    let key = match member {
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        _ => "name",
    };
    match (object, template) {
        (Value::Object(into), Value::Object(members)) => {
            for (name, member) in members {
                if member.is_null() {
                    into.remove(name);
                } else {
                    let into = into.entry(name.clone()).or_insert(Value::Null);
                    merge_member(name, into, member);
                }
            }
        }
        (Value::Array(into), Value::Array(items)) if have(key, into) && have(key, items) => {
            for item in items {
                let same = into.iter_mut().find(|have| have[key] == item[key]);
                match same {
                    Some(have) if WHOLE.contains(&member) => *have = without_nulls(item),
                    Some(have) => merge_member("", have, item),
                    None => into.push(without_nulls(item)),
                }
            }
        }
        (object, template) => *object = without_nulls(template),
    }
}

/// The first member of a template that an object of this type does not have, or has as something else.
pub(crate) fn unread<T: DeserializeOwned + Serialize>(template: &Value) -> Option<String> {
    let template = without_nulls(template);
    template.as_object()?.iter().find_map(|(name, member)| {
        let alone = json!({ name: member });
        match serde_json::from_value::<T>(alone.clone()) {
            Ok(read) => lost(&alone, &serde_json::to_value(read).ok()?),
            Err(_) => Some(name.clone()),
        }
    })
}

/// The first amount of a resource in a partial pod that is no quantity of Kubernetes: where it stands.
pub(crate) fn wrong_amount(pod: &Value) -> Option<String> {
    for list in ["containers", "initContainers"] {
        let containers = pod[list].as_array().into_iter().flatten();
        for (at, container) in containers.enumerate() {
            let at = match container["name"].as_str() {
                Some(name) => name.to_owned(),
                None => at.to_string(),
            };
            for part in ["limits", "requests"] {
                let amounts = container["resources"][part].as_object();
                let mut amounts = amounts.into_iter().flatten();
                let wrong = amounts.find(|(_, amount)| !is_quantity(amount));
                if let Some((name, _)) = wrong {
                    return Some(format!("{list}.{at}.resources.{part}.{name}"));
                }
            }
        }
    }
    None
}

/// A number, perhaps with a unit: `500m`, `1Gi`, `1e3`.
fn is_quantity(amount: &Value) -> bool {
    const UNITS: [&str; 16] = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let Some(text) = amount.as_str() else {
        return amount.is_number() || amount.is_null();
    };
    let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-');
    let end = text.find(|c| !is_of_number(c)).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    let exponent = || {
        unit.strip_prefix(['e', 'E'])
            .is_some_and(|power| power.parse::<i32>().is_ok())
    };
    is_number(number) && (UNITS.contains(&unit) || exponent())
}

fn lost(written: &Value, read: &Value) -> Option<String> {
    let below = |step: &str, written: &Value, read: &Value| {
        let path = lost(written, read)?;
        Some(format!("{step}.{path}"))
    };
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            written
                .iter()
                .find_map(|(name, written)| match read.get(name) {
                    Some(read) => below(name, written, read),
                    None => Some(name.clone()),
                })
        }
        (Value::Array(written), Value::Array(read)) => {
            let mut both = written.iter().zip(read).enumerate();
            both.find_map(|(at, (written, read))| below(&at.to_string(), written, read))
        }
        _ => None,
    }
}

fn have(key: &str, items: &[Value]) -> bool {
    items.iter().all(|item| item[key].is_string())
}

/// There is nothing that a `null` could remove.
fn without_nulls(template: &Value) -> Value {
    match template {
        Value::Object(members) => members
            .iter()
            .filter(|(_, member)| !member.is_null())
            .map(|(name, member)| (name.clone(), without_nulls(member)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_merged_and_named_lists_by_name() {
        let mut object = json!({
            "spec": { "containers": [{ "name": "main", "image": "a", "tty": true }], "args": ["x"], "old": 1 }
        });
        let template = json!({
            "spec": {
                "containers": [{ "name": "main", "tty": null, "stdin": true }, { "name": "side", "x": { "y": null } }],
                "args": ["y", "z"],
                "old": null,
            }
        });
        merge(&mut object, &template);
        assert_eq!(
            object,
            json!({
                "spec": {
                    "containers": [{ "name": "main", "image": "a", "stdin": true }, { "name": "side", "x": {} }],
                    "args": ["y", "z"],
                }
            })
        );
    }

    #[test]
    fn an_amount_that_kubernetes_does_not_read_is_found_where_it_stands() {
        let pod = |amount: Value| {
            let resources = json!({ "requests": { "cpu": amount } });
            json!({ "initContainers": [{ "name": "a" }, { "resources": resources }] })
        };
        for amount in ["500m", "1.5", "1Gi", "1e3", "+2k", "3E", "3Ei"] {
            assert_eq!(wrong_amount(&pod(json!(amount))), None, "{amount}");
        }
        assert_eq!(wrong_amount(&pod(json!(2))), None);
        let at = "initContainers.1.resources.requests.cpu";
        for amount in ["lots", "", "1x", "1 Gi", "64KiB", "1-2"] {
            let found = wrong_amount(&pod(json!(amount)));
            assert_eq!(found.as_deref(), Some(at), "{amount}");
        }
    }

    #[test]
    fn mounts_of_one_volume_and_variables_of_another_kind_stay_apart() {
        let mut object = json!({
            "env": [{ "name": "A", "valueFrom": { "secretKeyRef": {} } }, { "name": "B", "value": "b" }],
            "volumeMounts": [{ "name": "v", "mountPath": "/a", "subPath": "a" }],
        });
        let template = json!({
            "env": [{ "name": "A", "value": "a" }],
            "volumeMounts": [{ "name": "v", "mountPath": "/b" }, { "name": "w", "mountPath": "/a" }],
        });
        merge(&mut object, &template);
        let expected = json!({
            "env": [{ "name": "A", "value": "a" }, { "name": "B", "value": "b" }],
            "volumeMounts": [{ "name": "w", "mountPath": "/a" }, { "name": "v", "mountPath": "/b" }],
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn a_misspelt_member_is_found() {
        use k8s_openapi::api::core::v1::PodSpec;

        let good = json!({
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "main", "env": null, "resources": { "limits": { "example.com/gpu": "1" } } }],
            "nodeSelector": { "pool": "batch" },
            "volumes": [{ "name": "a", "emptyDir": {} }],
        });
        assert_eq!(unread::<PodSpec>(&good), None);
        for (wrong, path) in [
            (json!({ "tolerationz": [] }), "tolerationz"),
            (
                json!({ "tolerations": { "operator": "Exists" } }),
                "tolerations",
            ),
            (
                json!({ "containers": [{ "name": "main", "comand": ["x"] }] }),
                "containers.0.comand",
            ),
        ] {
            assert_eq!(unread::<PodSpec>(&wrong).as_deref(), Some(path));
        }
    }

    #[test]
    fn an_empty_list_takes_named_ones() {
        let mut object = json!({ "volumes": [] });
        merge(&mut object, &json!({ "volumes": [{ "name": "a" }] }));
        assert_eq!(object, json!({ "volumes": [{ "name": "a" }] }));
    }
}
