//! One pod of a test's node: waiting for it, looking at it, reaching into it.

use std::net::IpAddr;
use std::time::Duration;

use podstead_runtime::{Container, ContainerState, ExecOutput, Runtime, Sandbox, Snapshot};
use tokio::time::Instant;

use super::{Node, NodeError};
use crate::plan::status::pod_status;

/// A pod, which may not exist yet.
#[derive(Clone, Debug)]
pub struct PodHandle<'a> {
    node: &'a Node,
    name: String,
}

impl<'a> PodHandle<'a> {
    pub(super) fn new(node: &'a Node, name: String) -> Self {
        Self { node, name }
    }

    /// The pod's name, node suffix included.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its newest sandbox and its containers, the newest first.
    pub async fn see(&self) -> Result<Option<(Sandbox, Vec<Container>)>, NodeError> {
        Ok(self.within(self.node.runtime().observe().await?))
    }

    fn within(&self, snapshot: Snapshot) -> Option<(Sandbox, Vec<Container>)> {
        let own = snapshot.sandboxes.into_iter().filter(|s| s.pod.name == self.name);
        let newest = own.max_by_key(|s| (s.created_at, s.attempt))?;
        let mut all = snapshot.containers;
        all.retain(|c| c.pod_uid() == newest.pod.uid);
        all.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        Some((newest, all))
    }

    /// Waits until what is seen satisfies `wanted`, and answers it.
    pub async fn until<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Sandbox, &[Container]) -> Option<T>,
    ) -> Result<T, NodeError> {
        let patience = self.node.patience;
        let deadline = Instant::now() + patience;
        loop {
            let seen = self.see().await?;
            if let Some(answer) = seen.as_ref().and_then(|(sandbox, containers)| wanted(sandbox, containers))
            {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                let what = format!("pod {}: {what}", self.name);
                return Err(NodeError::Late { what, patience, seen: format!("{seen:?}") });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every container of the pod runs; answers its newest instances.
    pub async fn running(&self) -> Result<Vec<Container>, NodeError> {
        let mut view = self.node.view();
        self.until("all containers running", |_, containers| {
            let newest = newest_of_each(containers);
            let wanted = view.as_mut().map(|view| {
                let view = view.borrow_and_update();
                let pod = view.desired.pods.values().find(|p| p.identity.name == self.name);
                pod.map_or(usize::MAX, |pod| pod.containers.len())
            });
            let all = !newest.is_empty() && newest.iter().all(|c| c.is_running());
            (all && wanted.is_none_or(|n| newest.len() == n)).then(|| newest.into_iter().cloned().collect())
        })
        .await
    }

    /// Waits until the pod is Ready, as its probes have it. Without probes, or without an agent, that is when it is
    /// [`running`](Self::running).
    pub async fn ready(&self) -> Result<Vec<Container>, NodeError> {
        let mut view = self.node.view();
        self.until("ready", |_, _| {
            let ready = view.as_mut().is_none_or(|view| {
                let view = view.borrow_and_update();
                let pod = view.desired.pods.values().find(|p| p.identity.name == self.name);
                pod.is_some_and(|pod| pod_status(pod, &view.observed, &view.known, view.at).ready)
            });
            ready.then_some(())
        })
        .await?;
        self.running().await
    }

    /// Waits until a container runs in this attempt or a later one.
    pub async fn running_again(&self, container: &str, attempt: u32) -> Result<Container, NodeError> {
        let what = format!("container {container} running with attempt {attempt}");
        let fits = |c: &&Container| c.name == container && c.attempt >= attempt && c.is_running();
        self.until(&what, |_, containers| containers.iter().find(fits).cloned()).await
    }

    /// Waits until a container is over; answers its exit code.
    pub async fn exited(&self, container: &str) -> Result<i32, NodeError> {
        let what = format!("container {container} exited");
        self.until(&what, |_, containers| {
            let newest = containers.iter().find(|c| c.name == container)?;
            match &newest.state {
                ContainerState::Exited { code, .. } => Some(*code),
                _ => None,
            }
        })
        .await
    }

    /// Waits until nothing of the pod is left in the runtime.
    pub async fn gone(&self) -> Result<(), NodeError> {
        let patience = self.node.patience;
        let deadline = Instant::now() + patience;
        while let Some(seen) = self.see().await? {
            if Instant::now() > deadline {
                let what = format!("pod {}: gone", self.name);
                return Err(NodeError::Late { what, patience, seen: format!("{seen:?}") });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The pod's first address; waits for it.
    pub async fn ip(&self) -> Result<IpAddr, NodeError> {
        self.until("an address", |sandbox, _| sandbox.ips.as_ref()?.first().copied()).await
    }

    /// The newest instance of a container.
    pub async fn container(&self, name: &str) -> Result<Container, NodeError> {
        let seen = self.see().await?;
        let found = seen.and_then(|(_, containers)| containers.into_iter().find(|c| c.name == name));
        found.ok_or_else(|| NodeError::NoContainer { pod: self.name.clone(), container: name.to_owned() })
    }

    /// What a container's newest instance has printed, without times and stream names.
    pub async fn logs(&self, container: &str) -> Result<String, NodeError> {
        let path = self.container(container).await?.log_path;
        let text = std::fs::read(&path).map_err(|source| NodeError::File { path, source })?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|l| l.to_owned() + "\n").collect())
    }

    /// Waits until a container has printed something that satisfies `wanted`; answers all it printed.
    pub async fn logged(&self, container: &str, wanted: impl Fn(&str) -> bool) -> Result<String, NodeError> {
        let deadline = Instant::now() + self.node.patience;
        loop {
            let text = self.logs(container).await.unwrap_or_default();
            if wanted(&text) {
                return Ok(text);
            }
            if Instant::now() > deadline {
                let what = format!("pod {}: a certain line of {container}", self.name);
                return Err(NodeError::Late { what, patience: self.node.patience, seen: text });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs a command in a container.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<ExecOutput, NodeError> {
        let id = self.container(container).await?.id;
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        Ok(self.node.runtime().exec_sync(&id, &command, self.node.patience).await?)
    }

    /// Ends a container at once, as a crash would.
    pub async fn kill(&self, container: &str) -> Result<(), NodeError> {
        let id = self.container(container).await?.id;
        Ok(self.node.runtime().stop_container(&id, Duration::ZERO).await?)
    }
}

/// The newest instance of each container; `containers` are ordered newest first.
fn newest_of_each(containers: &[Container]) -> Vec<&Container> {
    let mut newest: Vec<&Container> = Vec::new();
    for container in containers {
        if !newest.iter().any(|c| c.name == container.name) {
            newest.push(container);
        }
    }
    newest
}
