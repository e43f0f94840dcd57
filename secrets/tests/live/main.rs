//! The stores that are far away, against live servers (`scripts/services/secret-stores`).
//!
//! | file | holds |
//! |---|---|
//! | `services` | where the servers are |
//! | `front` | a proxy before each: TLS by an authority of our own, trouble on demand, a list of what was asked |
//! | `authority` | that authority |
//! | `tunnel` | a proxy for CONNECT, so that a store is called by its real name |
//! | `harness` | what the harnesses share |
//! | `process` | a process with variables, and addresses, of a platform |
//! | `aws`, `azure`, `gcp`, `vault`, `kubernetes` | the contract of each, and what only it does |
//! | `aws/identities`, `azure/identities`, `gcp/identities` | the identities that platforms give |

#![cfg(feature = "_web")]
#![expect(
    clippy::unwrap_used,
    reason = "a harness of tests: a failure is the test's"
)]

mod authority;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod front;
#[cfg(feature = "gcp")]
mod gcp;
mod harness;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod process;
mod services;
mod tunnel;
#[cfg(feature = "vault")]
mod vault;

/// The contract of a store that is far away; skipped where the servers are not.
macro_rules! contract {
    ($harness:expr) => {
        hybrid_runner_core::provider_contract_tests!({
            let Some(harness) = $harness else {
                return crate::services::skipped();
            };
            harness
        });
    };
}
use contract;
