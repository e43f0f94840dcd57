//! The first exchange between a runner and its plugin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::executor::Capabilities;
use crate::id::{Owner, SectionName};
use crate::kind::Context;
use crate::session::PROTOCOL;

/// Which contract a plugin is asked to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Contract {
    /// `check`, `start`, `watch`, `logs`, `stop`, `remove`, `list`.
    Executor,
    /// `check`, `get`.
    Secrets,
}

/// How much of the disk spooled output may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Room {
    /// That of one run.
    pub per_run: u64,
    /// That of all together, if there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// What a runner says first to its plugin (method `hello`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct PluginHello {
    /// The versions that it speaks, the best first.
    pub versions: Vec<String>,
    /// Its name and version, for people.
    #[serde(default)]
    pub software: String,
    /// What the plugin is to be.
    pub contract: Contract,
    /// The section of the configuration, as `here` in `[executors.here]`.
    pub name: SectionName,
    /// Whose objects ours are: labels in the backend carry it, and nothing of another owner is shown.
    #[schemars(with = "String")]
    pub owner: Owner,
    /// The plugin's own settings, as they were configured.
    #[serde(default)]
    pub settings: Value,
    /// A folder that is the plugin's own. It may have to be made.
    pub data_dir: std::path::PathBuf,
    /// How much of the disk spooled output may take.
    pub spool: Room,
}

impl PluginHello {
    /// The hello for a section.
    pub fn new(contract: Contract, context: &Context) -> Self {
        Self {
            versions: vec![PROTOCOL.to_owned()],
            software: concat!("hybrid-runner ", env!("CARGO_PKG_VERSION")).to_owned(),
            contract,
            name: context.name.clone(),
            owner: context.owner.clone(),
            settings: context.settings.clone(),
            data_dir: context.data_dir.clone(),
            spool: Room {
                per_run: context.spool_per_run,
                total: context.spool_total,
            },
        }
    }

    /// The context that a kind is built from.
    pub fn context(&self) -> Context {
        let context = Context::new(
            self.name.clone(),
            self.settings.clone(),
            &self.data_dir,
            self.owner.clone(),
            self.spool.per_run,
        );
        match self.spool.total {
            Some(total) => context.with_spool_total(total),
            None => context,
        }
    }
}

/// What the plugin answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct PluginWelcome {
    /// The version that is spoken from here on.
    pub version: String,
    /// The plugin's name and version, for people.
    #[serde(default)]
    pub software: String,
    /// What its backend can do; an executor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// A secret store that takes values for a test: it also answers `put`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub put: bool,
    /// What it answers besides the methods that every plugin has: `examine` of an executor, `identity` of a secret store.
    /// What does not stand here is not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

impl PluginWelcome {
    /// An answer in the version of this build.
    pub fn new(software: impl Into<String>) -> Self {
        Self {
            version: PROTOCOL.to_owned(),
            software: software.into(),
            capabilities: None,
            put: false,
            methods: Vec::new(),
        }
    }

    /// Whether the plugin answers this method, which not every plugin has.
    pub fn answers(&self, method: &str) -> bool {
        self.methods.iter().any(|answered| answered == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AgentId;

    #[test]
    fn the_first_exchange_stays_as_it_is() {
        let agent: AgentId = "one".parse().unwrap();
        let context = Context::new(
            "cluster".parse().unwrap(),
            serde_json::json!({ "partition": "night" }),
            "/var/lib/hybrid-runner/executors/cluster",
            Owner::of("server", &agent),
            1 << 30,
        );
        let mut hello = PluginHello::new(Contract::Executor, &context);
        hello.software = "hybrid-runner 0.1.0".to_owned();
        let mut welcome = PluginWelcome::new("slurm-plugin 1.2");
        let mut can = Capabilities::least();
        (can.named_start, can.find) = (false, true);
        can.missing = vec!["stall_timeout".to_owned()];
        welcome.capabilities = Some(can);
        welcome.methods = vec!["examine".to_owned()];
        let text = |value: serde_json::Result<String>| value.unwrap() + "\n";
        let all = text(serde_json::to_string(&hello)) + &text(serde_json::to_string(&welcome));
        insta::assert_snapshot!("hello", all);
        let old: PluginWelcome = serde_json::from_str(r#"{"version":"v1-preview"}"#).unwrap();
        assert_eq!(
            old,
            PluginWelcome {
                software: String::new(),
                ..PluginWelcome::new("")
            }
        );
        assert!(!old.answers("examine") && welcome.answers("examine"));
        assert_eq!(hello.context().owner, context.owner);
    }
}
