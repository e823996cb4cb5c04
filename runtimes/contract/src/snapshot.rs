//! One reading of all that is ours.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::labels;
use crate::sandbox::PodIdentity;
use crate::{ContainerId, PodUid, SandboxId, Time};

/// All sandboxes and containers of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Containers, newest first.
    pub containers: Vec<Container>,
}

/// Whether a sandbox can take containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// It can.
    Ready,
    /// It is stopped, broken or half-made.
    #[default]
    NotReady,
}

/// A sandbox that exists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// Id.
    pub id: SandboxId,
    /// Its pod.
    pub pod: PodIdentity,
    /// Attempt, from 0.
    pub attempt: u32,
    /// State.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Time,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Addresses, the primary first. `None`: the runtime does not say; empty: it has none.
    pub ips: Option<Vec<IpAddr>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Runtime class handler.
    pub runtime_handler: String,
}

/// Reason of an [exit](ContainerState::Exited) that the container had no part in: the caller that was starting it went
/// away, so the runtime gave the start up. Exited with `started_at` "never", nothing of it ran, and
/// [`create_container`](crate::Runtime::create_container) with the same key makes it anew; else something of it may
/// have run, and it counts as an instance.
pub const START_BROKEN_OFF: &str = "StartBrokenOff";

/// Where a container is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started_at: Time,
    },
    /// Over.
    Exited {
        /// Exit code; 128 + n for signal n.
        code: i32,
        /// When it was started; "never" when it was not.
        started_at: Time,
        /// When it ended.
        finished_at: Time,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`; [`START_BROKEN_OFF`].
        reason: String,
        /// Details, for people.
        message: String,
    },
    /// The runtime cannot tell.
    #[default]
    Unknown,
}

/// A container that exists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Name in the pod.
    pub name: String,
    /// Attempt, from 0.
    pub attempt: u32,
    /// The image as the user wrote it.
    pub image: String,
    /// The image's id or digest, as the runtime resolved it.
    pub image_id: String,
    /// State.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Time,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Absolute path of its log; empty when unknown.
    pub log_path: PathBuf,
    /// Process id of its first process on the node; 0 when unknown or over.
    pub pid: u32,
}

impl Container {
    /// The uid of its pod, from its labels.
    pub fn pod_uid(&self) -> PodUid {
        PodUid(self.labels.get(labels::POD_UID).cloned().unwrap_or_default())
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }
}

impl ContainerState {
    /// Whether its start was broken off, see [`START_BROKEN_OFF`].
    pub fn start_was_broken_off(&self) -> bool {
        matches!(self, Self::Exited { reason, .. } if reason == START_BROKEN_OFF)
    }

    /// Whether it is over and nothing of it ever ran.
    pub fn never_ran(&self) -> bool {
        matches!(self, Self::Exited { started_at, .. } if started_at.known().is_none())
    }

    /// The exit code of one that is over.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code, .. } => Some(*code),
            _ => None,
        }
    }
}
