//! Contract suites and fakes, for our executors and providers and for yours.
//!
//! | file | holds |
//! |---|---|
//! | `script` | what a workload of a test does: shell text for real executors, data for the fake |
//! | `fake` | [`FakeBackend`] and [`FakeExecutor`]: an executor in memory whose every step a test controls |
//! | `executor` | the executor contract: a [`Harness`], the table of [`CASES`], the macro that makes tests of them |
//! | `provider` | the contract of secret stores: a [`ProviderHarness`], [`PROVIDER_CASES`], and a [`FakeProvider`] |
//! | `over_session` | any harness with a session in between |
//! | `search` | looks for values where nobody may find one (feature `_search`) |
//! | `verdict` | what becomes of a promise when it is tried |
//! | `skip` | tests that cannot be made where they are run |
//!
//! Your executor passes when this does:
//!
//! ```
//! use std::sync::Arc;
//!
//! use hybrid_runner_core::Executor;
//! use hybrid_runner_core::testing::{FakeBackend, Harness};
//!
//! struct Mine {
//!     backend: FakeBackend, // a place of its own for yours: a folder, a namespace
//! }
//!
//! #[async_trait::async_trait]
//! impl Harness for Mine {
//!     async fn executor(&self) -> Arc<dyn Executor> {
//!         self.backend.executor() // a new one over the same backend
//!     }
//! }
//!
//! mod contract {
//!     hybrid_runner_core::executor_contract_tests!(super::Mine { backend: Default::default() });
//! }
//! # fn main() {}
//! ```

mod executor;
mod fake;
mod macros;
mod over_session;
mod provider;
mod script;
#[cfg(feature = "_search")]
mod search;
mod skip;
mod verdict;

pub use executor::{
    CASES, Case, Harness, Trial, check_executor_case, executor_contract, processes_of,
};
pub use fake::{Call, Control, FakeBackend, FakeExecutor};
pub use over_session::OverSession;
pub use provider::{
    FakeProvider, PROVIDER_CASES, ProviderCase, ProviderHarness, Trouble, check_provider_case,
    provider_contract,
};
pub use script::{Script, Step, cksum};
#[cfg(feature = "_search")]
pub use search::{Looked, Search};
pub use skip::skipped;
pub use verdict::{Failed, Verdict};
