//! Programs in sessions of their own.

use std::process::Command;

use crate::sys;

/// Lets the program of a command lead a session of its own, and a process group with it: no terminal's signal reaches it, and
/// whatever it starts is known by the session's number, which is its own, until that makes a session in turn. The command
/// must not name a process group besides.
pub fn own(command: &mut Command) {
    sys::lead_session_as(command);
}
