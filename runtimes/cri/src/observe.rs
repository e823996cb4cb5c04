//! One reading of all that is ours: two listings, and a status call for each object whose state is news.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::PoisonError;

use futures_util::{StreamExt, TryStreamExt, stream};
use podstead_runtime::{ContainerId, Error, Result, Snapshot};

use crate::client::Inner;
use crate::{call, convert, proto};

/// Status calls under way at once.
const AT_ONCE: usize = 8;

/// What listings lack, kept per object for as long as its state stays the same.
#[derive(Debug, Default)]
pub(crate) struct Details {
    sandboxes: HashMap<String, SandboxDetail>,
    containers: HashMap<String, ContainerDetail>,
}

#[derive(Clone, Debug)]
struct SandboxDetail {
    state: i32,
    host_network: bool,
    ips: Option<Vec<IpAddr>>,
}

#[derive(Clone, Debug)]
struct ContainerDetail {
    status: proto::ContainerStatus,
    pid: u32,
}

impl Inner {
    pub(crate) async fn observe(&self) -> Result<Snapshot> {
        let sandboxes = proto::PodSandboxFilter { label_selector: self.mark(), ..Default::default() };
        let containers = proto::ContainerFilter { label_selector: self.mark(), ..Default::default() };
        let (mut sandboxes, mut containers) =
            tokio::try_join!(self.list_sandboxes(Some(sandboxes)), self.list_containers(Some(containers)))?;
        // A server that knows no selectors would show us everything.
        sandboxes.retain(|sandbox| self.bears_mark(&sandbox.labels));
        containers.retain(|container| self.bears_mark(&container.labels));
        let ids = sandboxes.iter().map(|s| s.id.clone()).chain(containers.iter().map(|c| c.id.clone()));
        self.remember_only(ids.collect());
        let (sandbox_details, container_details) =
            tokio::try_join!(self.sandbox_details(&sandboxes), self.container_details(&containers))?;
        let mut snapshot = Snapshot::default();
        for listed in sandboxes {
            // Without details it went away since the listing.
            let Some(detail) = sandbox_details.get(&listed.id) else { continue };
            snapshot.sandboxes.push(convert::sandbox(listed, detail.host_network, detail.ips.clone()));
        }
        for listed in containers {
            let Some(detail) = container_details.get(&listed.id) else { continue };
            snapshot.containers.push(convert::container(listed, Some(&detail.status), detail.pid));
        }
        snapshot.sandboxes.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        snapshot.containers.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        let mut details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        *details = Details { sandboxes: sandbox_details, containers: container_details };
        details.forget_unsure();
        Ok(snapshot)
    }

    async fn sandbox_details(&self, listed: &[proto::PodSandbox]) -> Result<HashMap<String, SandboxDetail>> {
        let (mut known, news) = {
            let details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
            split(listed, |sandbox| {
                let detail = details.sandboxes.get(&sandbox.id)?;
                (detail.state == sandbox.state).then(|| (sandbox.id.clone(), detail.clone()))
            })
        };
        let calls: Vec<_> = news.into_iter().map(|sandbox| self.sandbox_detail(sandbox)).collect();
        let asked: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).try_collect().await?;
        known.extend(asked.into_iter().flatten());
        Ok(known)
    }

    async fn sandbox_detail(&self, listed: &proto::PodSandbox) -> Result<Option<(String, SandboxDetail)>> {
        let limit = Some(self.limit());
        let doing = || format!("read the status of sandbox {}", listed.id);
        let request = proto::PodSandboxStatusRequest { pod_sandbox_id: listed.id.clone(), verbose: false };
        let mut client = self.runtime();
        let answer =
            call::within(doing, limit, client.pod_sandbox_status(call::request(request, limit))).await;
        let Some(answer) = unless_gone(answer)? else { return Ok(None) };
        let (host_network, ips) = convert::attributes(&answer.status.unwrap_or_default());
        Ok(Some((listed.id.clone(), SandboxDetail { state: listed.state, host_network, ips })))
    }

    async fn container_details(
        &self,
        listed: &[proto::Container],
    ) -> Result<HashMap<String, ContainerDetail>> {
        let (mut known, news) = {
            let details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
            split(listed, |container| {
                let detail = details.containers.get(&container.id)?;
                (detail.status.state == container.state).then(|| (container.id.clone(), detail.clone()))
            })
        };
        let calls: Vec<_> = news.into_iter().map(|container| self.container_detail(container)).collect();
        let asked: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).try_collect().await?;
        known.extend(asked.into_iter().flatten());
        Ok(known)
    }

    async fn container_detail(&self, listed: &proto::Container) -> Result<Option<(String, ContainerDetail)>> {
        // Only a running one has a process whose id is worth the longer answer.
        let verbose = listed.state() == proto::ContainerState::ContainerRunning;
        let answer = self.container_status(&ContainerId(listed.id.clone()), verbose).await;
        let Some((mut status, pid)) = unless_gone(answer)? else { return Ok(None) };
        // The listing has these; not kept twice.
        status.labels.clear();
        status.annotations.clear();
        status.mounts.clear();
        status.resources = None;
        Ok(Some((listed.id.clone(), ContainerDetail { status, pid })))
    }
}

impl Details {
    /// Drops what may change without a change of state: a ready sandbox without an address as yet, and
    /// containers whose state the server does not know.
    fn forget_unsure(&mut self) {
        let ready = i32::from(proto::PodSandboxState::SandboxReady);
        self.sandboxes.retain(|_, detail| {
            detail.state != ready
                || detail.host_network
                || detail.ips.as_ref().is_some_and(|ips| !ips.is_empty())
        });
        let unknown = i32::from(proto::ContainerState::ContainerUnknown);
        self.containers.retain(|_, detail| detail.status.state != unknown);
    }
}

/// The objects with details already, and the others.
fn split<T, D>(listed: &[T], known: impl Fn(&T) -> Option<(String, D)>) -> (HashMap<String, D>, Vec<&T>) {
    let mut with = HashMap::new();
    let mut without = Vec::new();
    for object in listed {
        match known(object) {
            Some((id, detail)) => drop(with.insert(id, detail)),
            None => without.push(object),
        }
    }
    (with, without)
}

/// An object that went away between listing and status is no error.
fn unless_gone<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
