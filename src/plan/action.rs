//! A plan as data: steps, what each is for, what waits for what. Nothing here decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use podstead_runtime::{ContainerId, PodUid, SandboxId, Time};

use super::jobs::{JobKey, Scope};
use super::reason::{Reason, WaitReason};
use super::room::{Claim, Refusal};
use super::size::Size;

/// What to do now, what waits, and when to look again although nothing was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps of each pod, the more urgent first. All may be tried at once; [`Jobs`](super::Jobs) admits them.
    pub steps: BTreeMap<PodUid, Vec<Step>>,
    /// What is not done yet, and why.
    pub waits: BTreeMap<PodUid, Vec<Wait>>,
    /// When time alone changes this plan; `None` when it does not.
    pub wake_at: Option<Time>,
    /// Pods whose containers are all being stopped.
    pub ending: BTreeSet<PodUid>,
    /// Pods on their way out. A pod wanted again meanwhile starts afresh instead of half-stopped
    /// ([`Known::planned`](super::Known::planned)).
    pub leaving: BTreeSet<PodUid>,
    /// Those of them that give their place to a critical pod; they come back when there is room.
    pub preempted: BTreeSet<PodUid>,
    /// Pods that the node does not take now, and why.
    pub refused: BTreeMap<PodUid, Refusal>,
    /// Pods that have a place on the node, and what they take of it: also those that wait for their first sandbox, and those
    /// on their way out.
    pub placed: BTreeMap<PodUid, Claim>,
}

impl Plan {
    /// Nothing to do, nothing to wait for.
    pub fn is_quiet(&self) -> bool {
        self.steps.is_empty() && self.wake_at.is_none()
    }
}

/// One thing to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Why: the log line, the golden text and the status page.
    pub because: Reason,
    /// What it must not run beside.
    pub job: JobKey,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.action, self.because)
    }
}

/// Something that is not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The container it is about; `None` for the whole pod.
    pub container: Option<String>,
    /// For what.
    pub because: WaitReason,
    /// Until when; `None` when something else must change first.
    pub until: Option<Time>,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(container) = &self.container {
            write!(f, "{container}: ")?;
        }
        self.because.fmt(f)
    }
}

/// One effect, safe to repeat. Every action but [`PreparePod`](Self::PreparePod), [`EnsureImage`](Self::EnsureImage),
/// [`ResizePod`](Self::ResizePod) and [`CleanPod`](Self::CleanPod) is one verb of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's directories, volumes and cgroup on the host.
    PreparePod {
        /// Pod.
        uid: PodUid,
    },
    /// Have the image here, by the container's pull policy, and tell its id ([`Known::succeeded`](super::Known::succeeded)).
    /// May be dropped halfway; do so when the current plan has it no longer ([`Jobs::obsolete`](super::Jobs::obsolete)).
    EnsureImage {
        /// Pod.
        uid: PodUid,
        /// Container.
        container: String,
        /// Attempt it is for.
        attempt: u32,
        /// Image as the user wrote it.
        image: String,
    },
    /// Make the pod's sandbox.
    RunSandbox {
        /// Pod.
        uid: PodUid,
        /// Attempt.
        attempt: u32,
    },
    /// Make a container.
    CreateContainer {
        /// Pod.
        uid: PodUid,
        /// Sandbox to make it in.
        sandbox: SandboxId,
        /// Container.
        container: String,
        /// Attempt: restart count, and name of the log file.
        attempt: u32,
        /// What the image was resolved to.
        image_id: String,
        /// Annotations to write: the planner's memory, and the kubelet's own keys.
        annotations: BTreeMap<String, String>,
    },
    /// Start a container that was made.
    StartContainer {
        /// Pod.
        uid: PodUid,
        /// Container.
        container: String,
        /// Instance.
        id: ContainerId,
    },
    /// Carry out the postStart hook of a container that runs.
    PostStart {
        /// Pod.
        uid: PodUid,
        /// Container.
        container: String,
        /// Instance.
        id: ContainerId,
    },
    /// Carry out the preStop hook of a container that is stopped later, because others go first.
    PreStop {
        /// Pod.
        uid: PodUid,
        /// Container.
        container: String,
        /// Instance.
        id: ContainerId,
        /// How long the hook may take.
        grace: Duration,
    },
    /// Stop a container: preStop hook, stop signal, kill.
    StopContainer {
        /// Pod.
        uid: PodUid,
        /// Container.
        container: String,
        /// Instance.
        id: ContainerId,
        /// Grace for hook and stop together, at least 2 s.
        grace: Duration,
        /// Whether its preStop hook is still to be carried out.
        hook: bool,
    },
    /// Change what a running container may use, in place, and note it ([`Observed::sizes`](super::Observed::sizes)).
    UpdateResources {
        /// Pod.
        uid: PodUid,
        /// Container.
        container: String,
        /// Instance.
        id: ContainerId,
        /// What it may use from now on.
        size: Size,
    },
    /// Change what the pod's cgroup may use, and note it.
    ResizePod {
        /// Pod.
        uid: PodUid,
        /// What it may use from now on.
        size: Size,
    },
    /// Remove a container that does not run.
    RemoveContainer {
        /// Pod.
        uid: PodUid,
        /// Container.
        container: String,
        /// Instance.
        id: ContainerId,
    },
    /// Stop a sandbox and give its network back.
    StopSandbox {
        /// Pod.
        uid: PodUid,
        /// Sandbox.
        id: SandboxId,
    },
    /// Remove a stopped sandbox.
    RemoveSandbox {
        /// Pod.
        uid: PodUid,
        /// Sandbox.
        id: SandboxId,
    },
    /// Remove what the host has of a pod that is gone.
    CleanPod {
        /// Pod.
        uid: PodUid,
    },
}

/// The kind of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// [`Action::PreparePod`].
    Prepare,
    /// [`Action::EnsureImage`].
    EnsureImage,
    /// [`Action::RunSandbox`].
    RunSandbox,
    /// [`Action::CreateContainer`].
    Create,
    /// [`Action::StartContainer`].
    Start,
    /// [`Action::PostStart`].
    PostStart,
    /// [`Action::PreStop`].
    PreStop,
    /// [`Action::StopContainer`].
    Stop,
    /// [`Action::UpdateResources`].
    Update,
    /// [`Action::ResizePod`].
    ResizePod,
    /// [`Action::RemoveContainer`].
    Remove,
    /// [`Action::StopSandbox`].
    StopSandbox,
    /// [`Action::RemoveSandbox`].
    RemoveSandbox,
    /// [`Action::CleanPod`].
    Clean,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare the pod",
            Self::EnsureImage => "get the image",
            Self::RunSandbox => "run the sandbox",
            Self::Create => "create the container",
            Self::Start => "start the container",
            Self::PostStart => "carry out the postStart hook",
            Self::PreStop => "carry out the preStop hook",
            Self::Stop => "stop the container",
            Self::Update => "resize the container",
            Self::ResizePod => "resize the pod",
            Self::Remove => "remove the container",
            Self::StopSandbox => "stop the sandbox",
            Self::RemoveSandbox => "remove the sandbox",
            Self::Clean => "clean up after the pod",
        })
    }
}

/// Under what a failure is remembered: the attempt is no part of it, so that pauses keep growing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FailureKey {
    /// Pod.
    pub uid: PodUid,
    /// What was being done.
    pub verb: Verb,
    /// To what: an image, a container's name, an id; empty for the pod itself.
    pub target: String,
}

impl Action {
    /// The pod it is about.
    pub fn uid(&self) -> &PodUid {
        match self {
            Self::PreparePod { uid }
            | Self::EnsureImage { uid, .. }
            | Self::RunSandbox { uid, .. }
            | Self::CreateContainer { uid, .. }
            | Self::StartContainer { uid, .. }
            | Self::PostStart { uid, .. }
            | Self::PreStop { uid, .. }
            | Self::StopContainer { uid, .. }
            | Self::UpdateResources { uid, .. }
            | Self::ResizePod { uid, .. }
            | Self::RemoveContainer { uid, .. }
            | Self::StopSandbox { uid, .. }
            | Self::RemoveSandbox { uid, .. }
            | Self::CleanPod { uid } => uid,
        }
    }

    /// The instance it is about, if it is about one that exists.
    pub fn instance(&self) -> Option<&ContainerId> {
        match self {
            Self::StartContainer { id, .. }
            | Self::PostStart { id, .. }
            | Self::PreStop { id, .. }
            | Self::StopContainer { id, .. }
            | Self::UpdateResources { id, .. }
            | Self::RemoveContainer { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The kind of action.
    pub fn verb(&self) -> Verb {
        match self {
            Self::PreparePod { .. } => Verb::Prepare,
            Self::EnsureImage { .. } => Verb::EnsureImage,
            Self::RunSandbox { .. } => Verb::RunSandbox,
            Self::CreateContainer { .. } => Verb::Create,
            Self::StartContainer { .. } => Verb::Start,
            Self::PostStart { .. } => Verb::PostStart,
            Self::PreStop { .. } => Verb::PreStop,
            Self::StopContainer { .. } => Verb::Stop,
            Self::UpdateResources { .. } => Verb::Update,
            Self::ResizePod { .. } => Verb::ResizePod,
            Self::RemoveContainer { .. } => Verb::Remove,
            Self::StopSandbox { .. } => Verb::StopSandbox,
            Self::RemoveSandbox { .. } => Verb::RemoveSandbox,
            Self::CleanPod { .. } => Verb::Clean,
        }
    }

    /// Whether it concerns the whole pod or one container.
    pub fn scope(&self) -> Scope {
        match self {
            Self::EnsureImage { container, .. }
            | Self::CreateContainer { container, .. }
            | Self::StartContainer { container, .. }
            | Self::PostStart { container, .. }
            | Self::PreStop { container, .. }
            | Self::StopContainer { container, .. }
            | Self::UpdateResources { container, .. }
            | Self::RemoveContainer { container, .. } => Scope::Container(container.clone()),
            _ => Scope::Pod,
        }
    }

    /// Under what its failures are remembered.
    pub fn failure_key(&self) -> FailureKey {
        let target = match self {
            Self::PreparePod { .. }
            | Self::RunSandbox { .. }
            | Self::ResizePod { .. }
            | Self::CleanPod { .. } => String::new(),
            Self::EnsureImage { image, .. } => image.clone(),
            Self::CreateContainer { container, .. } | Self::StartContainer { container, .. } => {
                container.clone()
            }
            Self::PostStart { id, .. }
            | Self::PreStop { id, .. }
            | Self::StopContainer { id, .. }
            | Self::UpdateResources { id, .. }
            | Self::RemoveContainer { id, .. } => id.0.clone(),
            Self::StopSandbox { id, .. } | Self::RemoveSandbox { id, .. } => id.0.clone(),
        };
        FailureKey { uid: self.uid().clone(), verb: self.verb(), target }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreparePod { .. } => f.write_str("prepare pod"),
            Self::EnsureImage { container, attempt, image, .. } => {
                write!(f, "ensure image {image} for {container} #{attempt}")
            }
            Self::RunSandbox { attempt, .. } => write!(f, "run sandbox #{attempt}"),
            Self::CreateContainer { container, attempt, sandbox, .. } => {
                write!(f, "create container {container} #{attempt} in {sandbox}")
            }
            Self::StartContainer { container, id, .. } => write!(f, "start container {container} ({id})"),
            Self::PostStart { container, id, .. } => write!(f, "postStart hook of {container} ({id})"),
            Self::PreStop { container, id, grace, .. } => {
                write!(f, "preStop hook of {container} ({id}), at most {} s", grace.as_secs())
            }
            Self::StopContainer { container, id, grace, hook, .. } => {
                let hook = if *hook { ", preStop hook first" } else { "" };
                write!(f, "stop container {container} ({id}), grace {} s{hook}", grace.as_secs())
            }
            Self::UpdateResources { container, id, size, .. } => {
                write!(f, "resize container {container} ({id}) to {size}")
            }
            Self::ResizePod { size, .. } => write!(f, "resize pod to {size}"),
            Self::RemoveContainer { container, id, .. } => write!(f, "remove container {container} ({id})"),
            Self::StopSandbox { id, .. } => write!(f, "stop sandbox {id}"),
            Self::RemoveSandbox { id, .. } => write!(f, "remove sandbox {id}"),
            Self::CleanPod { .. } => f.write_str("clean pod"),
        }
    }
}
