//! Stopping containers: the signal, the grace, the kill; and the end of those whose shim is dead.

use std::io;
use std::path::Path;
use std::time::Duration;

use podstead_runtime::{ContainerId, Error, Result, Time};

use super::Inner;
use super::errors::{blocking, of};
use super::pods::{gone, unless_full};
use super::records::ContainerRecord;
use crate::cgroup::Cgroup;
use crate::launch::{Process, orphans, shim_process};
use crate::shim::files::{read_json, write_json};
use crate::shim::protocol::{Exit, State, kept, run};

/// What a killed container's shim needs to write down the end and clean up, generously.
const CLEANING: Duration = Duration::from_secs(60);
/// Looks for processes of a dead shim, 2 ms apart.
const ORPHANS: u32 = 2000;
/// Exit code of a container whose end nobody saw.
pub(super) const UNKNOWN_CODE: i32 = 255;

impl Inner {
    /// Sends the stop signal, waits, kills; returns when nothing of it runs.
    pub(super) async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let doing = of("stop", id);
        if self.our_container(&doing, id)?.is_none() {
            return Ok(());
        }
        self.kill(id, grace).await
    }

    /// As [`Inner::stop_container`], whoever's it is; also for half-made ones.
    pub(super) async fn kill(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let doing = of("stop", id);
        let failed = |error: io::Error| Error::failed(&doing, error);
        let run_dir = self.layout.run(&id.0);
        let Some(shim) = shim_process(&run_dir).map_err(failed)? else {
            self.ask_orphan(id, grace).await.map_err(failed)?;
            return self.settle(&doing, id).await;
        };
        let state: Option<State> = read_json(&run_dir.join(run::STATE)).map_err(failed)?;
        let (Some(state), Some(record)) = (state, self.container(&id.0).map_err(failed)?) else {
            // Still being made: without its shim nothing of it starts.
            shim.signal(libc::SIGKILL).map_err(failed)?;
            shim.ended().await.map_err(failed)?;
            return self.settle(&doing, id).await;
        };
        let signal = if state.started_at.is_some() { record.stop_signal } else { libc::SIGKILL };
        if let Some(running) = Process::of(&state).map_err(failed)? {
            if grace > Duration::ZERO && signal != libc::SIGKILL {
                running.signal(signal).map_err(failed)?;
                if let Ok(ended) = tokio::time::timeout(grace, running.ended()).await {
                    ended.map_err(failed)?;
                }
            }
            running.signal(libc::SIGKILL).map_err(failed)?;
        }
        match tokio::time::timeout(CLEANING, shim.ended()).await {
            Ok(ended) => {
                ended.map_err(failed)?;
                // It may have been killed before it could write the end down and clean up.
                self.settle(&doing, id).await
            }
            Err(_) => Err(Error::Deadline { doing, seconds: CLEANING.as_secs() }),
        }
    }

    /// Gives a container whose shim is dead its signal and its grace too.
    async fn ask_orphan(&self, id: &ContainerId, grace: Duration) -> io::Result<()> {
        let state: Option<State> = read_json(&self.layout.run(&id.0).join(run::STATE))?;
        let (Some(state), Some(record)) = (state.filter(|s| s.started_at.is_some()), self.container(&id.0)?)
        else {
            return Ok(());
        };
        if let (false, Some(process)) = (grace.is_zero(), Process::of(&state)?) {
            process.signal(record.stop_signal)?;
            let _ = tokio::time::timeout(grace, process.ended()).await;
        }
        Ok(())
    }

    /// Ends what a dead shim left running and writes down that its end was not seen. Nothing to do after a shim that
    /// ended as it should.
    async fn settle(&self, doing: &str, id: &ContainerId) -> Result<()> {
        let (dir, run_dir) = (self.layout.container(&id.0), self.layout.run(&id.0));
        let found = self.any_container(&id.0).map_err(|e| Error::failed(doing, e))?;
        let Some((record, made)) = found else { return Ok(()) };
        blocking(doing, move || settle(&record, made, &dir, &run_dir)).await
    }
}

/// Until none is left: one that is dying may still make the cgroup anew, or clone the next.
fn kill_orphans(run_dir: &Path) -> io::Result<()> {
    for _ in 0..ORPHANS {
        let found = orphans(run_dir)?;
        if found.is_empty() {
            return Ok(());
        }
        found.iter().try_for_each(|process| process.signal(libc::SIGKILL))?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "processes of its dead shim do not die"))
}

fn settle(record: &ContainerRecord, made: bool, dir: &Path, run_dir: &Path) -> io::Result<()> {
    let cgroup = Cgroup::at(&record.cgroup)?;
    if dir.join(kept::EXIT).exists() {
        // A shim killed between the exit record and its clean-up leaves this.
        cgroup.kill()?;
        return cgroup.remove();
    }
    let state: Option<State> = read_json(&run_dir.join(run::STATE))?;
    if let Some(process) = state.as_ref().map(Process::of).transpose()?.flatten() {
        process.signal(libc::SIGKILL)?;
    }
    kill_orphans(run_dir)?;
    let oom = cgroup.ran_out_of_memory();
    cgroup.kill()?;
    cgroup.remove()?;
    if made {
        let started_at = state.and_then(|s| s.started_at).unwrap_or_default();
        let exit = Exit { code: UNKNOWN_CODE, started_at, finished_at: Time::now(), oom, unseen: true };
        // It may be removed meanwhile.
        unless_full(gone(write_json(&dir.join(kept::EXIT), &exit)))?;
    }
    Ok(())
}
