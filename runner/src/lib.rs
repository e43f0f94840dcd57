//! The hybrid runner: runs workflows inside your cloud for a control plane outside of it.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | configuration: layers → raw → checked → built |
//! | [`link`] | the link to the control plane |
//! | [`logging`] | our own log |

pub mod config;
pub mod link;
pub mod logging;
pub mod policy;
pub mod supervisor;
