//! Waiting for processes and descriptors. Touches nothing.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::error::{Doing as _, Error, Result};

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: Pid) -> Result<OwnedFd> {
    let raw = rustix::process::Pid::from_raw(pid.as_raw());
    let raw = raw.ok_or_else(|| Error::Asked(format!("{pid} is no process")))?;
    pidfd_open(raw, PidfdFlags::empty()).doing(|| format!("watch process {pid}"))
}

/// Waits until one of them can be read.
pub(crate) fn for_any(fds: &[BorrowedFd<'_>]) -> Result<()> {
    readable(fds, None).map(drop)
}

/// Whether it can be read now.
pub(crate) fn is_ready(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(readable(&[fd], Some(0))?[0])
}

/// Which of them can be read (or are at their end), after at most so many milliseconds.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], millis: Option<u64>) -> Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = millis.map(|ms| Timespec {
        tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    });
    loop {
        match poll(&mut polled, limit.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => {
                outcome.doing(|| "wait".into())?;
                return Ok(polled.iter().map(|p| !p.revents().is_empty()).collect());
            }
        }
    }
}

/// The exit code of an ended process; 128 + n for signal n.
pub(crate) fn code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 255,
    }
}
