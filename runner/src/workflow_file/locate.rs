//! Finding the place of what only the whole workflow could tell is wrong.

use std::fmt;

use hybrid_runner_core::secret::Template;
use hybrid_runner_core::workflow::Workflow;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Place, place_of};

/// A file with the place of each value.
enum Tree {
    Text(String),
    Members(Vec<(Spanned<String>, Spanned<Tree>)>),
    Items(Vec<Spanned<Tree>>),
    Other,
}

/// Where the first thing stands that makes the workflow invalid, if it stands in one place.
pub(super) fn culprit(text: &str, workflow: &Workflow) -> Option<Place> {
    let tree: Tree = serde_saphyr::from_str_with_options(text, super::options()).ok()?;
    let Tree::Members(fields) = tree else {
        return None;
    };
    let field = |name: &str| fields.iter().find(|(key, _)| key.value == name);
    let empty =
        |value: &&Spanned<Tree>| matches!(&value.value, Tree::Text(text) if text.trim().is_empty());
    if let Some(image) = field("image").map(|(_, image)| image).filter(empty) {
        return place_of(image.referenced);
    }
    let seen_by_others = ["command", "args", "image", "workdir", "labels"];
    let mut seen_by_others = seen_by_others.into_iter().filter_map(field);
    if let Some(place) = seen_by_others.find_map(|(_, value)| misplaced(value)) {
        return Some(place);
    }
    let entries = ["env", "files"].into_iter().filter_map(field);
    for (_, entries) in entries {
        let Tree::Members(entries) = &entries.value else {
            continue;
        };
        for (key, value) in entries {
            if !can_be_a_variable(workflow, &key.value) {
                return place_of(key.referenced);
            }
            if let Some(place) = malformed(value) {
                return Some(place);
            }
        }
    }
    let version = field("version").filter(|_| workflow.version != 1);
    let config = field("config").and_then(|(_, config)| malformed(config));
    config.or_else(|| version.and_then(|(_, version)| place_of(version.referenced)))
}

/// Whether the workflow is valid, as far as this name is concerned.
fn can_be_a_variable(workflow: &Workflow, name: &str) -> bool {
    let mut least = workflow.clone();
    least.env.clear();
    least.files.clear();
    least.config = None;
    least.config_env = None;
    if least.validate().is_err() {
        return true;
    }
    least.env.insert(name.to_owned(), String::new());
    least.validate().is_ok()
}

/// The place of the first malformed reference in a value.
fn malformed(value: &Spanned<Tree>) -> Option<Place> {
    first(value, |text| Template::parse(text).is_err())
}

/// The place of the first text that has a reference.
fn misplaced(value: &Spanned<Tree>) -> Option<Place> {
    first(value, |text| Template::hidden_in(text).is_some())
}

/// The place of the first text in a value that is wrong.
fn first(value: &Spanned<Tree>, wrong: fn(&str) -> bool) -> Option<Place> {
    match &value.value {
        Tree::Text(text) => wrong(text).then(|| place_of(value.referenced))?,
        Tree::Members(members) => members.iter().find_map(|(_, member)| first(member, wrong)),
        Tree::Items(items) => items.iter().find_map(|item| first(item, wrong)),
        Tree::Other => None,
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Tree::Items(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Tree::Members(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
