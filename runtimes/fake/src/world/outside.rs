//! What happens to the world without any verb: ends, deaths, losses.

use podstead_runtime::{ContainerId, ContainerState, PodUid, SandboxId, SandboxState};

use super::{End, World};

impl World {
    /// A container ends by itself; the pod it belongs to, when it ran.
    pub fn exit(&mut self, id: &ContainerId, code: i32) -> Option<PodUid> {
        let uid = self.containers.get(id)?.object.pod_uid();
        self.end(id, code, End::Itself).then_some(uid)
    }

    /// A sandbox dies with everything in it and keeps its network until it is stopped.
    pub fn kill_sandbox(&mut self, id: &SandboxId) {
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            sandbox.object.state = SandboxState::NotReady;
        }
        self.end_all(id, End::WithSandbox);
    }

    /// The runtime no longer knows what a container does; its process is gone.
    pub fn forget_state(&mut self, id: &ContainerId) {
        self.end(id, 137, End::Itself);
        if let Some(found) = self.containers.get_mut(id) {
            found.object.state = ContainerState::Unknown;
        }
    }

    /// The runtime no longer knows what a running container does; its process goes on.
    pub fn hide_state(&mut self, id: &ContainerId) {
        if let Some(found) = self.containers.get_mut(id).filter(|c| c.object.is_running()) {
            found.object.state = ContainerState::Unknown;
            found.hidden = true;
        }
    }

    /// Whether the container has a process, whatever the runtime tells of it.
    pub fn has_process(&self, id: &ContainerId) -> bool {
        self.containers.get(id).is_some_and(|c| c.hidden || c.object.is_running())
    }

    /// The runtime takes back that a sandbox is not ready.
    pub fn revive_sandbox(&mut self, id: &SandboxId) {
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            sandbox.object.state = SandboxState::Ready;
            sandbox.holding_network = true;
        }
    }

    /// A sandbox loses its address.
    pub fn lose_address(&mut self, id: &SandboxId) {
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            sandbox.object.ips = sandbox.object.ips.take().map(|_| Vec::new());
        }
    }
}
