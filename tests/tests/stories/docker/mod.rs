//! The stories of the main job with containers: the real binaries on a real Docker Engine.
//!
//! | file | holds |
//! |---|---|
//! | [`one_line`] | what runs as a process runs as a container, by one line of configuration; what stock images expect |
//! | [`crashes`] | deaths of runner, server and link |
//! | [`engine_dies`] | deaths of the engine, alone and with the runner |
//! | [`leaks`] | no value of a secret is in the engine |
//! | [`stops`] | stops at any moment, also of a pull |
//! | [`blame`] | whose fault it is, in `show`, `exec` and `check` |
//! | [`names`] | what people call their things; two runners on one engine |
//! | [`removal`] | what an engine does not remove is named |
//! | [`many`] | many containers, much output |

mod blame;
mod crashes;
mod engine_dies;
mod leaks;
mod many;
mod names;
mod one_line;
mod removal;
mod stops;
