//! Verbs on sandboxes. CRI promises idempotence only for stop and remove; for the rest we look first.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{CgroupDriver, Error, Result, SandboxId, SandboxSpec, labels};

use crate::client::Inner;
use crate::once::{self, Patience};
use crate::{call, convert, proto};

impl Inner {
    pub(crate) async fn run_sandbox(self: &Arc<Self>, spec: &SandboxSpec) -> Result<SandboxId> {
        let key = format!(
            "run sandbox of pod {} ({}, attempt {})",
            spec.pod.full_name(),
            spec.pod.uid,
            spec.attempt
        );
        let (inner, spec) = (Arc::clone(self), spec.clone());
        let make = async move { inner.make_sandbox(&spec).await.map(|id| id.0) };
        self.flights.join(key, make).await.map(SandboxId)
    }

    async fn make_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId> {
        let doing = || format!("run sandbox of pod {} (attempt {})", spec.pod.full_name(), spec.attempt);
        if let Some(id) = self.find_sandbox(spec).await? {
            return Ok(id);
        }
        let config = convert::sandbox_config(spec, &self.node_for(spec).await?)
            .map_err(|error| Error::invalid(doing(), error))?;
        // CRI-O makes no directory below this one, and an absent one is a failure without a reason.
        make_directory(&doing, &spec.log_directory).await?;
        let limit = self.limit() * 2;
        let request = proto::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: spec.runtime_handler.clone(),
        };
        self.something_runs();
        let mut client = self.runtime();
        let mut patience = Patience::new(limit);
        let id = loop {
            let call = client.run_pod_sandbox(call::request(request.clone(), Some(limit)));
            let error = match call::within(doing, Some(limit), call).await {
                Ok(answer) => break SandboxId(answer.pod_sandbox_id),
                Err(error) => error,
            };
            // Another's call may have been faster.
            if let Ok(Some(id)) = self.find_sandbox(spec).await {
                break id;
            }
            if !once::is_reserved(&error) {
                return Err(error);
            }
            // A call of an agent that is dead is still being carried out, or taken back: then the name is free again.
            if let Some(holder) = once::holder(&error)
                && self.owns_sandbox(&holder.into(), doing).await?
            {
                // Ready just now; or one of ours that is not what we look for, which will not go by itself.
                break self.find_sandbox(spec).await?.ok_or(error)?;
            }
            if !patience.wait().await {
                return Err(error);
            }
        };
        self.remember(id.as_str());
        Ok(id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        let doing = || format!("stop sandbox {id}");
        if !self.owns_sandbox(id, doing).await? {
            return Ok(());
        }
        let limit = Some(self.limit());
        let request = call::request(proto::StopPodSandboxRequest { pod_sandbox_id: id.0.clone() }, limit);
        let mut client = self.runtime();
        absent_is_done(call::within(doing, limit, client.stop_pod_sandbox(request)).await)
    }

    pub(crate) async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        let doing = || format!("remove sandbox {id}");
        if !self.owns_sandbox(id, doing).await? {
            return Ok(());
        }
        let limit = Some(self.limit());
        let request = call::request(proto::RemovePodSandboxRequest { pod_sandbox_id: id.0.clone() }, limit);
        let mut client = self.runtime();
        absent_is_done(call::within(doing, limit, client.remove_pod_sandbox(request)).await)
    }

    /// What a request for this pod depends on. Asks the server for its cgroup driver only when the spec names no
    /// parent.
    pub(crate) async fn node_for(&self, spec: &SandboxSpec) -> Result<convert::Node> {
        let cgroup_parent = if spec.cgroup_parent.is_empty() {
            match self.cgroup_driver().await?.unwrap_or(self.options.cgroup_driver) {
                CgroupDriver::Cgroupfs => "/podstead",
                CgroupDriver::Systemd => "podstead.slice",
            }
        } else {
            ""
        };
        Ok(convert::Node {
            owner: self.options.owner.clone(),
            cgroup_parent: cgroup_parent.to_owned(),
            hugepage_sizes: self.hugepage_sizes.clone(),
        })
    }

    async fn find_sandbox(&self, spec: &SandboxSpec) -> Result<Option<SandboxId>> {
        let mut selector = self.mark();
        selector.insert(labels::POD_UID.to_owned(), spec.pod.uid.0.clone());
        let filter = proto::PodSandboxFilter { label_selector: selector, ..Default::default() };
        let listed = self.list_sandboxes(Some(filter)).await?;
        let found = listed.into_iter().find(|sandbox| {
            sandbox.metadata.as_ref().is_some_and(|metadata| metadata.attempt == spec.attempt)
        });
        Ok(found.map(|sandbox| {
            self.remember(&sandbox.id);
            SandboxId(sandbox.id)
        }))
    }

    pub(crate) async fn list_sandboxes(
        &self,
        filter: Option<proto::PodSandboxFilter>,
    ) -> Result<Vec<proto::PodSandbox>> {
        let limit = Some(self.limit());
        let request = call::request(proto::ListPodSandboxRequest { filter }, limit);
        let mut client = self.runtime();
        let answer =
            call::within(|| "list sandboxes".into(), limit, client.list_pod_sandbox(request)).await?;
        Ok(answer.items)
    }

    /// Whether the sandbox is there and ours; an error when it is there and another's.
    pub(crate) async fn owns_sandbox(&self, id: &SandboxId, doing: impl Fn() -> String) -> Result<bool> {
        if id.0.is_empty() {
            return Ok(false);
        }
        if self.is_known(id.as_str()) {
            return Ok(true);
        }
        let filter = proto::PodSandboxFilter { id: id.0.clone(), ..Default::default() };
        // Servers take a part of an id for the whole; we do not.
        let listed = self.list_sandboxes(Some(filter)).await?;
        match listed.into_iter().find(|sandbox| sandbox.id == id.0) {
            None => Ok(false),
            Some(sandbox) if self.bears_mark(&sandbox.labels) => {
                self.remember(&sandbox.id);
                Ok(true)
            }
            Some(_) => Err(Error::NotOurs { doing: doing() }),
        }
    }
}

/// What was to be stopped or removed is not there: done.
pub(crate) fn absent_is_done<T>(answer: Result<T>) -> Result<()> {
    match answer {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory for logs with its parents, mode 0755 (`kubelet-static-pods.md 2.9`). An empty path is none.
pub(crate) async fn make_directory(doing: &impl Fn() -> String, path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).await;
    made.map_err(|error| {
        Error::failed(doing(), format_args!("cannot make the log directory {}: {error}", path.display()))
    })
}

/// Whole seconds, rounded up: half a second of grace is not none.
pub(crate) fn seconds(duration: Duration) -> i64 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_second_of_grace_is_not_none() {
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::from_millis(500)), 1);
        assert_eq!(seconds(Duration::from_secs(30)), 30);
    }
}
