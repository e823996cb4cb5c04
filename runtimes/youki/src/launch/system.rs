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

/// The signal with this number, a real-time one too; `None` when there is none.
pub(super) fn signal(number: i32) -> Option<Signal> {
    let realtime = || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
    // SAFETY: the number is one that programs may use as they like, and it is only sent.
    Signal::from_named_raw(number)
        .or_else(|| realtime().then(|| unsafe { Signal::from_raw_unchecked(number) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_and_real_time_signals_are_signals() {
        assert_eq!(signal(15), Some(Signal::TERM));
        assert_eq!(signal(libc::SIGRTMIN() + 3).map(Signal::as_raw), Some(libc::SIGRTMIN() + 3));
        assert_eq!((signal(0), signal(32), signal(-1), signal(1000)), (None, None, None, None));
    }
}
