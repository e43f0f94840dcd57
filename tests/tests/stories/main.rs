//! Stories of the whole product: the real binaries, real sockets, real processes.
//!
//! | file | holds |
//! |---|---|
//! | [`main_job`] | a workflow arrives, runs, and its status and log come back; each way to fail |
//! | [`p1_once`] | an attempt starts at most once and ends exactly once, whoever dies and at which step |
//! | [`p2_survives`] | deaths of runner, server, link and helper |
//! | [`p3_outage`] | a server that is away, a disk that is full |
//! | [`p4_secrets`] | no value leaves |
//! | [`p4_search`] | the same by search: fifty values in each form, in every place |
//! | [`p5_closed`] | what cannot be resolved does not start |
//! | [`p6_stop`] | stop wins over what has not happened, never over an end |
//! | [`p7_link_down`] | without a link the work goes on, and nothing is invented |
//! | [`p8_bounds`] | memory and disk are bounded |
//! | [`p9_health`] | readiness tells the truth |
//! | [`p10_bad_input`] | files, frames, tokens and state that are wrong |
//! | [`admission`] | who may connect: live ids, tokens, TLS |
//! | [`commands`] | what people type, and how it exits |
//! | [`argo`] | the seed's five variables, and a workflow that becomes one of Argo |
//! | [`cluster`] | the same in a Kubernetes, also with the runner inside of it |
//! | [`clouds`] | one workflow, every secret store: only the configuration changes |
//! | [`docker`] | the same with containers of a Docker Engine |
//! | [`kubernetes`] | a runner without a disk, and two of one name, in a cluster |
//! | [`openmetadata`] | the real input of the main job |
//! | [`rotation`] | a token and a configuration that change while the runner runs |
//! | [`plugins`] | a plugin under the real runner, killed again and again |

mod admission;
mod argo;
mod clouds;
mod cluster;
mod commands;
mod docker;
mod kubernetes;
mod main_job;
mod openmetadata;
mod p10_bad_input;
mod p1_once;
mod p2_survives;
mod p3_outage;
mod p4_search;
mod p4_secrets;
mod p5_closed;
mod p6_stop;
mod p7_link_down;
mod p8_bounds;
mod p9_health;
mod plugins;
mod rotation;
