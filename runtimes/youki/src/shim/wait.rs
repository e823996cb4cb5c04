//! Waiting for processes and descriptors. Touches nothing.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{PidfdFlags, WaitOptions, WaitStatus, pidfd_open};

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

/// Waits for the end of a child. Its exit code; 128 + n for signal n, real-time ones too, which nix does not know.
pub(crate) fn end_of(child: Pid) -> Result<i32> {
    let raw = rustix::process::Pid::from_raw(child.as_raw());
    let ended = retry_on_intr(|| rustix::process::waitpid(raw, WaitOptions::empty()));
    let ended = ended.doing(|| format!("wait for process {child}"))?;
    Ok(ended.map_or(UNKNOWN, |(_, status)| code(status)))
}

/// A child that has ended, and its exit code. `None` when there are only others.
pub(crate) fn any_ended() -> Result<Option<(Pid, i32)>> {
    let ended = retry_on_intr(|| rustix::process::wait(WaitOptions::NOHANG)).doing(|| "wait".into())?;
    Ok(ended.map(|(pid, status)| (Pid::from_raw(pid.as_raw_nonzero().get()), code(status))))
}

/// Exit code of a process of whose end nothing is known.
pub(crate) const UNKNOWN: i32 = 255;

fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n)).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn codes_tell_of_every_signal() {
        for (script, expected) in
            [("exit 7", 7), ("kill -9 $$", 137), ("kill -34 $$", 162), ("kill -64 $$", 192)]
        {
            let mut child = Command::new("sh").args(["-c", script]).spawn().expect("start");
            let pid = Pid::from_raw(child.id().cast_signed());
            assert_eq!(end_of(pid).expect("its end"), expected, "{script}");
            child.wait().expect_err("it was waited for");
        }
    }
}
