//! The configured stores by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::id::{RunId, SectionName};
use hybrid_runner_core::kind::{Context, nearest};
use hybrid_runner_core::secret::{
    Origin, Reference, Secret, SecretName, SecretProvider, SecretValue, Secrets,
};
use tokio::time::Instant;

use crate::answer::share;
use crate::audit::{Audit, Line};
use crate::{Refusal, field};

/// How long one read may take, with all that a store does to get there.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Reads at the same time for one run: enough to hide a store's latency, too few to trip its throttle.
const AT_A_TIME: usize = 8;

/// What a store answered, and how long that took.
type Asked = (Result<Secret, Arc<Error>>, Duration);

/// The configured stores.
#[derive(Debug, Clone, Default)]
pub struct Stores {
    set: Arc<Mutex<Arc<Set>>>,
    audit: Arc<Audit>,
    counts: Arc<Mutex<Counts>>,
}

/// The stores of one configuration.
#[derive(Debug, Default)]
struct Set {
    providers: BTreeMap<SectionName, Arc<dyn SecretProvider>>,
    default: Option<SectionName>,
}

/// By store and outcome.
type Counts = BTreeMap<(SectionName, &'static str), Reads>;

/// How often references were asked for with one outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Reads {
    /// How often.
    pub count: u64,
    /// How long that took together.
    pub took: Duration,
}

/// What a reference stands for, and where that was found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Found {
    /// The store.
    pub store: SectionName,
    /// The store's own name of the version, if it has versions.
    pub version: Option<String>,
    /// Whether it is the reference's own `?default=`, as the store has no such secret.
    pub by_default: bool,
    /// The value.
    pub value: SecretValue,
}

impl Found {
    fn origin(&self) -> Origin {
        if self.by_default {
            return Origin::Default;
        }
        Origin::Store(self.store.clone(), self.version.clone())
    }
}

impl Stores {
    /// Builds the stores of a configuration: the kind and the context of each section, and the name of
    /// the default one.
    ///
    /// If there is only one store, it is the default one.
    pub fn build(
        sections: impl IntoIterator<Item = (String, Context)>,
        default: Option<SectionName>,
    ) -> Result<Self> {
        let mut stores = BTreeMap::new();
        for (kind, context) in sections {
            let store = crate::build(&kind, &context)?;
            stores.insert(context.name, store);
        }
        Self::new(stores, default)
    }

    /// Takes stores that are built already; see [`Stores::build`].
    pub fn new(
        stores: BTreeMap<SectionName, Arc<dyn SecretProvider>>,
        default: Option<SectionName>,
    ) -> Result<Self> {
        if let Some(name) = default.as_ref().filter(|name| !stores.contains_key(*name)) {
            return Err(unknown_store(name, &stores));
        }
        let only = || match stores.len() {
            1 => stores.keys().next().cloned(),
            _ => None,
        };
        let default = default.or_else(only);
        let providers = stores;
        Ok(Self {
            set: Arc::new(Mutex::new(Arc::new(Set { providers, default }))),
            audit: Arc::default(),
            counts: Arc::default(),
        })
    }

    /// Puts the stores of another configuration in the place of these, for all who hold them. A read that is under way
    /// ends with the store that it began with.
    pub fn replace(&self, by: &Self) {
        let set = by.now();
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = set;
    }

    fn now(&self) -> Arc<Set> {
        Arc::clone(&self.set.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes each read to a file too, one JSON object a line.
    #[must_use]
    pub fn audited(mut self, file: Option<PathBuf>) -> Self {
        self.audit = Arc::new(Audit::to(file));
        self
    }

    /// How often references were asked for, by store and outcome.
    pub fn reads(&self) -> Vec<(SectionName, &'static str, Reads)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|((store, outcome), reads)| (store.clone(), *outcome, *reads))
            .collect()
    }

    fn count(&self, store: &SectionName, outcome: &'static str, took: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = counts.entry((store.clone(), outcome)).or_default();
        reads.count += 1;
        reads.took += took;
    }

    /// The name of the store that a reference without one means.
    pub fn default_store(&self) -> Option<SectionName> {
        self.now().default.clone()
    }

    /// Each store with its name.
    pub fn all(&self) -> Vec<(SectionName, Arc<dyn SecretProvider>)> {
        let set = self.now();
        let all = set.providers.iter();
        all.map(|(name, store)| (name.clone(), Arc::clone(store)))
            .collect()
    }

    /// Refuses a reference that no store of the configuration is meant by. Nothing is asked.
    pub fn verify(&self, reference: &Reference) -> Result<()> {
        self.now().store_of(reference).map(drop)
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.now().providers.is_empty()
    }

    /// The values of all references of a run, or an error that names each that cannot be had.
    ///
    /// The error is transient only if nothing but unreachable stores stands in the way.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn resolve(&self, run: RunId, references: &[Reference]) -> Result<Secrets> {
        let mut secrets = Secrets::none();
        let mut errors = Vec::new();
        // An attempt after the first may be one because a value was rotated.
        let fresh = run.attempt_number() > 1;
        let who = run.to_string();
        for (reference, found) in self.read_all(&who, references, fresh).await {
            match found {
                Ok(found) => {
                    secrets.set_origin(reference.as_str(), found.origin());
                    secrets.insert(reference.as_str(), found.value);
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            return Ok(secrets);
        }
        Err(all_of(errors))
    }

    /// What one reference stands for now, past what is remembered; `who` asks, for the audit line.
    pub async fn read(&self, who: &str, reference: &Reference) -> Result<Found> {
        let one = std::slice::from_ref(reference);
        let found = self.read_all(who, one, true).await;
        found.into_iter().next().map_or_else(
            || Err(Error::internal("a reference got no answer")),
            |(_, found)| found,
        )
    }

    /// Asks each store once for each secret, however many references name it; in order of the references.
    async fn read_all(
        &self,
        who: &str,
        references: &[Reference],
        fresh: bool,
    ) -> Vec<(Reference, Result<Found>)> {
        let set = self.now();
        let mut wanted: BTreeMap<(SectionName, SecretName), Vec<&Reference>> = BTreeMap::new();
        let mut answers: BTreeMap<&str, (Reference, Result<Found>)> = BTreeMap::new();
        for reference in references {
            match set.store_of(reference) {
                Ok(store) => {
                    let mut name = reference.name.clone();
                    name.fresh = fresh;
                    let key = (store.clone(), name);
                    let same = wanted.entry(key).or_default();
                    if !same.contains(&reference) {
                        same.push(reference);
                    }
                }
                Err(error) => {
                    answers.insert(reference.as_str(), (reference.clone(), Err(error)));
                }
            }
        }
        let reads: Vec<_> = wanted
            .keys()
            .map(|(store, name)| set.ask(store.clone(), name.clone()))
            .collect();
        let reads: Vec<_> = futures::stream::iter(reads)
            .buffered(AT_A_TIME)
            .collect()
            .await;
        for (((store, _), references), (answer, took)) in wanted.iter().zip(&reads) {
            for reference in references {
                let (found, outcome) = found_in(store, reference, answer);
                self.count(store, outcome, *took);
                let version = answer
                    .as_ref()
                    .ok()
                    .and_then(|secret| secret.version.as_deref());
                self.audit.write(&Line {
                    who,
                    reference,
                    store,
                    version,
                    outcome,
                    took: *took,
                });
                answers.insert(reference.as_str(), ((*reference).clone(), found));
            }
        }
        answers.into_values().collect()
    }
}

impl Set {
    fn store_of(&self, reference: &Reference) -> Result<&SectionName> {
        match (&reference.store, &self.default) {
            (Some(name), _) => match self.providers.get_key_value(name) {
                Some((name, _)) => Ok(name),
                None => Err(Error::invalid(format!(
                    "`{reference}` cannot be read: {}",
                    unknown_store(name, &self.providers).message()
                ))),
            },
            (None, _) if self.is_ambiguous(reference) => {
                let at = reference.name.name.find(':').map_or(0, |at| at + 1);
                let what = "this is the name of a store; write `/` before the path in it, or `%3A` for the `:` of an id";
                Err(reference.refusal(at, what))
            }
            (None, Some(default)) => Ok(default),
            (None, None) if self.providers.is_empty() => Err(Error::invalid(format!(
                "`{reference}` cannot be read: no secret store is configured on this runner; add a section `[secrets.NAME]` with its `kind`"
            ))),
            (None, None) => Err(Error::invalid(format!(
                "`{reference}` cannot be read: it names no store and there is no default one; set `secrets = \"NAME\"` under `[runner]`, or write `secret:NAME:/…` ({})",
                listed(&self.providers)
            ))),
        }
    }

    /// Whether an id could as well mean a store: `prod` or `prod:db` where there is a store `prod`.
    fn is_ambiguous(&self, reference: &Reference) -> bool {
        let text = reference.as_str();
        let place = &text[..text.find(['?', '#']).unwrap_or(text.len())];
        let head = place.split(':').next().unwrap_or_default();
        !place.starts_with('/') && self.providers.keys().any(|store| store.as_str() == head)
    }

    /// One read, within its time.
    async fn ask(&self, store: SectionName, name: SecretName) -> Asked {
        let start = Instant::now();
        let Some(provider) = self.providers.get(&store) else {
            let unknown = unknown_store(&store, &self.providers);
            return (Err(Arc::new(unknown)), Duration::ZERO);
        };
        let answer = tokio::time::timeout(READ_LIMIT, provider.get(&name))
            .await
            .unwrap_or_else(|_| {
                Err(Error::unavailable(format!(
                    "no answer within {READ_LIMIT:?}"
                )))
            });
        let answer = answer.map(|mut secret| {
            // It is written down and shown: what is no version is left out.
            secret.version = secret.version.filter(|version| is_plain(version));
            secret
        });
        (answer.map_err(Arc::new), start.elapsed())
    }
}

/// Whether it may be a version: a few characters of a line.
fn is_plain(version: &str) -> bool {
    version.len() <= 256 && version.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a reference stands for, out of the answer of its store; and the outcome in a word.
fn found_in(
    store: &SectionName,
    reference: &Reference,
    answer: &Result<Secret, Arc<Error>>,
) -> (Result<Found>, &'static str) {
    let picked = match answer {
        Err(error) => Err(share(error)),
        Ok(secret) => field::of(secret, reference.key.as_ref()),
    };
    let (value, by_default) = match (picked, &reference.default) {
        (Ok(value), _) => (value, false),
        (Err(error), Some(default)) if error.kind() == ErrorKind::NotFound => {
            (SecretValue::new(default.as_bytes()), true)
        }
        (Err(error), _) => {
            let outcome = Refusal::of(&error).as_str();
            return (Err(refused(store, reference, &error)), outcome);
        }
    };
    let version = answer
        .as_ref()
        .ok()
        .and_then(|secret| secret.version.clone());
    let found = Found {
        store: store.clone(),
        version,
        by_default,
        value,
    };
    (Ok(found), if by_default { "default" } else { "found" })
}

/// Which reference, which store, why, and what to do, unless the store's own error says so. The cause stands in the
/// message, because several such messages may be joined into one.
fn refused(store: &SectionName, reference: &Reference, error: &Error) -> Error {
    let why = error.report();
    let (what, advice) = match Refusal::of(error) {
        Refusal::NotFound => (
            "is not found in",
            "; create it there, or correct the reference",
        ),
        Refusal::Denied => ("is denied by", "; allow this runner to read it"),
        Refusal::Identity => ("cannot be read with the identity of this runner from", ""),
        Refusal::Disabled => ("is disabled or deleted in", ""),
        Refusal::Throttled => ("cannot be read yet, too many requests to", ""),
        Refusal::Unreachable => {
            let message =
                format!("`{reference}` cannot be read, store `{store}` is unreachable: {why}");
            let told = Refusal::told(error).is_some();
            let advice = if told {
                ""
            } else {
                "; try again when it answers"
            };
            return Error::new(error.kind(), format!("{message}{advice}"));
        }
        _ => ("cannot be read from", ""),
    };
    let told = Refusal::told(error).is_some();
    let advice = if told { "" } else { advice };
    Error::new(
        error.kind(),
        format!("`{reference}` {what} store `{store}`: {why}{advice}"),
    )
}

/// Several errors as one: what trying again cannot help comes first.
fn all_of(mut errors: Vec<Error>) -> Error {
    errors.sort_by_key(Error::is_transient);
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let kind = errors[0].kind();
    let messages: Vec<&str> = errors.iter().map(Error::message).collect();
    Error::new(
        kind,
        format!("{} secrets: {}", errors.len(), messages.join("; ")),
    )
}

fn unknown_store(
    name: &SectionName,
    stores: &BTreeMap<SectionName, Arc<dyn SecretProvider>>,
) -> Error {
    let near = nearest(name.as_str(), stores.keys().map(SectionName::as_str))
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Error::invalid(format!(
        "no store `{name}` is configured on this runner ({}){near}",
        listed(stores)
    ))
}

fn listed(stores: &BTreeMap<SectionName, Arc<dyn SecretProvider>>) -> String {
    if stores.is_empty() {
        return "it has none".to_owned();
    }
    let names: Vec<String> = stores.keys().map(|name| format!("`{name}`")).collect();
    format!("it has {}", names.join(", "))
}

#[cfg(test)]
mod tests;
