//! What the executors over a Kubernetes cluster share.
//!
//! | file | holds |
//! |---|---|
//! | `access`, `client`, `proxy` | keys of a section that say which cluster; the connection; the way there |
//! | `error`, `rights` | answers of the API server in words of the contract; what we may do there, asked beforehand |
//! | `names` | names, labels and annotations of our objects |
//! | `template`, `pod` | a partial object merged into another; the pod that a run becomes |
//! | `delivery` | the Secret by which values reach the workload, and from which they are masked |
//! | `seen`, `board` | what we want to know of a pod; one watch for each kind, shared by all runs |
//! | `blame`, `events` | whose fault it is, by the pod's own words, and by what the cluster says of an object |
//! | `records`, `place`, `logs` | lines of a container's log; a place in it; following it |
//!
//! An executor brings its own object (a Job, a Workflow): how it is made, how it stands, and how it ends.

pub(crate) mod access;
pub(crate) mod blame;
pub(crate) mod board;
pub(crate) mod client;
pub(crate) mod delivery;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod logs;
pub(crate) mod names;
pub(crate) mod place;
pub(crate) mod pod;
mod proxy;
pub(crate) mod records;
pub(crate) mod rights;
pub(crate) mod seen;
pub(crate) mod template;
