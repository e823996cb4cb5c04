//! Verbs on containers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podstead_runtime::{
    ContainerId, ContainerSpec, Error, ExecOutput, LinuxResources, Result, SandboxId, SandboxSpec, Time,
    labels,
};

use crate::client::Inner;
use crate::once::{self, Patience};
use crate::sandboxes::{absent_is_done, make_directory, seconds};
use crate::{call, convert, proto};

/// How much of a command's output is kept, per stream.
const MAX_OUTPUT: usize = 16 << 20;

impl Inner {
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        pod: &SandboxSpec,
    ) -> Result<ContainerId> {
        let key = format!("create container {} (attempt {}) in sandbox {sandbox}", spec.name, spec.attempt);
        let inner = Arc::clone(self);
        let (sandbox, spec, pod) = (sandbox.clone(), spec.clone(), pod.clone());
        let make = async move { inner.make_container(&sandbox, &spec, &pod).await.map(|id| id.0) };
        self.flights.join(key, make).await.map(ContainerId)
    }

    async fn make_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        pod: &SandboxSpec,
    ) -> Result<ContainerId> {
        let doing = || {
            let (name, pod, attempt) = (&spec.name, pod.pod.full_name(), spec.attempt);
            format!("create container {name} of pod {pod} (attempt {attempt})")
        };
        if !self.owns_sandbox(sandbox, doing).await? {
            return Err(Error::not_found(doing(), format!("sandbox {sandbox}")));
        }
        let log = (!spec.log_path.as_os_str().is_empty()).then(|| pod.log_directory.join(&spec.log_path));
        if let Some(id) = self.find_container(sandbox, spec).await? {
            if !self.is_worthless(&id).await? {
                return Ok(id);
            }
            self.clear_away(&id, log.as_deref()).await?;
        }
        let node = self.node_for(pod).await?;
        let invalid = |error| Error::invalid(doing(), error);
        let config = convert::container_config(spec, pod, &node).map_err(invalid)?;
        let sandbox_config = convert::sandbox_config(pod, &node).map_err(invalid)?;
        if let Some(directory) = log.as_deref().and_then(Path::parent) {
            make_directory(&doing, directory).await?;
        }
        let request = proto::CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let id = self.send_create(sandbox, spec, &request, &doing).await?;
        self.remember(id.as_str());
        Ok(id)
    }

    /// Creates, and waits for an earlier creation of the same that is still being carried out or taken back.
    async fn send_create(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        request: &proto::CreateContainerRequest,
        doing: &(impl Fn() -> String + Send + Sync),
    ) -> Result<ContainerId> {
        let limit = self.limit();
        let mut client = self.runtime();
        let mut patience = Patience::new(limit);
        loop {
            let call = client.create_container(call::request(request.clone(), Some(limit)));
            let error = match call::within(doing, Some(limit), call).await {
                Ok(answer) => return Ok(ContainerId(answer.container_id)),
                Err(error) => error,
            };
            if let Ok(Some(id)) = self.find_container(sandbox, spec).await {
                return Ok(id);
            }
            if !once::is_reserved(&error) {
                return Err(self.name_missing_image(spec, name_image_volume(spec, error)).await);
            }
            if let Some(holder) = once::holder(&error)
                && self.owns_container(&holder.into(), doing).await?
            {
                // Ready just now; or one of ours that is not what we look for, which will not go by itself.
                return self.find_container(sandbox, spec).await?.ok_or(error);
            }
            if !patience.wait().await {
                return Err(error);
            }
        }
    }

    /// That the image is missing servers say in words of their own.
    async fn name_missing_image(&self, spec: &ContainerSpec, error: Error) -> Error {
        let Error::Failed { doing, cause } = error else { return error };
        let mut image = spec.image.clone();
        if !spec.image_id.is_empty() {
            image.image.clone_from(&spec.image_id);
        }
        match self.image(&image).await {
            Ok(None) => Error::not_found(doing, format!("image {}", image.image)),
            _ => Error::Failed { doing, cause },
        }
    }

    /// Whether nothing of it ran and it cannot be started any more.
    async fn is_worthless(&self, id: &ContainerId) -> Result<bool> {
        match self.container_status(id, false).await {
            Ok((status, _)) => Ok(convert::start_broken_off(&status) == Some(convert::BrokenOff::NeverRan)),
            // Gone since it was listed: there is nothing to keep.
            Err(Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes a container that never ran, after its log, which has nothing in it: a log without its container
    /// would count as an instance (`kubelet-static-pods.md 2.8`).
    async fn clear_away(&self, id: &ContainerId, log: Option<&Path>) -> Result<()> {
        tracing::info!(container = %id, "its start was broken off and nothing of it ran: made anew");
        if let Some(log) = log
            && tokio::fs::symlink_metadata(log).await.is_ok_and(|file| file.is_file() && file.len() == 0)
        {
            let _ = tokio::fs::remove_file(log).await;
        }
        self.remove_container(id).await
    }

    pub(crate) async fn start_container(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let (inner, container) = (Arc::clone(self), id.clone());
        let start = async move { inner.begin_container(&container).await.map(|()| String::new()) };
        self.flights.join(format!("start container {id}"), start).await.map(drop)
    }

    async fn begin_container(&self, id: &ContainerId) -> Result<()> {
        let doing = || format!("start container {id}");
        if !self.owns_container(id, doing).await? {
            return Err(Error::not_found(doing(), format!("container {id}")));
        }
        self.something_runs();
        let limit = self.limit();
        let mut client = self.runtime();
        let mut patience = Patience::new(limit);
        let mut begun = Time::now();
        loop {
            let request = proto::StartContainerRequest { container_id: id.0.clone() };
            let call = client.start_container(call::request(request, Some(limit)));
            let Err(error) = call::within(doing, Some(limit), call).await else { return Ok(()) };
            if once::is_under_way(&error) {
                // Another's start; whatever comes of it, it was started before our next call.
                if !patience.wait().await {
                    return Err(error);
                }
                begun = Time::now();
                continue;
            }
            // Running already, or over since before this call: done. One that failed to start just now is neither.
            return match self.container_status(id, false).await {
                Ok((status, _)) if already_started(&status, begun) => Ok(()),
                _ => Err(error),
            };
        }
    }

    pub(crate) async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let doing = || format!("stop container {id}");
        if !self.owns_container(id, doing).await? {
            return Ok(());
        }
        let timeout = seconds(grace);
        let limit = Some(self.limit().saturating_add(grace));
        let request = proto::StopContainerRequest { container_id: id.0.clone(), timeout };
        let mut client = self.runtime();
        let call = client.stop_container(call::request(request, limit));
        absent_is_done(call::within(doing, limit, call).await)
    }

    pub(crate) async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let doing = || format!("remove container {id}");
        if !self.owns_container(id, doing).await? {
            return Ok(());
        }
        let limit = self.limit();
        let mut client = self.runtime();
        let mut patience = Patience::new(limit);
        loop {
            let request = proto::RemoveContainerRequest { container_id: id.0.clone() };
            let call = client.remove_container(call::request(request, Some(limit)));
            match absent_is_done(call::within(doing, Some(limit), call).await) {
                Err(error) if once::is_under_way(&error) && patience.wait().await => {}
                answer => return answer,
            }
        }
    }

    pub(crate) async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        let doing = || format!("update resources of container {id}");
        self.must_own(id, doing).await?;
        let linux = convert::resources(resources, &self.hugepage_sizes)
            .map_err(|error| Error::invalid(doing(), error))?;
        let limit = Some(self.limit());
        let request = proto::UpdateContainerResourcesRequest {
            container_id: id.0.clone(),
            linux: Some(linux),
            ..Default::default()
        };
        let mut client = self.runtime();
        let call = client.update_container_resources(call::request(request, limit));
        match call::within(doing, limit, call).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(id, error).await),
        }
    }

    pub(crate) async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        let doing = || format!("reopen the log of container {id}");
        self.must_own(id, doing).await?;
        let limit = Some(self.limit());
        let request = call::request(proto::ReopenContainerLogRequest { container_id: id.0.clone() }, limit);
        let mut client = self.runtime();
        match call::within(doing, limit, client.reopen_container_log(request)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(id, error).await),
        }
    }

    pub(crate) async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        let doing = || format!("run {:?} in container {id}", command.first().map_or("", String::as_str));
        self.must_own(id, doing).await?;
        let limit = (!timeout.is_zero()).then(|| self.limit().saturating_add(timeout));
        let request = proto::ExecSyncRequest {
            container_id: id.0.clone(),
            cmd: command.to_vec(),
            timeout: seconds(timeout),
        };
        let mut client = self.runtime();
        let begun = Instant::now();
        match call::within(doing, limit, client.exec_sync(call::request(request, limit))).await {
            Ok(mut answer) => {
                answer.stdout.truncate(MAX_OUTPUT);
                answer.stderr.truncate(MAX_OUTPUT);
                Ok(ExecOutput { code: answer.exit_code, stdout: answer.stdout, stderr: answer.stderr })
            }
            // The command's time was up, whatever code the server has for that.
            Err(Error::Deadline { .. } | Error::Failed { .. })
                if !timeout.is_zero() && begun.elapsed() >= timeout =>
            {
                Err(Error::Deadline { doing: doing(), seconds: seconds(timeout).unsigned_abs() })
            }
            Err(error) => Err(self.explain(id, error).await),
        }
    }

    /// The status of a container, and its first process's id when `verbose` and the server says so.
    pub(crate) async fn container_status(
        &self,
        id: &ContainerId,
        verbose: bool,
    ) -> Result<(proto::ContainerStatus, u32)> {
        let limit = Some(self.limit());
        let doing = || format!("read the status of container {id}");
        let request = proto::ContainerStatusRequest { container_id: id.0.clone(), verbose };
        let mut client = self.runtime();
        let answer =
            call::within(doing, limit, client.container_status(call::request(request, limit))).await?;
        let status = answer.status.ok_or_else(|| Error::failed(doing(), "the answer has no status"))?;
        Ok((status, answer.info.get("info").map_or(0, |info| pid(info))))
    }

    /// A failure whose reason is that the container does not run says so.
    pub(crate) async fn explain(&self, id: &ContainerId, error: Error) -> Error {
        let Error::Failed { doing, cause } = error else { return error };
        match self.container_status(id, false).await {
            Ok((status, _)) if status.state() != proto::ContainerState::ContainerRunning => {
                let state = status.state().as_str_name().trim_start_matches("CONTAINER_").to_lowercase();
                Error::State { doing, cause: format!("the container is {state}, not running") }
            }
            Err(Error::NotFound { .. }) => Error::not_found(doing, format!("container {id}")),
            _ => Error::Failed { doing, cause },
        }
    }

    async fn find_container(&self, sandbox: &SandboxId, spec: &ContainerSpec) -> Result<Option<ContainerId>> {
        let mut selector = self.mark();
        selector.insert(labels::CONTAINER_NAME.to_owned(), spec.name.clone());
        let filter = proto::ContainerFilter {
            pod_sandbox_id: sandbox.0.clone(),
            label_selector: selector,
            ..Default::default()
        };
        let listed = self.list_containers(Some(filter)).await?;
        let found = listed.into_iter().find(|container| {
            container.metadata.as_ref().is_some_and(|metadata| metadata.attempt == spec.attempt)
        });
        Ok(found.map(|container| {
            self.remember(&container.id);
            ContainerId(container.id)
        }))
    }

    pub(crate) async fn list_containers(
        &self,
        filter: Option<proto::ContainerFilter>,
    ) -> Result<Vec<proto::Container>> {
        let limit = Some(self.limit());
        let request = call::request(proto::ListContainersRequest { filter }, limit);
        let mut client = self.runtime();
        let answer =
            call::within(|| "list containers".into(), limit, client.list_containers(request)).await?;
        Ok(answer.containers)
    }

    pub(crate) async fn must_own(&self, id: &ContainerId, doing: impl Fn() -> String) -> Result<()> {
        if self.owns_container(id, &doing).await? {
            Ok(())
        } else {
            Err(Error::not_found(doing(), format!("container {id}")))
        }
    }

    /// Whether the container is there and ours; an error when it is there and another's.
    async fn owns_container(&self, id: &ContainerId, doing: impl Fn() -> String) -> Result<bool> {
        if id.0.is_empty() {
            return Ok(false);
        }
        if self.is_known(id.as_str()) {
            return Ok(true);
        }
        let filter = proto::ContainerFilter { id: id.0.clone(), ..Default::default() };
        let listed = self.list_containers(Some(filter)).await?;
        match listed.into_iter().find(|container| container.id == id.0) {
            None => Ok(false),
            Some(container) if self.bears_mark(&container.labels) => {
                self.remember(&container.id);
                Ok(true)
            }
            Some(_) => Err(Error::NotOurs { doing: doing() }),
        }
    }
}

fn already_started(status: &proto::ContainerStatus, begun: Time) -> bool {
    match status.state() {
        proto::ContainerState::ContainerRunning => true,
        proto::ContainerState::ContainerExited => Time(status.finished_at) < begun,
        _ => false,
    }
}

/// The process id in the verbose info of containerd and CRI-O, a JSON object as text.
fn pid(info: &str) -> u32 {
    serde_json::from_str::<serde_json::Value>(info)
        .ok()
        .and_then(|info| info.get("pid")?.as_u64())
        .and_then(|pid| u32::try_from(pid).ok())
        .unwrap_or(0)
}

/// Servers that do not know image volumes see a mount without a source, and say so.
fn name_image_volume(spec: &ContainerSpec, error: Error) -> Error {
    let Error::Failed { doing, cause } = error else { return error };
    let blind = ["mkdir \"\"", "stat \"\"", "HostPath is empty"].iter().any(|words| cause.contains(words));
    match spec.mounts.iter().find_map(|mount| Some((mount, mount.image.as_ref()?))).filter(|_| blind) {
        Some((mount, volume)) => {
            let (image, at) = (&volume.image.image, mount.destination.display());
            let what = format!(
                "the image volume {image} at {at} (containerd has them from 2.1 on, CRI-O from 1.31)"
            );
            Error::Unsupported { doing, what }
        }
        None => Error::Failed { doing, cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_over_before_the_call_counts_as_started_one_that_failed_in_it_does_not() {
        let exited = |finished_at| proto::ContainerStatus {
            state: proto::ContainerState::ContainerExited.into(),
            finished_at,
            ..Default::default()
        };
        assert!(already_started(&exited(5), Time(9)));
        assert!(!already_started(&exited(9), Time(9)));
        assert!(!already_started(&proto::ContainerStatus::default(), Time(9)), "created");
    }

    #[test]
    fn the_process_id_is_read_from_the_servers_info() {
        assert_eq!(pid(r#"{"sandboxID":"x","pid":4711,"runtimeSpec":{}}"#), 4711);
        assert_eq!(pid("not json"), 0);
        assert_eq!(pid("{}"), 0);
    }
}
