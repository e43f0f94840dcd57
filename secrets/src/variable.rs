//! Names of secrets as names of variables.

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::secret::SecretName;

/// The variable that a name stands for: without its leading slash, in capitals, and with `_` for all
/// that cannot stand in a variable.
///
/// OpenMetadata replaces what a store cannot hold in the same way; `/db/my-user` is `DB_MY_USER`.
pub(crate) fn variable_of(name: &SecretName) -> String {
    name.relative()
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
            _ => '_',
        })
        .collect()
}

/// Refuses what a store of plain names and values cannot be asked for.
pub(crate) fn refuse_impossible(name: &SecretName) -> Result<()> {
    if name.version.is_some() || name.stage.is_some() {
        return Err(Error::invalid(
            "this store has no versions; leave `?version=` and `?stage=` out",
        ));
    }
    if name.relative().is_empty() || name.name.chars().any(char::is_control) {
        return Err(Error::invalid(
            "the name is empty or has control characters in it",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_variable() {
        for (name, variable) in [
            ("/db/my-user", "DB_MY_USER"),
            ("/DB_USER", "DB_USER"),
            ("/é.x", "__X"),
            ("id", "ID"),
        ] {
            assert_eq!(variable_of(&SecretName::new(name)), variable);
        }
    }
}
