//! Which pods are critical (`kubelet-static-pods.md 5.5`). Pure.

use k8s_openapi::api::core::v1::PodSpec;

/// Priority from which a pod is.
const CRITICAL: i32 = 2_000_000_000;

/// Whether the pod is critical: by one of the two classes of the system, or by its priority.
pub fn is_critical(spec: &PodSpec) -> bool {
    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    matches!(class, "system-node-critical" | "system-cluster-critical")
        || spec.priority.is_some_and(|priority| priority >= CRITICAL)
}
