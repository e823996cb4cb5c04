//! Why a step is taken and why something waits, in words for people.

use std::fmt;
use std::time::Duration;

use podstead_runtime::PodUid;

use super::action::Verb;
use super::types::RestartPolicy;

/// Why a step is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This agent has not made the pod's host side yet.
    NotPrepared,
    /// The pod has no sandbox.
    NoSandbox,
    /// The newest sandbox is not ready.
    SandboxNotReady,
    /// Several sandboxes are ready at once.
    SeveralSandboxes,
    /// The sandbox has the other network mode.
    NetworkModeChanged,
    /// The sandbox has no address.
    NoAddress,
    /// The image must be there first.
    ImageNeeded,
    /// The container has no instance yet.
    NoInstance,
    /// The last instance never ran and cannot be started any more.
    NeverRan,
    /// The last instance's start was broken off, with the agent that asked for it.
    StartBrokenOff,
    /// The last instance ended and the policy wants another.
    Ended {
        /// Its exit code.
        code: i32,
        /// The policy.
        policy: RestartPolicy,
    },
    /// Its rule has this container's exit start all of the pod's containers anew.
    AllRestart {
        /// The container.
        container: String,
        /// Its exit code.
        code: i32,
    },
    /// All of the pod's containers are started anew.
    NewRound,
    /// The container's definition changed.
    DefinitionChanged,
    /// It is made and not started.
    NotStarted,
    /// The runtime cannot tell what state it is in.
    StateUnknown,
    /// The pod gets a new sandbox.
    SandboxReplaced,
    /// The pod has no container of that name.
    NotInPod,
    /// Its start includes a hook.
    HookDue,
    /// Its postStart hook failed.
    HookFailed,
    /// Its startup or liveness probe failed.
    Unhealthy,
    /// Others go first, its hook does not wait for them.
    StopsLater,
    /// The pod's `activeDeadlineSeconds` are over.
    DeadlineExceeded,
    /// An init container failed and is not tried again.
    InitFailed,
    /// Nothing runs and nothing is to be started.
    Completed,
    /// There is a newer instance.
    Superseded,
    /// There is a newer sandbox.
    OldSandbox,
    /// No manifest asks for this pod.
    PodGone,
    /// Another pod has its name.
    NameTaken,
    /// The pod was taken away and is wanted again.
    StartsAfresh,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPrepared => "the host side of the pod is not known to be there",
            Self::NoSandbox => "the pod has no sandbox",
            Self::SandboxNotReady => "the sandbox is not ready",
            Self::SeveralSandboxes => "more than one sandbox is ready",
            Self::NetworkModeChanged => "the sandbox has another network mode than the pod",
            Self::NoAddress => "the sandbox has no address",
            Self::ImageNeeded => "the image is needed",
            Self::NoInstance => "the container has no instance",
            Self::NeverRan => "the last instance was never started",
            Self::StartBrokenOff => "the last instance's start was broken off",
            Self::Ended { code, policy } => {
                return write!(f, "exited with code {code}, restartPolicy {policy:?}");
            }
            Self::AllRestart { container, code } => {
                return write!(f, "{container} exited with code {code}, its rule restarts all containers");
            }
            Self::NewRound => "all containers are started anew",
            Self::DefinitionChanged => "the definition of the container changed",
            Self::NotStarted => "made and not started",
            Self::StateUnknown => "the runtime cannot tell its state",
            Self::SandboxReplaced => "the sandbox is replaced",
            Self::NotInPod => "the pod has no container of this name",
            Self::HookDue => "it runs, its hook was not carried out",
            Self::HookFailed => "its postStart hook failed",
            Self::Unhealthy => "a probe failed",
            Self::StopsLater => "it stops after others",
            Self::DeadlineExceeded => "the pod was active for longer than its deadline allows",
            Self::InitFailed => "an init container failed for good",
            Self::Completed => "nothing runs and nothing is to be started",
            Self::Superseded => "there is a newer instance",
            Self::OldSandbox => "there is a newer sandbox",
            Self::PodGone => "no manifest asks for this pod",
            Self::NameTaken => "another pod has this name",
            Self::StartsAfresh => "the pod was taken away and is wanted again",
        })
    }
}

/// Why something waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Not every source was read; a manifest may still turn up.
    SourcesNotRead,
    /// A pod of the same name is not fully gone.
    NameTaken(PodUid),
    /// Crash back-off (`kubelet-static-pods.md 2.6`).
    CrashLoop(Duration),
    /// A verb failed and is tried again later.
    Failed {
        /// The verb.
        verb: Verb,
        /// How many times in a row.
        count: u32,
        /// The error.
        message: String,
    },
    /// The runtime cannot start pods.
    RuntimeNotReady(String),
    /// The runtime cannot give pods a network.
    NetworkNotReady(String),
    /// The last sandbox did not live long.
    SandboxShortLived,
    /// This init container is not over, or this sidecar not started.
    Init(String),
    /// The container before it has a postStart hook that is not over.
    Hook(String),
    /// It is a sidecar and outlives these.
    OutlivesOthers,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourcesNotRead => f.write_str("not every manifest source was read yet"),
            Self::NameTaken(uid) => write!(f, "pod {uid} of the same name is not fully gone"),
            Self::CrashLoop(delay) => write!(f, "back-off of {} s before the next instance", delay.as_secs()),
            Self::Failed { verb, count: 1, message } => write!(f, "could not {verb}: {message}"),
            Self::Failed { verb, count, message } => write!(f, "could not {verb} ({count} times): {message}"),
            Self::RuntimeNotReady(why) => write!(f, "the runtime is not ready: {why}"),
            Self::NetworkNotReady(why) => write!(f, "the network is not ready: {why}"),
            Self::SandboxShortLived => f.write_str("the last sandbox did not live long"),
            Self::Init(name) => write!(f, "init container {name} is not done"),
            Self::Hook(name) => write!(f, "the postStart hook of {name} is not over"),
            Self::OutlivesOthers => f.write_str("a sidecar ends after the containers it serves"),
        }
    }
}
