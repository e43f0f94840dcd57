//! A partial object of the section, merged into the object that we make.
//!
//! As a JSON merge patch (RFC 7386): members are merged, `null` removes, anything else replaces. But lists of things that have
//! a `name` (containers, volumes, variables) are merged by it, so that a template can add one without repeating ours.

use serde_json::Value;

/// Merges the template into the object.
pub(crate) fn merge(object: &mut Value, template: &Value) {
    match (object, template) {
        (Value::Object(into), Value::Object(members)) => {
            for (name, member) in members {
                if member.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name.clone()).or_insert(Value::Null), member);
                }
            }
        }
        (Value::Array(into), Value::Array(items)) if are_named(into) && are_named(items) => {
            for item in items {
                let same = into.iter_mut().find(|have| have["name"] == item["name"]);
                match same {
                    Some(have) => merge(have, item),
                    None => into.push(without_nulls(item)),
                }
            }
        }
        (object, template) => *object = without_nulls(template),
    }
}

fn are_named(items: &[Value]) -> bool {
    items.iter().all(|item| item["name"].is_string())
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
    use serde_json::json;

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
    fn an_empty_list_takes_named_ones() {
        let mut object = json!({ "volumes": [] });
        merge(&mut object, &json!({ "volumes": [{ "name": "a" }] }));
        assert_eq!(object, json!({ "volumes": [{ "name": "a" }] }));
    }
}
