//! What the cursors of several executors have in common: they tell their run by a hash, and refuse another one.

use hybrid_runner_core::RunId;

/// The hash of nothing.
pub(crate) const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// What tells the cursors of one run from those of another.
pub(crate) fn tag(run: RunId) -> u64 {
    hash(run.to_string().as_bytes())
}

/// FNV-1a: the same for ever, and fast enough for each byte of each log.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    hash_on(SEED, bytes)
}

/// The same, going on from the hash of what comes before.
pub(crate) fn hash_on(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
