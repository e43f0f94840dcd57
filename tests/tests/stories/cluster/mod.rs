//! The stories of the main job in a real Kubernetes, as Jobs or as Workflows of Argo.
//!
//! | file | holds |
//! |---|---|
//! | [`many`] | many runs at once on one node |
//! | [`inside`] | the runner itself as a pod, by the seed's five variables |
//! | [`chart`] | every variable that the existing chart sets |

mod chart;
mod inside;
mod many;
