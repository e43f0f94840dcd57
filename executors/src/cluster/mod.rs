//! An executor over a Kubernetes cluster, but for the kind of object that runs a pod for us.
//!
//! The cluster is the database: names and labels say what is ours, and everything here works from the id of a run alone. An
//! object is made held back, gets a Secret of its own if there are values to hand over, and is let go: from then on the cluster
//! runs it without us, once. A module for each kind (`kubernetes`: Jobs, `argo`: Workflows) says how such an object looks and how it stands.
//!
//! | file | holds |
//! |---|---|
//! | `config` | the section `[executors.NAME]` |
//! | `runs` | the executor contract, by the other files |
//! | `object` | what a module says of its kind of object; what we want to know of one; the marks that we leave on it |
//! | `access`, `client`, `lean`, `proxy` | keys of a section that say which cluster; the connection; one for each watch and each followed log; the way there |
//! | `error`, `rights`, `check`, `trial` | answers of the API server in words of the contract; what we may do there; what the doctor finds; what the API server would say of an object |
//! | `names` | names, labels and annotations of our objects |
//! | `template`, `pod`, `plan`, `start` | a partial object merged into another; the pod, and the object, that a run becomes; the steps of its start |
//! | `delivery` | the Secret by which values reach the workload, and from which they are masked |
//! | `seen`, `board`, `look` | what we want to know of a pod; one watch for each kind, shared by all runs; how a run stands |
//! | `watch`, `status`, `blame`, `events` | the levels; the words of the contract; whose fault it is, by the pod's own words, and by the cluster's of an object |
//! | `records`, `remarks`, `place`, `logs`, `output` | lines of a container's log; those of its first process; a place in it; following it; masked |
//! | `archive` | the log of a pod that is gone, if the cluster archived it |
//! | `stop` | stop and remove |

mod access;
mod archive;
mod blame;
mod board;
mod check;
mod client;
pub(crate) mod config;
mod delivery;
mod error;
mod events;
mod lean;
mod logs;
mod look;
pub(crate) mod names;
pub(crate) mod object;
mod output;
mod place;
mod plan;
pub(crate) mod pod;
mod proxy;
mod records;
mod remarks;
pub(crate) mod rights;
pub(crate) mod runs;
mod seen;
mod start;
mod status;
mod stop;
pub(crate) mod template;
mod trial;
mod watch;

pub(crate) use blame::deleted;
