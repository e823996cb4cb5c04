//! Label and annotation keys. The kubelet's own where it has one (`kubelet-static-pods.md 2.8`), because tools read them.

/// Our mark, on every object we make. Its value is the owner's name.
pub const OWNER: &str = "podstead.dev/owner";
/// The owner's name unless configured.
pub const DEFAULT_OWNER: &str = "podstead";

/// Label: the pod's name, node suffix included.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name in the spec.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Annotation of containers: hash of the definition, here of all of it (`kubelet-static-pods.md 2.5`).
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation of containers: restart count, equal to the attempt.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation of containers: path of the termination message.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation of containers: policy of the termination message.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation of containers: the ports, as JSON.
pub const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
/// Annotation of containers: the pod's grace in seconds, for stops when the manifest is gone.
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation of containers: the preStop hook, as JSON.
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";

/// Annotation of pods: the uid computed from the manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation of pods: where the manifest came from (`file`, `http`).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation of pods: when the manifest was first seen.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
