//! A secret store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::ProviderHarness;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{Secret, SecretName, SecretProvider, SecretValue};

/// A secret store in memory: values, errors, delays and counts as a test wants them. Clones are the same store.
///
/// Names are paths with a leading slash, without `..`; all others are `Invalid`.
#[derive(Debug, Clone)]
pub struct FakeProvider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    world: Mutex<World>,
    gate: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct World {
    values: BTreeMap<String, SecretValue>,
    versions: BTreeMap<String, Vec<SecretValue>>,
    errors: BTreeMap<String, (ErrorKind, String)>,
    next: Vec<(ErrorKind, String)>,
    down: bool,
    latency: Duration,
    reads: Vec<SecretName>,
}

impl Default for FakeProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeProvider {
    /// An empty store.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            world: Mutex::default(),
            gate: watch::Sender::new(true),
        }))
    }

    /// The store with one secret more.
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a secret; clears an error of that name.
    pub fn set(&self, name: &str, value: impl Into<Vec<u8>>) {
        let mut world = self.world();
        world.errors.remove(name);
        world
            .values
            .insert(name.to_owned(), SecretValue::new(value));
    }

    /// Takes a secret away.
    pub fn unset(&self, name: &str) {
        self.world().values.remove(name);
    }

    /// Answers reads of this name with this error, until it is set again.
    pub fn fail(&self, name: &str, kind: ErrorKind, message: &str) {
        let error = (kind, message.to_owned());
        self.world().errors.insert(name.to_owned(), error);
    }

    /// Answers so many reads, of whatever name, with this error, and then as ever.
    pub fn fail_next(&self, times: usize, kind: ErrorKind, message: &str) {
        self.world().next = vec![(kind, message.to_owned()); times];
    }

    /// Sets versions of a secret, oldest first; their names are `1`, `2` and so on.
    pub fn set_versions(&self, name: &str, values: &[&[u8]]) {
        let values: Vec<_> = values
            .iter()
            .map(|value| SecretValue::new(*value))
            .collect();
        let mut world = self.world();
        if let Some(newest) = values.last() {
            world.values.insert(name.to_owned(), newest.clone());
        }
        world.versions.insert(name.to_owned(), values);
    }

    /// Makes the whole store answer or not (`Unavailable`).
    pub fn set_reachable(&self, reachable: bool) {
        self.world().down = !reachable;
    }

    /// Lets each read take that long, on tokio's clock.
    pub fn set_latency(&self, latency: Duration) {
        self.world().latency = latency;
    }

    /// From now on reads are counted and then wait.
    pub fn hold_reads(&self) {
        self.0.gate.send_replace(false);
    }

    /// Lets held reads go on.
    pub fn release_reads(&self) {
        self.0.gate.send_replace(true);
    }

    /// All reads so far, in order.
    pub fn reads(&self) -> Vec<SecretName> {
        self.world().reads.clone()
    }

    /// How often a name was read.
    pub fn reads_of(&self, name: &str) -> usize {
        let world = self.world();
        world.reads.iter().filter(|read| read.name == name).count()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(&self) {
        let latency = self.world().latency;
        tokio::time::sleep(latency).await;
        let mut gate = self.0.gate.subscribe();
        let seen = gate.wait_for(|open| *open).await;
        drop(seen.expect("`self` holds the sender"));
    }

    fn answers(&self) -> Result<()> {
        if self.world().down {
            return Err(Error::unavailable(
                "the fake store does not answer; make it reachable again",
            ));
        }
        Ok(())
    }

    fn find(&self, name: &SecretName) -> Result<Secret> {
        let mut world = self.world();
        if let Some((kind, message)) = world.next.pop() {
            return Err(Error::new(kind, message));
        }
        if let Some((kind, message)) = world.errors.get(&name.name) {
            return Err(Error::new(*kind, message));
        }
        let missing = || {
            Error::not_found(format!(
                "no secret `{name}` in the fake store (version {})",
                name.version.as_deref().unwrap_or("any")
            ))
        };
        let Some(versions) = world.versions.get(&name.name) else {
            let value = world.values.get(&name.name);
            let value = value.filter(|_| name.version.is_none());
            return value.cloned().map(Secret::from).ok_or_else(missing);
        };
        let number = match &name.version {
            None => versions.len(),
            Some(version) => version.parse().unwrap_or(0),
        };
        let value = number.checked_sub(1).and_then(|at| versions.get(at));
        let secret = Secret::from(value.cloned().ok_or_else(missing)?);
        Ok(secret.with_version(number.to_string()))
    }
}

#[async_trait]
impl SecretProvider for FakeProvider {
    async fn check(&self) -> Result<()> {
        self.pause().await;
        self.answers()
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        self.world().reads.push(name.clone());
        self.pause().await;
        self.answers()?;
        if !name.name.starts_with('/') || name.name.split('/').any(|part| part == "..") {
            return Err(Error::invalid(format!(
                "`{name}` cannot be in the fake store: its names are paths with a leading slash"
            )));
        }
        self.find(name)
    }
}

#[async_trait]
impl ProviderHarness for FakeProvider {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        Arc::new(self.clone())
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        let name = format!("/contract/{label}");
        self.set(&name, value);
        Some(SecretName::new(name))
    }

    async fn put_versions(&self, label: &str, values: &[&[u8]]) -> Option<Vec<SecretName>> {
        let name = format!("/contract/{label}");
        self.set_versions(&name, values);
        let named = |number: usize| {
            let mut name = SecretName::new(name.clone());
            name.version = Some(number.to_string());
            name
        };
        Some((1..=values.len()).map(named).collect())
    }

    async fn disabled(&self) -> Option<SecretName> {
        let name = "/contract/disabled";
        self.fail(
            name,
            ErrorKind::Conflict,
            "`/contract/disabled` is disabled",
        );
        Some(SecretName::new(name))
    }

    async fn deleted(&self) -> Option<SecretName> {
        let name = "/contract/deleted";
        self.set(name, "gone");
        self.unset(name);
        Some(SecretName::new(name))
    }

    async fn denied(&self) -> Option<SecretName> {
        let name = "/contract/denied";
        self.fail(
            name,
            ErrorKind::Denied,
            "the fake store denies `/contract/denied`",
        );
        Some(SecretName::new(name))
    }

    fn impossible(&self) -> Option<SecretName> {
        Some(SecretName::new("/contract/../other"))
    }

    async fn not_allowed(&self) -> Option<SecretName> {
        self.set("/contract/../other", "beside");
        Some(SecretName::new("/contract/../other"))
    }

    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        let elsewhere = FakeProvider::new();
        elsewhere.set_reachable(false);
        Some(Arc::new(elsewhere))
    }
}
