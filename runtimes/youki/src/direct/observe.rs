//! One reading of all that is ours. Blocking; reads files and locks, changes nothing.

use std::io;

use podstead_runtime::snapshot::START_BROKEN_OFF;
use podstead_runtime::{
    Container, ContainerId, ContainerState, Sandbox, SandboxId, SandboxState, Snapshot, Time,
};

use super::records::{ContainerRecord, SandboxRecord, is_owned};
use super::stop::UNKNOWN_CODE;
use super::{Inner, pods};
use crate::launch::{Process, Shim, shim_of};
use crate::shim::files::read_json;
use crate::shim::protocol::{Exit, State, kept, run};

impl Inner {
    pub(super) fn snapshot(&self) -> io::Result<Snapshot> {
        let owner = &self.options.owner;
        let mut sandboxes: Vec<Sandbox> = self
            .sandboxes()?
            .into_iter()
            .filter(|(record, _)| is_owned(&record.spec.labels, owner))
            .map(|(record, whole)| self.seen(record, whole))
            .collect();
        let mut containers = Vec::new();
        for record in self.containers()?.iter().filter(|record| is_owned(&record.labels, owner)) {
            containers.extend(self.seen_container(record)?);
        }
        sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
        containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        Ok(Snapshot { sandboxes, containers })
    }

    fn seen(&self, record: SandboxRecord, whole: bool) -> Sandbox {
        let ready = whole && record.takes_containers() && pods::is_up(&self.layout, &record.id, &record.spec);
        let host_network = pods::is_host_network(&record.spec);
        let spec = record.spec;
        Sandbox {
            id: SandboxId(record.id),
            pod: spec.pod,
            attempt: spec.attempt,
            state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: record.created_at,
            host_network,
            ips: Some(if ready { record.ips } else { Vec::new() }),
            labels: spec.labels,
            annotations: spec.annotations,
            runtime_handler: spec.runtime_handler,
        }
    }

    fn seen_container(&self, record: &ContainerRecord) -> io::Result<Option<Container>> {
        let (state, pid) = self.state(record)?;
        // It may have been removed while we looked.
        if self.container(&record.id)?.is_none() {
            return Ok(None);
        }
        Ok(Some(Container {
            id: ContainerId(record.id.clone()),
            sandbox: SandboxId(record.sandbox.clone()),
            name: record.name.clone(),
            attempt: record.attempt,
            image: record.image.clone(),
            image_id: record.image_id.clone(),
            state,
            created_at: record.created_at,
            labels: record.labels.clone(),
            annotations: record.annotations.clone(),
            log_path: record.log_path.clone(),
            pid,
        }))
    }

    /// Where a container is in its life, and its first process while it has one.
    pub(super) fn state(&self, record: &ContainerRecord) -> io::Result<(ContainerState, u32)> {
        let (exit_path, run_dir) =
            (self.layout.container(&record.id).join(kept::EXIT), self.layout.run(&record.id));
        if let Some(exit) = read_json::<Exit>(&exit_path)? {
            return Ok((exited(&exit), 0));
        }
        let alive = matches!(shim_of(&run_dir)?, Shim::Alive(_));
        let state: Option<State> = read_json(&run_dir.join(run::STATE))?;
        if alive && let Some(state) = &state {
            let pid = u32::try_from(state.pid).unwrap_or(0);
            return Ok(match state.started_at {
                Some(started_at) => (ContainerState::Running { started_at }, pid),
                None => (ContainerState::Created, pid),
            });
        }
        // The shim writes the exit down before it goes: look again before believing that it did not.
        if let Some(exit) = read_json::<Exit>(&exit_path)? {
            return Ok((exited(&exit), 0));
        }
        let running = state.as_ref().map(Process::of).transpose()?.flatten().is_some();
        if running {
            return Ok((ContainerState::Unknown, 0));
        }
        let started_at = state.and_then(|s| s.started_at).unwrap_or_default();
        Ok((unseen(started_at, started_at.known().unwrap_or(record.created_at)), 0))
    }
}

fn exited(exit: &Exit) -> ContainerState {
    if exit.unseen {
        return unseen(exit.started_at, exit.finished_at);
    }
    if exit.started_at.known().is_none() {
        return ContainerState::Exited {
            code: exit.code,
            started_at: Time::default(),
            finished_at: exit.finished_at,
            reason: START_BROKEN_OFF.into(),
            message: "it was killed before it was started".into(),
        };
    }
    let reason = match exit.code {
        0 => "Completed",
        137 if exit.oom => "OOMKilled",
        _ => "Error",
    };
    ContainerState::Exited {
        code: exit.code,
        started_at: exit.started_at,
        finished_at: exit.finished_at,
        reason: reason.into(),
        message: String::new(),
    }
}

/// Ended by a reboot or together with its shim.
fn unseen(started_at: Time, finished_at: Time) -> ContainerState {
    ContainerState::Exited {
        code: UNKNOWN_CODE,
        started_at,
        finished_at,
        reason: "ContainerStatusUnknown".into(),
        message: "its end was not seen: the node or the container's shim went down with it".into(),
    }
}
