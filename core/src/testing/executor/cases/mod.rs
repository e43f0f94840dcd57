//! The cases, each under the name of its promise.

pub(super) mod check;
pub(super) mod limits;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod remove;
pub(super) mod start;
pub(super) mod stop;
pub(super) mod surroundings;
pub(super) mod watch;
