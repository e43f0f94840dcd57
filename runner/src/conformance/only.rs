//! The promises that are asked for.

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::testing::{CASES, PROVIDER_CASES};

use super::WIRE_CASES;

/// Words, one of which stands in the name of each promise that is asked for; without words all are.
pub(super) struct Only(Vec<String>);

impl Only {
    /// A name may be written as it is printed, with spaces, or as the reports have it, with underscores.
    pub(super) fn new(words: &[String]) -> Self {
        let plain = |word: &String| word.trim().to_lowercase().replace([' ', '-'], "_");
        Self(words.iter().map(plain).collect())
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| name.contains(word))
    }

    /// Fails if a word stands in no promise of the contract, or of any if it is not known yet.
    pub(super) fn matches_any(&self, contract: Option<Contract>, is_program: bool) -> Result<()> {
        let executor = CASES.iter().map(|case| case.name);
        let store = PROVIDER_CASES.iter().map(|case| case.name);
        let pipe = WIRE_CASES.iter().map(|case| case.name);
        let executor = executor.filter(|_| contract != Some(Contract::Secrets));
        let store = store.filter(|_| contract != Some(Contract::Executor));
        let names: Vec<&str> = executor
            .chain(store)
            .chain(pipe.filter(|_| is_program))
            .collect();
        let strange = |word: &&String| !names.iter().any(|name| name.contains(word.as_str()));
        match self.0.iter().find(strange) {
            None => Ok(()),
            Some(word) => Err(Error::invalid(format!(
                "no promise has `{}` in its name: leave `--only` out to see all {}",
                shorten(word),
                names.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_found_by_the_name_that_is_printed_and_a_strange_word_is_told() {
        for word in [
            "exit codes",
            "exit_codes",
            "Exit Codes Are Told",
            "exit-codes",
        ] {
            let only = Only::new(&[word.to_owned()]);
            assert!(only.wants("exit_codes_are_told_as_they_were"), "{word}");
            assert!(!only.wants("levels_never_go_back"), "{word}");
            only.matches_any(None, true).unwrap();
        }
        let none = Only::new(&["exit codes".to_owned(), "no such".to_owned()]);
        let error = none.matches_any(None, true).unwrap_err();
        assert!(error.message().contains("`no_such`"), "{error}");
        let pipe = Only::new(&["stdout".to_owned()]);
        assert!(pipe.matches_any(None, true).is_ok() && pipe.matches_any(None, false).is_err());
        let of_stores = Only::new(&["secret_comes_back".to_owned()]);
        assert!(
            of_stores
                .matches_any(Some(Contract::Executor), true)
                .is_err()
        );
        assert!(Only::new(&[]).wants("anything"));
    }
}
