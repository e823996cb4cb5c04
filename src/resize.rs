//! Giving pods and containers their limits, at first and while they run (`kubelet-static-pods.md 4.5`): the effects behind
//! [`Action::UpdateResources`](crate::plan::Action) and [`Action::ResizePod`](crate::plan::Action). Touches the pods' cgroups,
//! the notes of their sizes, and the runtime. Decides nothing.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use podstead_runtime::{CgroupDriver, Container, ContainerId, Retry, Runtime};

use crate::execute::{Executor, Failed, blocking, find, host};
use crate::node::cgroup::Cgroups;
use crate::node::systemd;
use crate::plan::{SIZE, Size, Sizes};
use crate::pod::{NodeFacts, files, identity, resources};

/// Makes the pod's cgroup, or sees that it holds what the manifest asks for beside what it was noted to hold: what runs in
/// it may be larger still.
pub(crate) fn prepare(node: &NodeFacts, cgroups: &Cgroups, pod: &Pod) -> Result<(), Failed> {
    let noted = files::sizes(node, &identity::identity(pod).uid);
    let size = noted.pod.iter().fold(resources::pod_size(spec(pod)), |all, one| all.max(*one));
    set(node, cgroups, pod, size, &noted)
}

/// Sets the limits of the pod's cgroup and notes them.
fn set(node: &NodeFacts, cgroups: &Cgroups, pod: &Pod, size: Size, noted: &Sizes) -> Result<(), Failed> {
    let uid = identity::identity(pod).uid;
    if noted.pod != [size] {
        files::note_pod_size(node, &uid, &doubt(&noted.pod, size)).map_err(host)?;
    }
    let limits = resources::lift(resources::pod_cgroup(node, spec(pod), size));
    let path = identity::cgroup_path(node, pod);
    match node.cgroup_driver {
        CgroupDriver::Cgroupfs => cgroups.ensure(&path, &limits).map_err(host)?,
        // The runtime would have the slice made as well, but without limits.
        CgroupDriver::Systemd => systemd::ensure(&identity::slice(&path), &limits).map_err(host)?,
    }
    if noted.pod == [size] { Ok(()) } else { files::note_pod_size(node, &uid, &[size]).map_err(host) }
}

/// All that it may be until the change is seen to be over.
fn doubt(before: &[Size], after: Size) -> Vec<Size> {
    let mut all = before.to_vec();
    if !all.contains(&after) {
        all.push(after);
    }
    all
}

/// The kubelet's words for a limit that what runs does not fit in: the kernel would kill it.
fn fits(what: &str, limit: i64, usage: i64) -> Result<(), Failed> {
    if limit == 0 || usage <= limit {
        return Ok(());
    }
    let message = format!("attempting to set {what} memory limit ({limit}) below current usage ({usage})");
    Err(Failed { retry: Retry::Backoff, reason: "", message })
}

fn spec(pod: &Pod) -> &PodSpec {
    static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&NONE)
}

impl<R: Runtime> Executor<R> {
    /// Changes the pod's cgroup.
    pub(crate) async fn resize_pod(&self, pod: Arc<Pod>, size: Size) -> Result<(), Failed> {
        let (node, cgroups) = (Arc::clone(&self.node), Arc::clone(&self.cgroups));
        blocking(move || {
            let noted = files::sizes(&node, &identity::identity(&pod).uid);
            let path = identity::cgroup_path(&node, &pod);
            let path = match node.cgroup_driver {
                CgroupDriver::Cgroupfs => path,
                CgroupDriver::Systemd => identity::slice_path(&path),
            };
            fits("pod", size.memory_limit, cgroups.memory_usage(&path).unwrap_or(0))?;
            set(&node, &cgroups, &pod, size, &noted)
        })
        .await
    }

    /// Changes what a running container may use; `made` is the instance as the runtime has it.
    pub(crate) async fn resize_container(
        &self,
        pod: &Arc<Pod>,
        name: &str,
        id: &ContainerId,
        size: Size,
        made: Option<&Container>,
    ) -> Result<(), Failed> {
        let limits = resources::resized(&self.node, spec(pod), find(pod, name)?);
        if size.memory_limit > 0 {
            // Who does not count must not keep anybody from resizing.
            let stats = self.runtime.container_stats().await.unwrap_or_default();
            let usage = stats.iter().find(|s| s.id == *id).map_or(0, |s| s.memory_working_set);
            fits(
                &format!("container {name:?}"),
                size.memory_limit,
                i64::try_from(usage).unwrap_or(i64::MAX),
            )?;
        }
        let uid = identity::identity(pod).uid;
        let note = |sizes: Vec<Size>| {
            let (node, uid) = (Arc::clone(&self.node), uid.clone());
            let (name, id) = (name.to_owned(), id.clone());
            blocking(move || files::note_size(&node, &uid, &name, &id, &sizes).map_err(host))
        };
        let (node, of) = (Arc::clone(&self.node), uid.clone());
        let noted = blocking(move || Ok(files::sizes(&node, &of))).await?;
        let before = match noted.containers.get(id) {
            Some(noted) => noted.clone(),
            None => made.and_then(|c| c.annotations.get(SIZE)?.parse().ok()).into_iter().collect(),
        };
        note(doubt(&before, size)).await?;
        self.runtime.update_resources(id, &limits).await?;
        note(vec![size]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_limited_below_what_it_uses() {
        assert!(fits("pod", 0, i64::MAX).is_ok());
        assert!(fits("pod", 10, 10).is_ok());
        let words = "attempting to set container \"c\" memory limit (10) below current usage (11)";
        assert_eq!(fits("container \"c\"", 10, 11).unwrap_err().message, words);
    }

    #[test]
    fn a_doubt_holds_each_size_once() {
        let of = |cpu| Size { cpu, ..Size::default() };
        assert_eq!(doubt(&[of(1)], of(2)), [of(1), of(2)]);
        assert_eq!(doubt(&[of(1), of(2)], of(1)), [of(1), of(2)]);
    }
}
