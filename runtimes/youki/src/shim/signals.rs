//! How signals reach the container's program: as a fresh process expects them. One of the crate's few rooms with
//! `unsafe`.
#![allow(unsafe_code)]

use rustix::io::Errno;

/// Highest signal of Linux.
const LAST: libc::c_int = 64;
/// Size of the kernel's signal set.
const SET: usize = 8;

/// Gives every signal its default effect. A program keeps across execve what is ignored: Rust ignores SIGPIPE from its
/// start, glibc's `posix_spawn` the two signals it uses itself, and a service manager perhaps more.
pub(super) fn reset() -> Result<(), Errno> {
    // The kernel's `struct sigaction` is at most this long; all zero, it is the default effect without flags or mask.
    let default = [0_u64; 4];
    for signal in (1..=LAST).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: the kernel only reads the struct, which outlives the call; no handler is installed, so no code of ours
        // runs in a signal. The C library's function refuses its own two signals.
        let done = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), SET)
        };
        if done != 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
        }
    }
    Ok(())
}
