//! Where the masked output of a workload goes: into a spool, or on to the engine of a container.

use crate::spool::Kind;
use crate::sys::Wait;

/// Takes the output of a workload.
pub(crate) trait Outlet {
    /// Takes output of a stream. `framed` is a header's length of any bytes, which may be overwritten, and the output.
    fn output(&mut self, kind: Kind, framed: &mut [u8]);

    /// Passes on a line of the helper's own. A spool has none.
    fn say(&mut self, _line: &[u8]) {}

    /// Whether output of this stream has to wait.
    fn blocks(&self, _kind: Kind) -> bool {
        false
    }

    /// Whether any output waits.
    fn is_blocked(&self) -> bool {
        self.blocks(Kind::Out) || self.blocks(Kind::Err)
    }

    /// What the output of this stream waits for.
    fn wait(&self, _kind: Kind) -> Wait<'_> {
        Wait::Never
    }

    /// Passes on what waits in this stream, as far as it is taken.
    fn flush(&mut self, _kind: Kind) {}

    /// Waits no more for a reader that has not taken all.
    fn abandon(&mut self) {}
}
