//! What should be and what is, as plain data. The decision's inputs; nothing here decides.

use std::collections::BTreeMap;
use std::time::Duration;

use podstead_runtime::{PodIdentity, PodUid, Snapshot};
use serde::{Deserialize, Serialize};

/// The one table of what should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Pods by uid.
    pub pods: BTreeMap<PodUid, Pod>,
    /// Whether every source was read at least once. While it is not, nothing is removed.
    pub complete: bool,
}

/// When a container that ended is started anew (`kubelet-static-pods.md 2.5`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Always, also after exit code 0.
    #[default]
    Always,
    /// When its exit code is not 0.
    OnFailure,
    /// Never.
    Never,
}

/// As much of a pod as the decision needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Name, namespace, uid.
    pub identity: PodIdentity,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Restart policy.
    pub restart_policy: RestartPolicy,
    /// `terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// Containers, in the order of the spec.
    pub containers: Vec<ContainerPlan>,
}

/// As much of a container as the decision needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Name in the pod.
    pub name: String,
    /// Image as the user wrote it.
    pub image: String,
    /// Changes when a running instance must be replaced (`kubelet-static-pods.md 2.5`, container hash).
    pub hash: String,
}

/// One reading of what is. Read `leftovers` and `attempt_floor` *before* the snapshot: a log file younger than the
/// snapshot would otherwise make a second instance of a container that the snapshot does not show yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// What the runtime has of ours.
    pub snapshot: Snapshot,
    /// Pods of which the host still has something that [`CleanPod`](super::Action::CleanPod) removes: directories,
    /// volumes, cgroup, log links. Those of running pods included. A pod whose name is not known has an empty one;
    /// it then holds up nobody else's start.
    pub leftovers: BTreeMap<PodUid, PodIdentity>,
    /// Highest `N` of `<N>.log` of a container plus one (`kubelet-static-pods.md 2.8`).
    pub attempt_floor: BTreeMap<(PodUid, String), u32>,
}
