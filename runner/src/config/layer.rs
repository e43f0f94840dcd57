//! The layers of the configuration, lowest first: defaults, file, the variables of others, ours, flags.
//!
//! Each variable and each flag is a layer of its own, so that an error and `config show` can name it.

use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::raw::DEFAULTS;
use super::variables::{Becomes, VARIABLES, executor_kind};
use super::{Environment, Inputs, Problem, workload};

/// Before each of our own variables. Two underscores: Kubernetes itself sets `HYBRID_RUNNER_*` beside a
/// Service of that name.
pub(crate) const PREFIX: &str = "HYBRID_RUNNER__";

/// The variable that names the file.
pub(crate) const FILE_VARIABLE: &str = "HYBRID_RUNNER_CONFIG";

/// A file of configuration is at most this long: it is read by people.
const MAX_FILE: u64 = 1 << 20;

/// All layers on top of each other, and what was found on the way.
#[derive(Debug)]
pub(crate) struct Layers {
    pub figment: Figment,
    pub file: Option<PathBuf>,
    /// The executor stands there only because variables of the existing chart are set.
    pub implied_executor: bool,
}

/// One source: where it is, what it says.
#[derive(Debug)]
struct Layer {
    source: String,
    data: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.data.clone())]))
    }
}

impl Layer {
    fn of(source: impl Into<String>, settings: &[(&str, &str)]) -> Self {
        let mut data = Dict::new();
        for (path, value) in settings {
            let path: Vec<&str> = path.split('.').collect();
            set(&mut data, &path, value);
        }
        Self {
            source: source.into(),
            data,
        }
    }

    /// Puts this layer on top. A token replaces the one below as a whole: it has one source only.
    fn over(self, figment: Figment) -> Figment {
        let has_token = matches!(self.data.get("link"), Some(Value::Dict(_, link)) if link.contains_key("token"));
        let figment = if has_token {
            figment.merge(Self::of(self.source.clone(), &[("link.token", "")]))
        } else {
            figment
        };
        figment.merge(self)
    }
}

fn set(data: &mut Dict, path: &[&str], value: &str) {
    let [head, rest @ ..] = path else { return };
    if rest.is_empty() {
        data.insert((*head).to_owned(), Value::from(value));
        return;
    }
    let slot = data
        .entry((*head).to_owned())
        .or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = slot {
        set(inner, rest, value);
    }
}

/// Reads all layers.
pub(crate) fn collect(inputs: &Inputs) -> Result<Layers, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let environment = &inputs.environment;
    let file = find_file(inputs).map_err(one)?;
    let from_file = file.as_deref().map(read_file).transpose().map_err(one)?;
    let configured = from_file.as_ref().is_some_and(
        |file| matches!(file.data.get("executors"), Some(Value::Dict(_, all)) if !all.is_empty()),
    );
    let chart = VARIABLES
        .iter()
        .filter(|variable| variable.is_of_the_chart())
        .find_map(|variable| variable.find(environment));
    let named = environment.contains_key("EXECUTOR_TYPE");
    let implied_executor = chart.is_some() && !configured && !named;

    let mut figment = Figment::new();
    figment = defaults(inputs).over(figment);
    if let Some((name, _)) = chart {
        figment = chart_defaults(name, implied_executor).over(figment);
        if let Some(kind) = selected(environment, implied_executor) {
            figment = pod_defaults(name, kind).over(figment);
        }
    }
    if let Some(file) = from_file {
        figment = file.over(figment);
    }
    for layer in variables_of_others(environment).map_err(one)? {
        figment = layer.over(figment);
    }
    if let Some(kind) = selected(environment, implied_executor) {
        for layer in workload_settings(environment, kind).map_err(one)? {
            figment = layer.over(figment);
        }
    }
    for layer in own_variables(environment) {
        figment = layer.over(figment);
    }
    for (flag, path, value) in &inputs.flags {
        figment = Layer::of(format!("`{flag}`"), &[(path, value)]).over(figment);
    }
    Ok(Layers {
        figment,
        file,
        implied_executor,
    })
}

fn defaults(inputs: &Inputs) -> Layer {
    let mut data: Dict = Toml::from_str(DEFAULTS).expect("the defaults are valid TOML");
    let state = inputs.state_dir();
    for (section, name) in [
        ("runner", "hybrid-runner"),
        ("server", "hybrid-runner-server"),
    ] {
        let instead = match section {
            "runner" => inputs.memory_instead(),
            _ => None,
        };
        let dir = instead.unwrap_or(&state).join(name);
        set(&mut data, &[section, "data_dir"], &dir.to_string_lossy());
    }
    Layer {
        source: "default".to_owned(),
        data,
    }
}

/// What the existing chart takes for granted: values are resolved in the workload, metrics are scraped
/// from outside, and Argo is the executor unless another is named.
fn chart_defaults(variable: &str, executor: bool) -> Layer {
    let mut settings = vec![
        ("runner.resolve", "workload"),
        ("runner.listen", "0.0.0.0:8989"),
    ];
    if executor {
        settings.extend([("runner.executor", "argo"), ("executors.argo.kind", "argo")]);
    }
    Layer::of(format!("default under `{variable}`"), &settings)
}

/// The kind, and the section, of the executor that variables select.
fn selected(environment: &Environment, is_implied: bool) -> Option<&'static str> {
    let named = environment.get("EXECUTOR_TYPE");
    let named = named.and_then(|value| executor_kind(value).ok());
    named.or(is_implied.then_some("argo"))
}

/// What the existing chart takes for granted of pods: that they have their account's token, and need not say as which user their image runs.
fn pod_defaults(variable: &str, kind: &str) -> Layer {
    let mut data = Dict::new();
    if matches!(kind, "argo" | "kubernetes") {
        let section = serde_json::json!({ "mount_token": true, "restricted": false });
        put(&mut data, kind, &section);
    }
    Layer {
        source: format!("default under `{variable}`"),
        data,
    }
}

fn workload_settings(environment: &Environment, kind: &str) -> Result<Vec<Layer>, Problem> {
    let settings = workload::settings(environment, kind)?;
    let layers = settings.into_iter().map(|(name, setting)| {
        let mut data = Dict::new();
        put(&mut data, kind, &setting);
        Layer {
            source: format!("`{name}`"),
            data,
        }
    });
    Ok(layers.collect())
}

/// Settings of an executor's section.
fn put(data: &mut Dict, section: &str, settings: &serde_json::Value) {
    let all = serde_json::json!({ section: settings });
    let all = Value::serialize(&all).expect("JSON is a value");
    data.insert("executors".to_owned(), all);
}

fn variables_of_others(environment: &Environment) -> Result<Vec<Layer>, Problem> {
    let mut layers = Vec::new();
    for variable in VARIABLES {
        let Some((name, value)) = variable.find(environment) else {
            continue;
        };
        let source = format!("`{name}`");
        match variable.becomes {
            Becomes::Key(path) if variable.name == "METRICS_SERVER_PORT" => {
                layers.push(Layer::of(
                    source,
                    &[(path, &format!("0.0.0.0:{}", value.trim()))],
                ));
            }
            Becomes::Key(path) => layers.push(Layer::of(source, &[(path, value.trim())])),
            Becomes::Executor => {
                let kind = executor_kind(value).map_err(|error| {
                    Problem::new("runner.executor", error.message()).written_in(source.clone())
                })?;
                let section = format!("executors.{kind}.kind");
                layers.push(Layer::of(
                    source,
                    &[("runner.executor", kind), (&section, kind)],
                ));
            }
            Becomes::ExtraEnvs | Becomes::Workload | Becomes::Nothing => {}
        }
    }
    Ok(layers)
}

fn own_variables(environment: &Environment) -> Vec<Layer> {
    environment
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| {
            let path = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
            Some(Layer::of(format!("`{name}`"), &[(&path, value)]))
        })
        .collect()
}

/// The file to read: named, or found in one of the usual places.
fn find_file(inputs: &Inputs) -> Result<Option<PathBuf>, Problem> {
    let named = inputs
        .file
        .clone()
        .map(|path| (path, "`--config`"))
        .or_else(|| {
            let path = inputs.environment.get(FILE_VARIABLE)?;
            (!path.is_empty()).then(|| (PathBuf::from(path), "`HYBRID_RUNNER_CONFIG`"))
        });
    if let Some((path, source)) = named {
        if !path.exists() {
            let message = format!("`{}` does not exist", path.display());
            return Err(Problem::new("", message).written_in(source));
        }
        return Ok(Some(path));
    }
    let folders = [
        inputs.config_home().map(|home| home.join("hybrid-runner")),
        inputs.system.clone(),
    ];
    Ok(folders
        .into_iter()
        .flatten()
        .flat_map(|folder| {
            ["toml", "yaml", "yml"].map(|ext| folder.join("config").with_extension(ext))
        })
        .find(|path| path.is_file()))
}

fn read_file(path: &Path) -> Result<Layer, Problem> {
    let source = path.display().to_string();
    let wrong = |message: String| Problem::new("", message).written_in(source.clone());
    let length = std::fs::metadata(path)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?
        .len();
    if length > MAX_FILE {
        return Err(wrong(format!(
            "is {length} bytes long; a configuration has at most 1 MiB"
        )));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let data = parse(path, &text).map_err(wrong)?;
    Ok(Layer { source, data })
}

/// Reads TOML or YAML by extension. Errors name the line and never quote it: it may hold a token.
fn parse(path: &Path, text: &str) -> Result<Dict, String> {
    match path.extension().and_then(|ext| ext.to_str()) {
        Some("toml") => Toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text[..at].matches('\n').count() + 1;
            format!("line {line} is not valid TOML: {}", error.message())
        }),
        Some("yaml" | "yml") => {
            // As written: `no` and `0123` stay text, so that nothing changes under the writer's hands.
            let options = serde_saphyr::options! {
                strict_booleans: true,
                leading_zero_numbers_as_strings: true,
                with_snippet: false,
            };
            let dict: Option<Dict> =
                serde_saphyr::from_str_with_options(text, options).map_err(|error| {
                    let words = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
                    format!("is not valid YAML: {words}")
                })?;
            Ok(dict.unwrap_or_default())
        }
        _ => {
            Err("must be named `.toml`, `.yaml` or `.yml`, so that its format is known".to_owned())
        }
    }
}
