//! The stories of the main job with containers: the real binaries on a real Docker Engine.
//!
//! | file | holds |
//! |---|---|
//! | [`one_line`] | what runs as a process runs as a container, by one line of configuration; what stock images expect |
//! | [`crashes`] | deaths of runner, server and link |
//! | [`engine_dies`] | deaths of the engine, alone and with the runner |

mod crashes;
mod engine_dies;
mod one_line;
