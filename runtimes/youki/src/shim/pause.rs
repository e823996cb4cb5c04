//! The first process of a pod's shared pid namespace: without one such a namespace cannot live. Collects orphans, does
//! nothing else. Only pods that share the namespace have it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::error::{Doing as _, Error, Result};
use super::files::write_json;
use super::protocol::{Made, State, run};
use super::serve::{lock, start_ticks, tell};
use super::wait;

/// First argument of the process inside the new namespace.
pub(super) const INSIDE: &str = "sandbox-pause-inside";

/// Makes the namespace and its first process, which goes on alone.
pub(super) fn main(dir: &Path) -> ExitCode {
    let started = unshare(CloneFlags::CLONE_NEWPID).doing(|| "make a pid namespace".into()).and_then(|()| {
        let mut inside = Command::new("/proc/self/exe");
        inside.arg0("podstead-pause").arg(INSIDE).arg(dir).stdin(Stdio::null());
        inside.spawn().doing(|| "start the pod's first process".into())
    });
    match started {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&Made::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// The first process.
pub(super) fn inside(dir: &Path) -> ExitCode {
    match settle(dir) {
        Ok(_lock) => {
            tell(&Made::Created);
            collect();
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&Made::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn settle(dir: &Path) -> Result<fs::File> {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"podstead-pause");
    let lock = lock(dir)?;
    // The node's /proc tells the number the node knows us by.
    let own = fs::read_link("/proc/self").doing(|| "read /proc/self".into())?;
    let pid: i32 = own
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Asked("/proc does not know this process".into()))?;
    let state = State { pid, start_ticks: start_ticks(Pid::from_raw(pid))?, started_at: None };
    write_json(&dir.join(run::STATE), &state).doing(|| format!("write {}", dir.display()))?;
    Ok(lock)
}

/// Ends with TERM; the kernel then ends all of the namespace.
fn collect() {
    let wanted: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    if wanted.thread_block().is_err() {
        return;
    }
    loop {
        match wanted.wait() {
            Ok(Signal::SIGCHLD) => while matches!(wait::any_ended(), Ok(Some(_))) {},
            Ok(_) => return,
            Err(_) => {}
        }
    }
}
