//! Two calls whose safety rests on an argument of ours. One of the crate's few rooms with `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;

/// Has tokio wait on a descriptor.
pub(super) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor, the same until it is dropped, and the `AsyncFd` owns it.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// The first of the signals that have no names. The C library keeps this one and the next for itself.
const UNNAMED: i32 = 32;

/// The signal with this number, one without a name too; `None` when there is none.
pub(super) fn signal(number: i32) -> Option<Signal> {
    let unnamed = || (UNNAMED..=libc::SIGRTMAX()).contains(&number);
    // SAFETY: the number is one the kernel has, and it is only sent, to another process: nothing is done to a handler
    // or a mask of ours, which is what the C library's own two must be kept from.
    Signal::from_named_raw(number)
        .or_else(|| unnamed().then(|| unsafe { Signal::from_raw_unchecked(number) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_kernel_is_one_and_nothing_else() {
        assert_eq!(signal(15), Some(Signal::TERM));
        for number in 1..=64 {
            assert_eq!(signal(number).map(Signal::as_raw), Some(number));
        }
        assert_eq!((signal(0), signal(65), signal(-1), signal(1000)), (None, None, None, None));
    }
}
