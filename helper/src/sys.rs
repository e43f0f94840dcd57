//! The system calls that `std` does not have, as safe functions: the only unsafe code of the workspace.
#![expect(
    unsafe_code,
    reason = "safe wrappers of system calls, each with the reason why it is sound"
)]

/// Overwrites bytes so that the compiler cannot leave it out.
pub(crate) fn wipe(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: `byte` is a valid, aligned, exclusive reference.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
}
