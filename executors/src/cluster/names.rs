//! Names, labels and annotations: how our objects are told from others in a cluster that we share.
//!
//! Everything of a run is found by its id alone. Its object is called `hr-<owner>-<uuid>-<attempt>`, which is at most 63
//! characters: the longest that a label, and so the name of a Job, may have.

use std::collections::BTreeMap;

use hybrid_runner_core::RunId;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::run::RunSpec;
use sha2::{Digest as _, Sha256};

/// All our labels and annotations begin with it.
pub(crate) const PREFIX: &str = "hybrid-runner.io/";
/// Whose it is.
pub(crate) const OWNER: &str = "hybrid-runner.io/owner";
/// The attempt.
pub(crate) const RUN: &str = "hybrid-runner.io/run";
/// Of a pod that reads an archived log, and belongs to no run: the name of its object.
pub(crate) const READS: &str = "hybrid-runner.io/reads";
/// The runner, for people.
pub(crate) const RUNNER: &str = "hybrid-runner.io/runner";
/// The workflow's name: as a label shortened if need be, whole as an annotation.
pub(crate) const WORKFLOW: &str = "hybrid-runner.io/workflow";
/// The labels of the workflow.
const LABEL_PREFIX: &str = "label.hybrid-runner.io/";
/// The selector that shows what is of any runner.
pub(crate) const OF_ANY: &str = "app.kubernetes.io/managed-by=hybrid-runner,hybrid-runner.io/run";
/// A label's value is at most this long.
const LONGEST: usize = 63;

/// The names of one owner's objects.
#[derive(Debug, Clone)]
pub(crate) struct Names(Owner);

impl Names {
    pub(crate) fn of(owner: Owner) -> Self {
        Self(owner)
    }

    /// The object of a run, and its Secret.
    pub(crate) fn object(&self, run: RunId) -> String {
        format!(
            "hr-{}-{}-{}",
            self.0,
            run.uuid().simple(),
            run.attempt_number()
        )
    }

    /// The labels of everything that belongs to a run.
    pub(crate) fn labels(&self, run: RunId) -> BTreeMap<String, String> {
        let labels = [
            (OWNER, self.0.to_string()),
            (RUN, run.to_string()),
            ("app.kubernetes.io/managed-by", "hybrid-runner".to_owned()),
            ("app.kubernetes.io/instance", self.object(run)),
        ];
        labels.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Those of its object and its pods, for people too: ours win.
    pub(crate) fn all_labels(
        &self,
        spec: &RunSpec,
        given: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut labels = given.clone();
        for (name, value) in &spec.labels {
            if is_label_name(name) {
                labels.insert(format!("{LABEL_PREFIX}{name}"), label_value(value));
            }
        }
        let name = label_value(spec.name.as_str());
        labels.insert("app.kubernetes.io/name".to_owned(), name.clone());
        labels.insert(WORKFLOW.to_owned(), name);
        if let Some(runner) = &spec.runner {
            labels.insert(RUNNER.to_owned(), label_value(runner.as_str()));
        }
        labels.extend(self.labels(spec.run));
        labels
    }

    /// The selector that shows only what is ours.
    pub(crate) fn selector(&self) -> String {
        format!("{OWNER}={}", self.0)
    }

    /// The selector that shows only what belongs to this run.
    pub(crate) fn selector_of(&self, run: RunId) -> String {
        format!("{},{RUN}={run}", self.selector())
    }
}

/// The run that a labelled object belongs to.
pub(crate) fn run_of(labels: Option<&BTreeMap<String, String>>) -> Option<RunId> {
    labels?.get(RUN)?.parse().ok()
}

/// Whether this can be the name of a label, behind a prefix.
pub(crate) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && is_label_value(name)
}

/// Whether this can be a part of a DNS name, and so the name of a namespace.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= LONGEST && is_dns_part(text)
}

fn is_dns_part(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = |c: char| is_plain(c) || c == '-';
    text.starts_with(is_plain) && text.ends_with(is_plain) && text.chars().all(fits)
}

/// Whether this can be the name of a label or an annotation: `example.com/team`, or without what stands before the `/`.
pub(crate) fn is_qualified_name(name: &str) -> bool {
    match name.split_once('/') {
        None => is_label_name(name),
        Some((prefix, name)) => is_object_name(prefix) && is_label_name(name),
    }
}

/// Whether this can be the name of an object: most are DNS names.
pub(crate) fn is_object_name(name: &str) -> bool {
    const LONGEST: usize = 253;
    name.len() <= LONGEST && name.split('.').all(is_dns_part)
}

/// Whether this can be the value of a label.
pub(crate) fn is_label_value(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric();
    let fits = |c: char| is_plain(c) || matches!(c, '-' | '_' | '.');
    text.len() <= LONGEST
        && text.chars().all(fits)
        && text.starts_with(is_plain) != text.is_empty()
        && text.ends_with(is_plain) != text.is_empty()
}

/// A text as the value of a label: as it is if it can be one, else its beginning and a hash of the whole.
pub(crate) fn label_value(text: &str) -> String {
    if is_label_value(text) {
        return text.to_owned();
    }
    let digest = Sha256::digest(text);
    let hash = digest[..8]
        .iter()
        .fold(0_u64, |head, byte| (head << 8) | u64::from(*byte));
    let head: String = text
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(LONGEST - 17)
        .collect();
    if head.is_empty() {
        format!("{hash:016x}")
    } else {
        format!("{head}-{hash:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_always_fits_and_is_another_for_each_attempt() {
        let names = Names::of(Owner::of("server", &"agent".parse().unwrap()));
        let run = RunId::generate();
        let longest = names.object(run.attempt(u32::MAX));
        assert_eq!(longest.len(), 63, "{longest}");
        assert_ne!(names.object(run.attempt(1)), names.object(run.attempt(11)));
        let other = Names::of(Owner::of("server", &"other".parse().unwrap()));
        assert_ne!(names.object(run), other.object(run));
    }

    #[test]
    fn any_text_becomes_the_value_of_a_label() {
        for same in ["", "orders", "a.b_c-d", "0"] {
            assert_eq!(label_value(same), same);
        }
        let long = "x".repeat(200);
        for text in ["orders.", "-a", "a b", "ü", "日本", long.as_str()] {
            let value = label_value(text);
            assert!(
                is_label_value(&value) && !value.is_empty(),
                "{text}: {value}"
            );
        }
        assert_ne!(label_value("a b"), label_value("a  b"));
    }

    #[test]
    fn names_of_labels_are_told_from_others() {
        for name in ["team", "a.b/c_d", "example.com/Team", "0-1.x/y"] {
            assert!(is_qualified_name(name), "{name}");
        }
        for other in [
            "", "/", "a/", "/a", "A.b/c", "a b", "a/b/c", "-a/b", "a..b/c", "ü",
        ] {
            assert!(!is_qualified_name(other), "{other}");
        }
    }

    #[test]
    fn what_is_ours_wins_over_what_was_given() {
        let names = Names::of(Owner::of("server", &"agent".parse().unwrap()));
        let mut spec = RunSpec::new(RunId::generate(), "a".parse().unwrap(), ["x"]);
        spec.labels.insert("team".into(), "data & more".into());
        spec.labels.insert("not a name".into(), "x".into());
        let given = [(OWNER.to_owned(), "theirs".to_owned())].into();
        let labels = names.all_labels(&spec, &given);
        assert_eq!(labels[OWNER], names.0.as_str());
        assert!(labels["label.hybrid-runner.io/team"].starts_with("datamore-"));
        assert_eq!(run_of(Some(&labels)), Some(spec.run));
    }
}
