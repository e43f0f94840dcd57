//! The hybrid runner: runs workflows inside your cloud for a control plane outside of it.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | configuration: layers → raw → checked → built |

pub mod config;
pub mod link;
pub mod policy;
pub mod workflow_file;
