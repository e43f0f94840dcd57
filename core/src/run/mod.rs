//! A run: what is to be done, how it stands, how it ended.

mod render;
mod spec;
mod status;
mod told;

pub use render::{CONFIG_PLACE, Rendered, WORKFLOW_CONFIG, render};
pub use spec::{Amounts, ConfigEnv, FailureFilter, Limits, Resources, Retries, RunSpec};
pub use status::{Failure, FailureClass, Mender, Outcome, State, Status, Times};
pub use told::Told;
