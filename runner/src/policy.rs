//! What this runner lets a control plane do: `[policy]` of its own configuration.
//!
//! Checked before anything is resolved or started. The server can neither read nor change it, so a
//! refusal tells what would have to be added and nothing of what is there.
//!
//! ```toml
//! [policy]                          # a list that is absent allows everything, an empty one nothing
//! executors = ["here"]              # names out of [executors]
//! images    = ["openmetadata/*"]    # what the workflow asks for; the executor's own, of its section, needs no entry
//! commands  = ["metadata", "/opt/jobs/*"]   # the first word of `command`; "": none, so the image's own entry point
//! secrets   = ["prod:/ingestion/*"] # store:/path
//! ```
//!
//! `*` stands for any characters, `/` too, and `?` for one. A path with a part `..` or `.` in it is
//! matched by `*` alone or by itself, so that no way around a folder matches the folder.

use hybrid_runner_core::id::{SectionName, shorten};
use hybrid_runner_core::run::{Failure, FailureClass, RunSpec};
use hybrid_runner_core::secret::Reference;

/// The longest text that a refusal repeats as a whole.
const SHOWN: usize = 256;

/// What is allowed. The default allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Names out of `[executors]`.
    pub executors: Option<Vec<String>>,
    /// Images that workflows ask for.
    pub images: Option<Vec<String>>,
    /// First words of commands.
    pub commands: Option<Vec<String>>,
    /// References, in the form `store:/path`.
    pub secrets: Option<Vec<String>>,
}

impl Policy {
    /// Refuses a run that is not allowed; the failure has the line that would allow it.
    ///
    /// `default_store` is what a reference without a store means.
    pub fn check(
        &self,
        spec: &RunSpec,
        executor: &SectionName,
        default_store: Option<&SectionName>,
    ) -> Result<(), Failure> {
        let executor = executor.as_str();
        allow("executors", self.executors.as_deref(), "executor", executor)?;
        if let Some(image) = &spec.image {
            allow("images", self.images.as_deref(), "image", image)?;
        }
        // Without a command the image's own runs: that is the command `""`.
        let commands = self.commands.as_deref();
        match spec.command.iter().flatten().next() {
            Some(command) => allow("commands", commands, "command", command)?,
            None if commands.is_none_or(|globs| is_allowed(globs, "")) => {}
            None => return Err(own_entry_point()),
        }
        if self.secrets.is_none() {
            return Ok(());
        }
        let references = spec
            .references()
            .map_err(|error| Failure::new(FailureClass::Spec, error.report()))?;
        for reference in references {
            let place = place_of(&reference, default_store);
            allow("secrets", self.secrets.as_deref(), "secret", &place)?;
        }
        Ok(())
    }
}

/// `store:/path`, whatever else the reference says.
fn place_of(reference: &Reference, default_store: Option<&SectionName>) -> String {
    let store = reference.store.as_ref().or(default_store);
    let store = store.map_or("", SectionName::as_str);
    format!("{store}:{}", reference.name)
}

fn allow(list: &str, globs: Option<&[String]>, what: &str, text: &str) -> Result<(), Failure> {
    if globs.is_none_or(|globs| is_allowed(globs, text)) {
        return Ok(());
    }
    // A string of JSON is a string of TOML too.
    let missing = serde_json::Value::String(text.chars().take(SHOWN).collect());
    Err(Failure::new(
        FailureClass::Policy,
        format!(
            "the policy of this runner does not allow {what} `{}`; its operator can, with the line `{list} = [{missing}]` under `[policy]` (beside what that list holds already)",
            shorten(text)
        ),
    ))
}

/// Whether one of the globs is for this text.
fn is_allowed(globs: &[String], text: &str) -> bool {
    let winding = text
        .split(['/', ':'])
        .any(|part| matches!(part, "." | ".."));
    globs.iter().any(|glob| {
        if winding {
            glob == "*" || glob == text
        } else {
            matches(glob, text)
        }
    })
}

/// A workflow without `command`, where the image's own entry point is not allowed.
fn own_entry_point() -> Failure {
    Failure::new(
        FailureClass::Policy,
        "the policy of this runner does not allow the image's own entry point: name a `command` in the workflow that it allows; \
         or its operator can allow the entry point of every image that may run, with the line `commands = [\"\"]` under `[policy]` \
         (beside what that list holds already; the empty text stands for a workflow without `command`)",
    )
}

/// Whether a glob matches a whole text: `*` any characters, `?` one.
fn matches(glob: &str, text: &str) -> bool {
    let glob: Vec<char> = glob.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut g, mut t) = (0, 0);
    // Where to go on if the last `*` has to take one character more.
    let mut again = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                again = Some((g + 1, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((after, taken)) = again else {
                    return false;
                };
                again = Some((after, taken + 1));
                (g, t) = (after, taken + 1);
            }
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_runner_core::RunId;

    fn list(globs: &[&str]) -> Vec<String> {
        globs.iter().map(|glob| (*glob).to_owned()).collect()
    }

    fn spec(image: Option<&str>, command: &[&str]) -> RunSpec {
        let name = "orders".parse().unwrap();
        let mut spec = RunSpec::new(RunId::generate(), name, command.iter().copied());
        spec.image = image.map(str::to_owned);
        if command.is_empty() {
            spec.command = None;
        }
        spec
    }

    fn check(policy: &Policy, spec: &RunSpec, references: &[&str]) -> Result<(), Failure> {
        let mut spec = spec.clone();
        for (i, reference) in references.iter().enumerate() {
            spec.env
                .insert(format!("V{i}"), format!("secret:{reference}"));
        }
        let store = "prod".parse().unwrap();
        policy.check(&spec, &"here".parse().unwrap(), Some(&store))
    }

    #[test]
    fn globs_match_whole_texts() {
        for (glob, text, want) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?c", "aéc", true),
            ("*b*", "abc", true),
            ("a*b*c", "a/b/b/c", true),
            ("a*b*c", "a/b/b", false),
            ("openmetadata/*", "openmetadata/ingestion:1", true),
            ("openmetadata/*", "evil/openmetadata/x", false),
            ("*?", "", false),
            ("**a", "ba", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(matches(glob, text), want, "{glob} {text}");
        }
    }

    #[test]
    fn a_hostile_glob_takes_no_time() {
        let (glob, text) = ("*a".repeat(100) + "b", "a".repeat(10_000));
        assert!(!matches(&glob, &text));
    }

    #[test]
    fn an_absent_list_allows_everything_and_an_empty_one_nothing() {
        let all = Policy::default();
        check(&all, &spec(Some("x"), &["y"]), &["/a", "test:/b"]).unwrap();
        for none in [
            Policy {
                executors: Some(list(&[])),
                ..Policy::default()
            },
            Policy {
                images: Some(list(&[])),
                ..Policy::default()
            },
            Policy {
                commands: Some(list(&[])),
                ..Policy::default()
            },
            Policy {
                secrets: Some(list(&[])),
                ..Policy::default()
            },
        ] {
            assert!(check(&none, &spec(Some("x"), &["y"]), &["/a"]).is_err());
        }
    }

    #[test]
    fn a_reference_is_matched_with_its_store() {
        let policy = Policy {
            secrets: Some(list(&["prod:/ingestion/*"])),
            ..Policy::default()
        };
        let run = spec(None, &["x"]);
        let check = |reference| check(&policy, &run, &[reference]);
        for allowed in ["/ingestion/a", "prod:/ingestion/a?version=1&default=x#k"] {
            check(allowed).unwrap();
        }
        for refused in [
            "/other",
            "test:/ingestion/a",
            "/ingestion/../other",
            "/ingestion/%2E%2E/other",
            "arn:aws:secretsmanager:x:1:secret:prod:/ingestion/a",
        ] {
            assert!(check(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_command_is_matched_by_its_first_word_and_cannot_wind_out() {
        let policy = Policy {
            commands: Some(list(&["metadata", "/opt/*"])),
            ..Policy::default()
        };
        for (command, allowed) in [
            (&["metadata", "ingest"][..], true),
            (&["/opt/job"], true),
            (&["/opt/../bin/sh"], false),
            (&["sh", "-c", "metadata"], false),
            (&["$(WORKFLOW_NAME)"], false),
            (&[], false),
        ] {
            let answer = check(&policy, &spec(Some("i"), command), &[]);
            assert_eq!(answer.is_ok(), allowed, "{command:?}");
        }
        let own = Policy {
            commands: Some(list(&[""])),
            ..Policy::default()
        };
        check(&own, &spec(Some("i"), &[]), &[]).unwrap();
        let refusal = check(&policy, &spec(Some("i"), &[]), &[]).unwrap_err();
        assert_eq!(refusal.class, FailureClass::Policy);
        for words in [
            "image's own entry point",
            "`command`",
            r#"`commands = [""]`"#,
        ] {
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
        assert!(!refusal.message.contains("``"), "{}", refusal.message);
    }

    #[test]
    fn an_executor_without_an_image_in_the_workflow_uses_its_own() {
        let policy = Policy {
            images: Some(list(&["a/*"])),
            ..Policy::default()
        };
        check(&policy, &spec(None, &["x"]), &[]).unwrap();
        check(&policy, &spec(Some("a/b"), &["x"]), &[]).unwrap();
        assert!(check(&policy, &spec(Some("b/a"), &["x"]), &[]).is_err());
    }

    #[test]
    fn a_refusal_is_of_class_policy_and_has_the_line_that_would_allow_it() {
        let policy = Policy {
            images: Some(list(&["private/*"])),
            ..Policy::default()
        };
        let failure = check(&policy, &spec(Some("evil/\"x"), &["y"]), &[]).unwrap_err();
        assert_eq!(failure.class, FailureClass::Policy);
        assert!(
            failure.message.contains(r#"`images = ["evil/\"x"]`"#),
            "{}",
            failure.message
        );
        assert!(
            !failure.message.contains("private"),
            "the server cannot read the policy"
        );
        let line = r#"images = ["evil/\"x"]"#;
        let allowed: Vec<String> = serde_json::from_str(&line["images = ".len()..]).unwrap();
        let policy = Policy {
            images: Some(allowed),
            ..Policy::default()
        };
        check(&policy, &spec(Some("evil/\"x"), &["y"]), &[]).unwrap();
    }
}
