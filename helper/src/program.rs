//! The command line: which role it is.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::report::exit;
use crate::{container, init, run, sys};

/// The body of `main`.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    sys::close_inherited();
    let (Some(role), Some(subject), None) = (args.nth(1), args.next(), args.next()) else {
        return ExitCode::from(exit::USAGE);
    };
    ExitCode::from(match (role.to_str(), subject.to_str()) {
        (Some("run"), _) => run::main(Path::new(&subject)),
        (Some(container::ROLE), Some(mark)) if container::is_mark(mark) => init::main(mark),
        _ => exit::USAGE,
    })
}
