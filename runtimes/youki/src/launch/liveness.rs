//! Which shims and containers live: locks tell of shims, process ids with start times of containers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::system::{signal, watched};
use crate::shim::protocol::{State, run};
use crate::shim::{SHIM, start_ticks, whole_file};

/// Whether a container's shim lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shim {
    /// In this process.
    Alive(i32),
    /// Somebody is taking the container away.
    Claimed,
    /// There is none.
    Dead,
}

/// Looks who has the lock of a container's run directory.
pub(crate) fn shim_of(run_dir: &Path) -> io::Result<Shim> {
    let file = match OpenOptions::new().read(true).write(true).open(run_dir.join(run::LOCK)) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Shim::Dead);
        }
        Err(error) => return Err(error),
    };
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(file.as_raw_fd(), FcntlArg::F_GETLK(&mut lock))?;
    Ok(match (i32::from(lock.l_type), lock.l_pid) {
        (libc::F_UNLCK, _) => Shim::Dead,
        (_, pid) if pid > 0 => Shim::Alive(pid),
        _ => Shim::Claimed,
    })
}

/// The shim that lives in a run directory, held. `None` when there is none.
pub(crate) fn shim_process(run_dir: &Path) -> io::Result<Option<Process>> {
    while let Shim::Alive(pid) = shim_of(run_dir)? {
        let held = Process::open(pid)?;
        // The number may have come to mean another in between: the lock is asked again while it is held.
        if held.is_some() && shim_of(run_dir)? == Shim::Alive(pid) {
            return Ok(held);
        }
    }
    Ok(None)
}

/// Processes that libcontainer had cloned from a shim when that was killed: in no cgroup yet, perhaps, and not yet the
/// container's program, they still bear the shim's command line. Only for a run directory whose shim is dead.
pub(crate) fn orphans(run_dir: &Path) -> io::Result<Vec<Process>> {
    use std::os::unix::ffi::OsStrExt as _;
    let line = [b"podstead-shim", SHIM.as_bytes(), run_dir.as_os_str().as_bytes(), b""].join(&0);
    let bears = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line);
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if bears(pid) {
            all.extend(Process::open(pid)?.filter(|_| bears(pid)));
        }
    }
    Ok(all)
}

/// A container's run directory that no shim can begin to use.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code)] Option<File>);

/// Claims the directory unless a shim has it; `None` when one has.
pub(crate) fn claim(run_dir: &Path) -> io::Result<Option<Claim>> {
    let file = match OpenOptions::new().read(true).write(true).open(run_dir.join(run::LOCK)) {
        Ok(file) => file,
        // Nobody can lock what is not there, and only its maker makes it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Some(Claim(None)));
        }
        Err(error) => return Err(error),
    };
    // Bound to the open file, not to the process: looking at the lock elsewhere in this process does not lose it.
    let lock = whole_file(libc::F_WRLCK);
    match fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(Some(Claim(Some(file)))),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A live process, held so that its number cannot come to mean another.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Process {
    /// The process with this number now; `None` when there is none.
    pub(crate) fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            // The last two: the number is now that of a thread.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The container's first process; `None` when it is over.
    pub(crate) fn of(state: &State) -> io::Result<Option<Self>> {
        let found = Self::open(state.pid)?;
        // Looked at while it is held: it is this one or none.
        Ok(found
            .filter(|_| start_ticks(Pid::from_raw(state.pid)).is_ok_and(|ticks| ticks == state.start_ticks)))
    }

    /// Sends a signal. One that is over is a success.
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        let signal =
            signal(number).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no such signal"))?;
        match pidfd_send_signal(&self.0, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        let fd = watched(self.0.try_clone()?)?;
        fd.readable().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_thread_is_no_process() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).expect("told");
            let _ = ended.recv();
        });
        let number = told.recv().expect("a number");
        assert!(Process::open(number).expect("no error").is_none());
        drop(end);
        thread.join().expect("joined");
        assert!(Process::open(std::process::id().cast_signed()).expect("no error").is_some());
    }
}
