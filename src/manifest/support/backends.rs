//! What a backend, or a version of a CRI server, does otherwise with a field that podstead supports. Pure data.

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// libcontainer, without a daemon.
    Direct,
    /// Any CRI server.
    Cri,
    /// CRI servers that lack something, by name and version.
    Some(&'static str),
}

impl Backend {
    /// As the documentation names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct runtime",
            Self::Cri => "CRI servers",
            Self::Some(which) => which,
        }
    }
}

use Backend::{Cri, Direct, Some};

const FIRST: Backend = Some("containerd 1.x");
const OLD: Backend = Some("containerd before 2.0");
const NO_IMAGES: Backend = Some("containerd before 2.1, CRI-O before 1.31");

const PROPAGATION: &str = "the volume must be on a shared or slave mount of the node";

/// Field, backend, what it does. Nothing that was asked for is left out in silence but what stands here.
pub const DIFFERENCES: &[(&str, Backend, &str)] = &[
    ("spec.containers[].lifecycle.stopSignal", FIRST, "not known there, the image's signal is sent"),
    ("spec.containers[].securityContext.appArmorProfile.type", Direct, "`RuntimeDefault` is no profile"),
    ("spec.containers[].securityContext.seLinuxOptions", Direct, "a container without them bears no label"),
    ("spec.containers[].volumeMounts[].mountPropagation", Cri, PROPAGATION),
    ("spec.containers[].volumeMounts[].mountPropagation", Direct, "the same for `Bidirectional` only"),
    (
        "spec.containers[].volumeMounts[].recursiveReadOnly",
        OLD,
        "`Enabled` keeps the container from being made",
    ),
    ("spec.securityContext.appArmorProfile.type", Direct, "`RuntimeDefault` is no profile"),
    ("spec.securityContext.seLinuxOptions", Direct, "a container without them bears no label"),
    ("spec.securityContext.supplementalGroupsPolicy", OLD, "with `Strict` the node refuses the pod"),
    ("spec.volumes[].image", NO_IMAGES, "the container is not made"),
];
