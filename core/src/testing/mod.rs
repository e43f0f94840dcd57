//! Contract suites and fakes, for our executors and providers and for yours.
//!
//! | file | holds |
//! |---|---|
//! | `script` | what a workload of a test does: shell text for real executors, data for the fake |
//! | `fake` | [`FakeBackend`] and [`FakeExecutor`]: an executor in memory whose every step a test controls |

mod fake;
mod script;

pub use fake::{Call, Control, FakeBackend, FakeExecutor};
pub use script::{Script, Step, cksum};
