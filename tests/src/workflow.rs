//! Workflows, mostly of `/bin/sh`.

use serde_json::{Map, Value, json};

/// A workflow as it stands in a file or a request.
#[derive(Debug, Clone)]
pub struct Workflow(Map<String, Value>);

impl Workflow {
    /// A workflow of a command.
    pub fn new(name: &str, command: &[&str]) -> Self {
        let mut members = Map::new();
        members.insert("name".into(), json!(name));
        members.insert("command".into(), json!(command));
        Self(members)
    }

    /// A workflow of a script.
    pub fn sh(name: &str, script: &str) -> Self {
        Self::new(name, &["/bin/sh", "-c", script])
    }

    /// With another field, or another value of a field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// With a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let env = self.0.entry("env").or_insert_with(|| json!({}));
        env[name] = json!(value);
        self
    }

    /// As JSON.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// As a file: YAML reads JSON.
    pub fn to_yaml(&self) -> String {
        let fields = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"));
        fields.collect()
    }
}

/// A script that prints `count` numbered lines, one each `millis`, and then does `after`.
pub fn numbered(count: u32, millis: u32, after: &str) -> String {
    let pause = format!("{}.{:03}", millis / 1000, millis % 1000);
    format!(
        "i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; sleep {pause}; done; {after}"
    )
}

/// The lines of [`numbered`].
pub fn numbered_lines(count: u32) -> String {
    (1..=count).fold(String::new(), |text, number| {
        text + &format!("line {number}\n")
    })
}
