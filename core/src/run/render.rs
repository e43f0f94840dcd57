//! A spec with its values in place: what an executor hands to the workload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::spec::{Limits, RunSpec};
use crate::error::{Error, Result};
use crate::secret::{SecretValue, Secrets, Template};
use crate::unit::Period;

/// The variable that holds the path of the private config file.
pub const WORKFLOW_CONFIG: &str = "WORKFLOW_CONFIG";

/// Stands for the path of the config file, where only the backend will know it.
pub const CONFIG_PLACE: &str = "@WORKFLOW_CONFIG@";

/// The longest value of one variable that Linux takes (`MAX_ARG_STRLEN`, name and `=` included).
const MAX_VARIABLE: usize = 128 * 1024;

/// A spec with its values in place. Everything in it may be secret.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rendered {
    /// Replaces ENTRYPOINT.
    pub command: Option<Vec<String>>,
    /// Replaces CMD.
    pub args: Option<Vec<String>>,
    /// The environment, `WORKFLOW_*` included, without the paths of files.
    pub env: Vec<(String, SecretValue)>,
    /// The config file's content.
    pub config: Option<SecretValue>,
    /// Private files: the variable that gets the path, and the content.
    pub files: Vec<(String, SecretValue)>,
    /// The working directory.
    pub workdir: Option<String>,
    /// The limits of its time.
    pub limits: Limits,
}

impl Rendered {
    /// As JSON for a program that hands it on: `argv`, `env`, `files` (`text` or `base64`), `config`, `workdir`, and `timeout`,
    /// `stall_timeout`, `grace` in seconds (0: none). Everything in it may be secret.
    ///
    /// Refuses a variable or a config that is not text.
    pub fn to_job(&self) -> Result<Value> {
        // Onto the stdin of the program; never into its arguments or variables.
        let text = |value: &SecretValue| {
            value.expose_text().map(str::to_owned).map_err(|error| {
                let what = "a binary value cannot be handed on in a variable; use `files`";
                Error::unsupported(what).with_source(error)
            })
        };
        let mut env = serde_json::Map::new();
        for (name, value) in &self.env {
            env.insert(name.clone(), text(value)?.into());
        }
        let mut files = serde_json::Map::new();
        for (name, value) in &self.files {
            let encoded = match value.expose_text() {
                Ok(text) => serde_json::json!({ "text": text }),
                Err(_) => serde_json::json!({ "base64": BASE64.encode(value.expose()) }),
            };
            files.insert(name.clone(), encoded);
        }
        let argv: Vec<&String> = self.command.iter().chain(&self.args).flatten().collect();
        let config = self.config.as_ref().map(text).transpose()?;
        let seconds = |limit: Period| limit.get().as_secs_f64();
        Ok(serde_json::json!({
            "argv": argv, "env": env, "files": files, "config": config, "workdir": self.workdir,
            "timeout": seconds(self.limits.timeout),
            "stall_timeout": seconds(self.limits.stall_timeout),
            "grace": seconds(self.limits.grace),
        }))
    }
}

/// Puts the values in place. `config_path` is where the workload will find its config.
///
/// Refuses a reference without a value, and a variable that is too long for the system.
pub fn render(spec: &RunSpec, secrets: &Secrets, config_path: &str) -> Result<Rendered> {
    let config = spec
        .config
        .as_ref()
        .map(|config| render_config(config, secrets))
        .transpose()?;
    let mut env = Vec::new();
    for (name, text) in &spec.env {
        env.push((name.clone(), Template::parse(text)?.render(secrets)?));
    }
    if let (Some(name), Some(config)) = (&spec.config_env, &config) {
        env.push((name.clone(), config.clone()));
    }
    let known = workflow_variables(spec, config.is_some().then_some(config_path));
    for (name, value) in &env {
        if name.len() + 1 + value.expose().len() >= MAX_VARIABLE {
            return Err(Error::invalid(format!(
                "the value of variable `{name}` is too long: Linux takes at most 128 KiB; use `config` or `files`"
            )));
        }
        if value.expose().contains(&0) {
            return Err(Error::invalid(format!(
                "the value of variable `{name}` holds a NUL byte; use `files`"
            )));
        }
    }
    let expand = |texts: &Option<Vec<String>>| {
        texts
            .as_ref()
            .map(|texts| texts.iter().map(|text| expand(text, &known)).collect())
    };
    let command = expand(&spec.command);
    let args = expand(&spec.args);
    let mut files = Vec::new();
    for (name, text) in &spec.files {
        files.push((name.clone(), Template::parse(text)?.render(secrets)?));
    }
    env.extend(
        known
            .into_iter()
            .map(|(name, value)| (name.to_owned(), SecretValue::new(value))),
    );
    Ok(Rendered {
        command,
        args,
        env,
        config,
        files,
        workdir: spec.workdir.clone(),
        limits: spec.limits.clone(),
    })
}

fn workflow_variables(spec: &RunSpec, config_path: Option<&str>) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("WORKFLOW_RUN_ID", spec.run.run().to_string()),
        (
            "WORKFLOW_ATTEMPT",
            spec.run.attempt_number().max(1).to_string(),
        ),
        ("WORKFLOW_NAME", spec.name.to_string()),
    ];
    if let Some(runner) = &spec.runner {
        variables.push(("WORKFLOW_RUNNER", runner.to_string()));
    }
    if let Some(time) = spec.scheduled_at {
        variables.push(("WORKFLOW_SCHEDULED_AT", time.to_string()));
    }
    if let Some(path) = config_path {
        variables.push((WORKFLOW_CONFIG, path.to_owned()));
    }
    variables
}

/// Replaces `$(WORKFLOW_…)`; `$$(` gives `$(`; all else stays as it is.
fn expand(text: &str, known: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('(');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let tail = &rest[at + 2..];
        let value = tail.find(')').and_then(|end| {
            known
                .iter()
                .find(|(name, _)| *name == &tail[..end])
                .map(|(_, value)| (end, value))
        });
        if let Some((end, value)) = value {
            out.push_str(value);
            rest = &tail[end + 1..];
        } else {
            out.push_str("$(");
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// A string is written as it is, anything else as JSON with its references resolved.
fn render_config(config: &Value, secrets: &Secrets) -> Result<SecretValue> {
    if let Value::String(text) = config {
        return Template::parse(text)?.render(secrets);
    }
    let mut out = zeroize::Zeroizing::new(Vec::new());
    write_json(config, secrets, &mut out)?;
    Ok(SecretValue::new(std::mem::take(&mut *out)))
}

/// Writes JSON without making a `Value` that holds secrets in memory that nobody zeroizes.
fn write_json(value: &Value, secrets: &Secrets, out: &mut Vec<u8>) -> Result<()> {
    let plain = |value: &Value, out: &mut Vec<u8>| {
        serde_json::to_writer(out, value)
            .map_err(|error| Error::internal("failed to write JSON").with_source(error))
    };
    match value {
        Value::String(text) => {
            let rendered = Template::parse(text)?.render(secrets)?;
            // On its way into the workload's private config file.
            let text = rendered.expose_text().map_err(|error| {
                Error::invalid(
                    "a secret inside `config` must be text; use `files` for a binary one",
                )
                .with_source(error)
            })?;
            serde_json::to_writer(&mut *out, text)
                .map_err(|error| Error::internal("failed to write JSON").with_source(error))?;
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_json(item, secrets, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (i, (name, member)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                plain(&Value::String(name.clone()), out)?;
                out.push(b':');
                write_json(member, secrets, out)?;
            }
            out.push(b'}');
        }
        other => plain(other, out)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;
    use serde_json::json;

    fn spec() -> RunSpec {
        RunSpec::new(
            RunId::generate().attempt(2),
            "orders".parse().unwrap(),
            ["run"],
        )
    }

    #[test]
    fn only_workflow_variables_are_replaced_in_arguments() {
        let known = [("WORKFLOW_CONFIG", "/c".to_owned())];
        for (from, to) in [
            ("-c=$(WORKFLOW_CONFIG)!", "-c=/c!"),
            ("$$(WORKFLOW_CONFIG)", "$(WORKFLOW_CONFIG)"),
            (
                "$(HOME) {{workflow.name}} $(",
                "$(HOME) {{workflow.name}} $(",
            ),
            ("$(WORKFLOW_CONFIG", "$(WORKFLOW_CONFIG"),
        ] {
            assert_eq!(expand(from, &known), to);
        }
    }

    #[test]
    fn references_inside_config_become_json_strings() {
        let mut secrets = Secrets::none();
        secrets.insert("/p", SecretValue::new("a\"b\n"));
        let spec = RunSpec {
            config: Some(json!({"a": [{"p": "x${secret:/p}"}], "n": 1})),
            ..spec()
        };
        let rendered = render(&spec, &secrets, "/c").unwrap();
        assert_eq!(
            rendered.config.unwrap().expose(),
            br#"{"a":[{"p":"xa\"b\n"}],"n":1}"#
        );
    }

    #[test]
    fn a_missing_value_and_a_long_variable_are_refused() {
        let mut spec = spec();
        spec.env.insert("A".into(), "secret:/gone".into());
        assert!(
            render(&spec, &Secrets::none(), "")
                .unwrap_err()
                .message()
                .contains("secret:/gone")
        );
        spec.env.insert("A".into(), "x".repeat(200_000));
        assert!(
            render(&spec, &Secrets::none(), "")
                .unwrap_err()
                .message()
                .contains("`A`")
        );
    }
}
