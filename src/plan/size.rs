//! Resizing what runs (`kubelet-static-pods.md 4.5`): what changed about a container, and in which order a pod's cgroup and
//! its containers get their new limits.

use std::fmt;

use podstead_runtime::{Container, PodUid, Sandbox, labels};
use serde::{Deserialize, Serialize};

use super::action::{Action, FailureKey, Verb};
use super::draft::{Draft, View};
use super::known::Known;
use super::mutant::{Mutant, planted};
use super::need::{Need, need};
use super::reason::Reason;
use super::types::{ContainerPlan, Observed, Pod};

/// Annotation of containers: the [frame](ContainerPlan::frame) they were made with.
pub const FRAME: &str = "podstead.dev/frame";
/// Annotation of containers: [`ContainerPlan::context`]; none for an empty one.
pub const CONTEXT: &str = "podstead.dev/context";
/// Annotation of containers: the [`Size`] they were made with.
pub const SIZE: &str = "podstead.dev/size";

/// What can be changed about something that runs: cpu in thousandths, memory in bytes; 0 for "not asked for" and
/// "not limited".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Size {
    /// Requested cpu.
    pub cpu: i64,
    /// Limit of cpu.
    pub cpu_limit: i64,
    /// Requested memory.
    pub memory: i64,
    /// Limit of memory.
    pub memory_limit: i64,
}

impl Size {
    /// The smallest that holds both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        let limit = |a: i64, b: i64| if a == 0 || b == 0 { 0 } else { a.max(b) };
        Self {
            cpu: self.cpu.max(other.cpu),
            cpu_limit: limit(self.cpu_limit, other.cpu_limit),
            memory: self.memory.max(other.memory),
            memory_limit: limit(self.memory_limit, other.memory_limit),
        }
    }

    /// Whether cpu and memory differ.
    fn differs(self, other: Self) -> (bool, bool) {
        let cpu = |s: Self| (s.cpu, s.cpu_limit);
        let memory = |s: Self| (s.memory, s.memory_limit);
        (cpu(self) != cpu(other), memory(self) != memory(other))
    }
}

/// As it is written down: `cpu=250/500 memory=0/67108864`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cpu_limit, memory, memory_limit } = self;
        write!(f, "cpu={cpu}/{cpu_limit} memory={memory}/{memory_limit}")
    }
}

/// A text that is no [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSize;

impl std::str::FromStr for Size {
    type Err = NoSize;

    fn from_str(text: &str) -> Result<Self, NoSize> {
        let (cpu, memory) = text.strip_prefix("cpu=").and_then(|t| t.split_once(" memory=")).ok_or(NoSize)?;
        let pair = |text: &str| {
            let (request, limit) = text.split_once('/')?;
            Some((request.parse().ok()?, limit.parse().ok()?))
        };
        let (cpu, cpu_limit) = pair(cpu).ok_or(NoSize)?;
        let (memory, memory_limit) = pair(memory).ok_or(NoSize)?;
        Ok(Self { cpu, cpu_limit, memory, memory_limit })
    }
}

/// The sizes that a pod's parts may have. More than one while it is not sure which: a change was begun, and nobody saw
/// its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of its cgroup; empty when it was never noted.
    pub pod: Vec<Size>,
    /// Of instances that were resized.
    pub containers: std::collections::BTreeMap<podstead_runtime::ContainerId, Vec<Size>>,
}

/// How an instance differs from what its manifest says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// In its size, which can be changed in place.
    Size,
    /// In its size, which its `resizePolicy` wants another instance for.
    Restart,
    /// In something else.
    Definition,
}

/// Whether the manifest's text of the container is another than the one the instance was made from.
pub(super) fn edited(container: &ContainerPlan, instance: &Container) -> bool {
    instance.annotations.get(labels::CONTAINER_HASH).is_some_and(|hash| *hash != container.hash)
}

/// How the instance differs. The hash over everything is asked first: instances of versions that wrote no frame are judged
/// by it alone, and stay as long as their text does.
pub(super) fn change(observed: &Observed, container: &ContainerPlan, instance: &Container) -> Change {
    let edited = edited(container, instance);
    let Some(frame) = instance.annotations.get(FRAME) else {
        return if edited { Change::Definition } else { Change::None };
    };
    let context = instance.annotations.get(CONTEXT).map_or("", String::as_str);
    if context != container.context {
        return Change::Definition;
    }
    if edited && (*frame != container.frame || planted(Mutant::ResizeReplaces)) {
        return Change::Definition;
    }
    let sizes = sizes(observed, instance);
    let believed = planted(Mutant::ResizeBelieved) && sizes.contains(&container.size);
    if sizes == [container.size] || sizes.is_empty() || believed || planted(Mutant::ResizeForgotten) {
        return Change::None;
    }
    let differs = sizes.iter().map(|size| size.differs(container.size));
    let (cpu, memory) = differs.fold((false, false), |all, one| (all.0 | one.0, all.1 | one.1));
    let restarts = (cpu && container.restarts_for_cpu) || (memory && container.restarts_for_memory);
    if restarts && !planted(Mutant::ResizePolicyIgnored) { Change::Restart } else { Change::Size }
}

/// The sizes that the instance may have; empty when it is of a version that did not write them.
pub(super) fn sizes(observed: &Observed, instance: &Container) -> Vec<Size> {
    let noted = observed.sizes.get(&instance.pod_uid()).and_then(|s| s.containers.get(&instance.id));
    let written = || instance.annotations.get(SIZE).and_then(|text| text.parse().ok());
    noted.cloned().unwrap_or_else(|| written().into_iter().collect())
}

/// The sizes that the pod's cgroup may have; empty when that is not known.
fn pods<'a>(observed: &'a Observed, uid: &PodUid) -> &'a [Size] {
    observed.sizes.get(uid).map_or(&[], |sizes| sizes.pod.as_slice())
}

/// What of the pod runs and is of another size than it should be.
fn unfit<'a>(
    draft: &Draft<'_>,
    pod: &'a Pod,
    view: &'a View<'_>,
    sandbox: &Sandbox,
) -> Vec<(&'a ContainerPlan, &'a Container, Change)> {
    let of = |container: &'a ContainerPlan| {
        let need = need(draft, pod, container, view, Some(sandbox));
        let (Need::Runs(instance) | Need::Stop(instance, _)) = need else { return None };
        let change = change(draft.observed, container, instance);
        (change != Change::None).then_some((container, instance, change))
    };
    pod.all().filter_map(of).collect()
}

/// The next step towards the pod's sizes: what grows has room first, the pod's cgroup; what shrinks goes first, before the
/// pod's cgroup does.
pub(super) fn converge(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>, sandbox: &Sandbox) {
    if draft.ending {
        return;
    }
    let unfit = unfit(draft, pod, view, sandbox);
    let now = pods(draft.observed, draft.uid);
    let early = planted(Mutant::ResizePodShrinksFirst);
    if (unfit.is_empty() && !is_beside(pod, view)) || early {
        if !now.is_empty() && now != [pod.size] {
            resize_pod(draft, pod.size);
        }
        if unfit.is_empty() {
            return;
        }
    } else if cramped(draft, pod, view) && !planted(Mutant::ResizePodLast) {
        return;
    }
    for (container, instance, change) in unfit {
        if change == Change::Size {
            let (uid, id) = (draft.uid.clone(), instance.id.clone());
            let (container, size) = (container.name.clone(), container.size);
            draft.step(Action::UpdateResources { uid, container, id, size }, Reason::Resized);
        }
    }
}

/// Whether something runs that the pod does not have, or an older instance: it goes before the pod's cgroup shrinks.
fn is_beside(pod: &Pod, view: &View<'_>) -> bool {
    let newest = |c: &Container| view.instances(&c.name).next().is_some_and(|newest| newest.id == c.id);
    let wanted = |c: &Container| pod.all().any(|plan| plan.name == c.name) && newest(c);
    view.containers.iter().any(|c| c.is_running() && !wanted(c))
}

/// Whether the pod's cgroup does not surely hold all that the manifest wants in it, and all that still runs; the step is
/// added then.
pub(super) fn cramped(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>) -> bool {
    let now = pods(draft.observed, draft.uid);
    let running = view.containers.iter().filter(|c| c.is_running());
    // What has its size already is part of the pod's.
    let fits = |c: &Container, sizes: &[Size]| pod.all().any(|p| p.name == c.name && sizes == [p.size]);
    let held =
        running.flat_map(|c| Some(sizes(draft.observed, c)).filter(|s| !fits(c, s)).unwrap_or_default());
    let room = now.iter().copied().chain(held).fold(pod.size, Size::max);
    if now.is_empty() || now == [room] {
        return false;
    }
    resize_pod(draft, room);
    true
}

fn resize_pod(draft: &mut Draft<'_>, size: Size) {
    draft.step(Action::ResizePod { uid: draft.uid.clone(), size }, Reason::Resized);
}

/// Whether the pod is of another quality of service than the cgroup it was made in: the kernel moves no cgroup, so the pod
/// is replaced.
pub(super) fn another_class(observed: &Observed, pod: &Pod) -> bool {
    let made = observed.classes.get(&pod.identity.uid);
    made.is_some_and(|class| *class != pod.class) && !planted(Mutant::ClassChangeIgnored)
}

/// What keeps the pod from its sizes: nothing said while it is on its way there, else the last error. `None` when they are
/// as they should be.
pub(super) fn progress(
    pod: &Pod,
    observed: &Observed,
    known: &Known,
    newest: &[(&ContainerPlan, &Container)],
) -> Option<String> {
    let uid = &pod.identity.uid;
    let differs = |(plan, instance): &(&ContainerPlan, &Container)| {
        instance.is_running() && matches!(change(observed, plan, instance), Change::Size | Change::Restart)
    };
    let now = pods(observed, uid);
    if !newest.iter().any(differs) && (now.is_empty() || now == [pod.size]) {
        return None;
    }
    let failure = |key: &FailureKey| key.uid == *uid && matches!(key.verb, Verb::Update | Verb::ResizePod);
    let failed = known.failures.iter().find(|(key, _)| failure(key));
    Some(failed.map(|(_, failure)| failure.message.clone()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_written() {
        let size = Size { cpu: 250, cpu_limit: 0, memory: 1, memory_limit: 64 << 20 };
        assert_eq!(size.to_string(), "cpu=250/0 memory=1/67108864");
        assert_eq!(size.to_string().parse(), Ok(size));
        for text in ["", "cpu=1/2", "cpu=1 memory=2", "cpu=x/1 memory=1/1"] {
            assert_eq!(text.parse::<Size>(), Err(NoSize), "{text}");
        }
    }

    #[test]
    fn no_limit_is_the_greatest_one() {
        let of = |cpu, cpu_limit| Size { cpu, cpu_limit, ..Size::default() };
        assert_eq!(of(1, 0).max(of(2, 5)), of(2, 0));
        assert_eq!(of(3, 4).max(of(2, 5)), of(3, 5));
    }
}
