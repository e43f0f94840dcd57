//! How a runner tells whether it is the one that was asked before.
//!
//! A start that is delivered twice must start once. The server stores the incarnation under which it
//! first sent a run and repeats it with each delivery; the **runner** decides, never the server: it
//! may start what it does not know only if nothing that could have known it has been lost since.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One life of a runner's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Incarnation {
    /// The kernel's boot id: work that lives in processes is gone with it.
    pub boot: String,
    /// A random id, made together with the state database.
    #[schemars(with = "String")]
    pub state: Uuid,
    /// Raised and synced before each connect; a known `state` whose `seq` did not grow is a copy restored.
    pub seq: u64,
}

impl Incarnation {
    /// An incarnation of these parts.
    pub fn new(boot: impl Into<String>, state: Uuid, seq: u64) -> Self {
        Self {
            boot: boot.into(),
            state,
            seq,
        }
    }

    /// Whether `self`, the runner of now, surely remembers all that was sent to `first`.
    ///
    /// The same boot and the same state, and not an older copy of it.
    pub fn remembers(&self, first: &Self) -> bool {
        self.boot == first.boot && self.state == first.state && self.seq >= first.seq
    }

    /// Whether `self` may follow `last` as the same runner: the same state, with a number that grew.
    pub fn follows(&self, last: &Self) -> bool {
        self.state == last.state && self.seq > last.seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_boot_and_state_not_rolled_back_remembers() {
        let state = Uuid::from_u128(1);
        let first = Incarnation::new("boot", state, 5);
        assert!(Incarnation::new("boot", state, 5).remembers(&first));
        assert!(Incarnation::new("boot", state, 6).remembers(&first));
        assert!(
            !Incarnation::new("boot", state, 4).remembers(&first),
            "restored from an old copy"
        );
        assert!(
            !Incarnation::new("other", state, 6).remembers(&first),
            "rebooted"
        );
        assert!(
            !Incarnation::new("boot", Uuid::from_u128(2), 6).remembers(&first),
            "disk lost"
        );
    }
}
