//! What makes an executor of questions that are asked again and again: for backends that only answer.
//!
//! | file | holds |
//! |---|---|
//! | `backend` | [`Backend`]: the least that a scheduler answers; [`Polled`]: the executor that is made of it |
//! | `levels` | [`watch`], made of the question how a run stands |
//! | `output` | [`logs`], made of the question what a run wrote from some byte on |

mod backend;
mod levels;
mod output;

pub use backend::{Backend, Polled};
pub use levels::watch;
pub use output::{Output, logs, no_logs};
