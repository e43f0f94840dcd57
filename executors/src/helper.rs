//! The helper's program, carried inside this one.

/// Its bytes: static, so that they run on any Linux of this architecture, in whatever container.
pub(crate) const fn program() -> &'static [u8] {
    // Built by `build.rs`. In a static, so that it is there once.
    static PROGRAM: &[u8] = include_bytes!(env!("HYBRID_RUNNER_HELPER"));
    PROGRAM
}
