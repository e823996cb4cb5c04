//! The world: sandboxes, containers and images as plain data, and verbs that are effects on it.

mod images;
mod outside;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use podstead_runtime::{
    Container, ContainerId, ContainerSpec, ContainerState, Error, Image, LinuxResources, NamespaceMode,
    PodIdentity, PodUid, Result, Sandbox, SandboxId, SandboxSpec, SandboxState, Snapshot, Time, labels,
};

/// How a container came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Itself,
    /// Stopped, with this grace.
    Stopped(Duration),
    /// Killed without grace because its sandbox or itself was stopped or removed by a verb.
    Forced,
    /// With its sandbox, which died.
    WithSandbox,
}

/// What happened, in order: what a test's laws are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sandbox was made.
    SandboxMade {
        /// Sandbox.
        id: SandboxId,
        /// Its pod.
        pod: PodIdentity,
        /// Attempt.
        attempt: u32,
    },
    /// A sandbox was removed.
    SandboxRemoved {
        /// Sandbox.
        id: SandboxId,
        /// Whether it still held its network.
        holding_network: bool,
    },
    /// A container was made.
    Created {
        /// Container.
        id: ContainerId,
        /// Its pod.
        uid: PodUid,
        /// Its name.
        name: String,
        /// Attempt.
        attempt: u32,
    },
    /// A container began to run.
    Started {
        /// Container.
        id: ContainerId,
    },
    /// A container ended.
    Ended {
        /// Container.
        id: ContainerId,
        /// How.
        end: End,
    },
    /// A container was removed.
    Removed {
        /// Container.
        id: ContainerId,
    },
}

#[derive(Clone, Debug)]
struct Owned<T> {
    owner: String,
    born: u64,
    holding_network: bool,
    /// A container of unknown state whose process goes on.
    hidden: bool,
    object: T,
}

/// All there is.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The time that objects made now bear. Its owner moves it.
    pub now: Time,
    /// What happened; taken away by whoever reads it.
    pub events: Vec<Event>,
    /// Whether a container of unknown state stays so when it is stopped.
    pub unknown_stays: bool,
    sandboxes: BTreeMap<SandboxId, Owned<Sandbox>>,
    containers: BTreeMap<ContainerId, Owned<Container>>,
    images: BTreeMap<String, Image>,
    resources: BTreeMap<ContainerId, LinuxResources>,
    born: u64,
}

impl World {
    /// What `owner` may see.
    pub fn snapshot(&self, owner: &str) -> Snapshot {
        let mut sandboxes: Vec<_> = self.sandboxes.values().filter(|o| o.owner == owner).collect();
        let mut containers: Vec<_> = self.containers.values().filter(|o| o.owner == owner).collect();
        sandboxes.sort_by_key(|o| std::cmp::Reverse(o.born));
        containers.sort_by_key(|o| std::cmp::Reverse(o.born));
        Snapshot {
            sandboxes: sandboxes.into_iter().map(|o| o.object.clone()).collect(),
            containers: containers.into_iter().map(|o| o.object.clone()).collect(),
        }
    }

    /// Makes a sandbox, or answers the one with the same uid and attempt.
    pub fn run_sandbox(&mut self, owner: &str, spec: &SandboxSpec) -> SandboxId {
        let same = |o: &&Owned<Sandbox>| {
            o.owner == owner && o.object.pod.uid == spec.pod.uid && o.object.attempt == spec.attempt
        };
        if let Some(found) = self.sandboxes.values().find(same) {
            return found.object.id.clone();
        }
        let born = self.next();
        let id = SandboxId(format!("sandbox-{born}"));
        let host_network = spec.security.namespaces.network == NamespaceMode::Node;
        let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | u32::try_from(born).unwrap_or(1)));
        let mut marked = spec.labels.clone();
        marked.insert(labels::OWNER.to_owned(), owner.to_owned());
        let object = Sandbox {
            id: id.clone(),
            pod: spec.pod.clone(),
            attempt: spec.attempt,
            state: SandboxState::Ready,
            created_at: self.now,
            host_network,
            ips: (!host_network).then(|| vec![address]),
            labels: marked,
            annotations: spec.annotations.clone(),
            runtime_handler: spec.runtime_handler.clone(),
        };
        let owned = Owned { owner: owner.to_owned(), born, holding_network: true, hidden: false, object };
        self.sandboxes.insert(id.clone(), owned);
        self.events.push(Event::SandboxMade { id: id.clone(), pod: spec.pod.clone(), attempt: spec.attempt });
        id
    }

    /// Kills what runs in a sandbox and takes its network away.
    pub fn stop_sandbox(&mut self, owner: &str, id: &SandboxId) -> Result<()> {
        let Some(sandbox) = self.sandbox_of(owner, id)? else { return Ok(()) };
        sandbox.object.state = SandboxState::NotReady;
        sandbox.object.ips = sandbox.object.ips.take().map(|_| Vec::new());
        sandbox.holding_network = false;
        self.end_all(id, End::Forced);
        Ok(())
    }

    /// Removes a sandbox and its containers.
    pub fn remove_sandbox(&mut self, owner: &str, id: &SandboxId) -> Result<()> {
        if self.sandbox_of(owner, id)?.is_none() {
            return Ok(());
        }
        self.end_all(id, End::Forced);
        let inside: Vec<_> = self
            .containers
            .values()
            .filter(|c| c.object.sandbox == *id)
            .map(|c| c.object.id.clone())
            .collect();
        for container in inside {
            self.containers.remove(&container);
            self.events.push(Event::Removed { id: container });
        }
        let holding_network = self.sandboxes.remove(id).is_some_and(|s| s.holding_network);
        self.events.push(Event::SandboxRemoved { id: id.clone(), holding_network });
        Ok(())
    }

    /// Makes a container, or answers the one with the same sandbox, name and attempt.
    pub fn create_container(
        &mut self,
        owner: &str,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId> {
        let doing = || format!("creating container {} of pod {}", spec.name, sandbox_spec.pod.full_name());
        let state = match self.sandbox_of(owner, sandbox)? {
            Some(found) => found.object.state,
            None => return Err(Error::not_found(doing(), format!("sandbox {sandbox}"))),
        };
        let same = |o: &&Owned<Container>| {
            o.object.sandbox == *sandbox && o.object.name == spec.name && o.object.attempt == spec.attempt
        };
        if let Some(found) = self.containers.values().find(same) {
            return Ok(found.object.id.clone());
        }
        if state != SandboxState::Ready {
            return Err(Error::State { doing: doing(), cause: format!("sandbox {sandbox} is not ready") });
        }
        let image = if spec.image_id.is_empty() { &spec.image.image } else { &spec.image_id };
        let Some(image_id) = self.image(image).map(|i| i.id.clone()) else {
            return Err(Error::not_found(doing(), format!("image {image}")));
        };
        let born = self.next();
        let id = ContainerId(format!("container-{born}"));
        let mut marked = spec.labels.clone();
        marked.insert(labels::OWNER.to_owned(), owner.to_owned());
        let log_path = if sandbox_spec.log_directory.as_os_str().is_empty() {
            PathBuf::new()
        } else {
            sandbox_spec.log_directory.join(&spec.log_path)
        };
        self.resources.insert(id.clone(), spec.resources.clone());
        let object = Container {
            id: id.clone(),
            sandbox: sandbox.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.image.clone(),
            image_id,
            state: ContainerState::Created,
            created_at: self.now,
            labels: marked,
            annotations: spec.annotations.clone(),
            log_path,
            pid: 0,
        };
        let event = Event::Created {
            id: id.clone(),
            uid: sandbox_spec.pod.uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
        };
        let owned = Owned { owner: owner.to_owned(), born, holding_network: false, hidden: false, object };
        self.containers.insert(id.clone(), owned);
        self.events.push(event);
        Ok(id)
    }

    /// Starts a created container.
    pub fn start_container(&mut self, owner: &str, id: &ContainerId) -> Result<()> {
        let now = self.now;
        let doing = format!("starting container {id}");
        let Some(found) = self.container_of(owner, id)? else { return Err(Error::not_found(doing, "it")) };
        if found.object.state != ContainerState::Created {
            return Ok(());
        }
        let sandbox = found.object.sandbox.clone();
        if self.sandboxes.get(&sandbox).is_none_or(|s| s.object.state != SandboxState::Ready) {
            return Err(Error::State { doing, cause: format!("sandbox {sandbox} is not ready") });
        }
        if let Some(found) = self.containers.get_mut(id) {
            found.object.state = ContainerState::Running { started_at: now };
            found.object.pid = 1000;
        }
        self.events.push(Event::Started { id: id.clone() });
        Ok(())
    }

    /// Ends a running container as a stop with `grace` does: at once, code 143.
    pub fn stop_container(&mut self, owner: &str, id: &ContainerId, grace: Duration) -> Result<()> {
        if self.container_of(owner, id)?.is_some() {
            self.end(id, 143, End::Stopped(grace));
        }
        Ok(())
    }

    /// Removes a container, killing it first if it runs.
    pub fn remove_container(&mut self, owner: &str, id: &ContainerId) -> Result<()> {
        if self.container_of(owner, id)?.is_none() {
            return Ok(());
        }
        self.end(id, 137, End::Forced);
        self.containers.remove(id);
        self.resources.remove(id);
        self.events.push(Event::Removed { id: id.clone() });
        Ok(())
    }

    /// Changes a container's resources: of shares, quota and memory what is not 0.
    pub fn update_resources(&mut self, owner: &str, id: &ContainerId, asked: &LinuxResources) -> Result<()> {
        let doing = format!("changing resources of container {id}");
        if self.container_of(owner, id)?.is_none() {
            return Err(Error::not_found(doing, "it"));
        }
        let has = self.resources.entry(id.clone()).or_default();
        let fields = [
            (&mut has.cpu_shares, asked.cpu_shares),
            (&mut has.cpu_quota, asked.cpu_quota),
            (&mut has.memory_limit, asked.memory_limit),
        ];
        for (field, value) in fields {
            if value != 0 {
                *field = value;
            }
        }
        Ok(())
    }

    /// What a container may use.
    pub fn resources(&self, id: &ContainerId) -> LinuxResources {
        self.resources.get(id).cloned().unwrap_or_default()
    }

    /// Refused unless the container is `owner`'s and runs.
    pub fn running(&mut self, owner: &str, id: &ContainerId, doing: &str) -> Result<()> {
        match self.container_of(owner, id)? {
            Some(found) if found.object.is_running() => Ok(()),
            Some(_) => Err(Error::State { doing: doing.to_owned(), cause: "it does not run".to_owned() }),
            None => Err(Error::not_found(doing, format!("container {id}"))),
        }
    }

    fn next(&mut self) -> u64 {
        self.born += 1;
        self.born
    }

    fn sandbox_of(&mut self, owner: &str, id: &SandboxId) -> Result<Option<&mut Owned<Sandbox>>> {
        match self.sandboxes.get_mut(id) {
            Some(found) if found.owner != owner => Err(Error::NotOurs { doing: format!("sandbox {id}") }),
            found => Ok(found),
        }
    }

    fn container_of(&mut self, owner: &str, id: &ContainerId) -> Result<Option<&mut Owned<Container>>> {
        match self.containers.get_mut(id) {
            Some(found) if found.owner != owner => Err(Error::NotOurs { doing: format!("container {id}") }),
            found => Ok(found),
        }
    }

    fn end_all(&mut self, sandbox: &SandboxId, end: End) {
        let ids: Vec<_> = self
            .containers
            .values()
            .filter(|c| c.object.sandbox == *sandbox)
            .map(|c| c.object.id.clone())
            .collect();
        for id in ids {
            self.end(&id, 137, end);
        }
    }

    /// Ends a running container; whether it ran.
    pub(crate) fn end(&mut self, id: &ContainerId, code: i32, end: End) -> bool {
        let now = self.now;
        let Some(found) = self.containers.get_mut(id) else { return false };
        let ran = found.object.is_running() || found.hidden;
        found.hidden = false;
        let started_at = match found.object.state {
            ContainerState::Running { started_at } => Some(started_at),
            ContainerState::Unknown if !self.unknown_stays => Some(Time(0)),
            ContainerState::Unknown | ContainerState::Created | ContainerState::Exited { .. } => None,
        };
        if let Some(started_at) = started_at {
            let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
            found.object.state =
                ContainerState::Exited { code, started_at, finished_at: now, reason, message: String::new() };
            found.object.pid = 0;
        }
        if ran {
            self.events.push(Event::Ended { id: id.clone(), end });
        }
        ran
    }
}
