//! The executors over a cluster, on a real one: that which `scripts/services/cluster` has started, whose kubeconfig is
//! `HYBRID_RUNNER_TEST_KUBECONFIG`. Without it these tests are skipped. Each has a namespace of its own, and no more rights in it
//! than `deploy/rbac` gives.
//!
//! | file | shows |
//! |---|---|
//! | `contract` | the executor contract |
//! | `blame` | each failure has its class, and says what to do |
//! | `logs` | the output from every place in it, through broken connections |
//! | `rights` | what is missing in the Role is named |
//! | `secrets` | no value stands anywhere but in the run's Secret, and not after it |
//! | `deaths` | programs of the cluster are killed under a run |
//! | `faults` | we are killed at each step |
//! | `trouble` | the API server answers badly, late, not at all, or by half |
//! | `template` | what a section says of pods and objects |
//! | `argo` | what only Workflows could get wrong |
//! | `over`, `place`, `bench` | Jobs or Workflows; a namespace; what most tests ask |
//! | `fence` | what forbids pods in a namespace, or takes their place |
//! | `webhook` | an admission webhook that says no |
//! | `tunnel`, `front` | a way to the API server that can be cut, and one that spoils its answers |
#![cfg(all(feature = "kubernetes", feature = "argo"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;
mod argo;
mod bench;
mod blame;
mod contract;
mod deaths;
#[cfg(feature = "_faults")]
mod faults;
mod fence;
mod front;
mod logs;
mod over;
mod place;
mod rights;
mod secrets;
mod suspended;
mod template;
mod trouble;
mod tunnel;
mod webhook;
