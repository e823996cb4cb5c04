//! Names that follow from a pod's identity: directories, cgroups (`kubelet-static-pods.md 2.9, 4.1, 4.5`). Pure.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::{CgroupDriver, PodIdentity, PodUid};

use super::NodeFacts;
use super::resources::{QosClass, qos_class};

/// The pod's identity. Manifests give every pod a name, namespace and uid before they reach this room.
pub fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity {
        name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        uid: PodUid(pod.metadata.uid.clone().unwrap_or_default()),
    }
}

/// `<root>/pods/<uid>`.
pub fn pod_dir(node: &NodeFacts, uid: &PodUid) -> PathBuf {
    node.root_dir.join("pods").join(uid.as_str())
}

/// `<logs>/<namespace>_<name>_<uid>`.
pub fn log_dir(node: &NodeFacts, pod: &PodIdentity) -> PathBuf {
    node.pod_logs_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
}

/// Name of the compatibility link of a container's log, at most 255 bytes with its `.log`.
pub fn log_link_name(pod: &PodIdentity, container: &str, id: &str) -> String {
    let mut base = format!("{}_{}_{container}-{id}", pod.name, pod.namespace);
    base.truncate(255 - ".log".len());
    base + ".log"
}

/// The cgroup of the pod, always as a path below the hierarchy's root.
pub fn cgroup_path(node: &NodeFacts, pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let level = match pod.spec.as_ref().map_or(QosClass::BestEffort, qos_class) {
        QosClass::Guaranteed => "",
        QosClass::Burstable => "/burstable",
        QosClass::BestEffort => "/besteffort",
    };
    format!("{}/kubepods{level}/pod{uid}", node.cgroup_root.trim_end_matches('/'))
}

/// The cgroup parent as the runtime's driver wants it.
pub fn cgroup_parent(node: &NodeFacts, pod: &Pod) -> String {
    let path = cgroup_path(node, pod);
    match node.cgroup_driver {
        CgroupDriver::Cgroupfs => path,
        CgroupDriver::Systemd => slice(&path),
    }
}

/// Where systemd keeps the slice of such a path: each slice within those that its name begins with.
pub fn slice_path(path: &str) -> String {
    let whole = slice(path);
    let name = whole.trim_end_matches(".slice");
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    let parts: Vec<String> = ends.map(|end| format!("/{}.slice", &name[..end])).collect();
    parts.concat()
}

/// `/kubepods/burstable/pod1-2` -> `kubepods-burstable-pod1_2.slice`.
pub fn slice(path: &str) -> String {
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(|p| p.replace('-', "_")).collect();
    parts.join("-") + ".slice"
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;

    #[test]
    fn a_slice_lies_in_those_that_its_name_begins_with() {
        assert_eq!(slice_path("/a/pod1-2"), "/a.slice/a-pod1_2.slice");
    }

    fn pod(name: &str, uid: &str) -> Pod {
        let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(uid.into());
        pod
    }

    #[test]
    fn cgroups_are_named_as_the_kubelet_names_them() {
        let mut node = NodeFacts::default();
        assert_eq!(cgroup_parent(&node, &pod("a", "1-2")), "/kubepods/besteffort/pod1-2");
        node.cgroup_driver = CgroupDriver::Systemd;
        assert_eq!(cgroup_parent(&node, &pod("a", "1-2")), "kubepods-besteffort-pod1_2.slice");
        node.cgroup_root = "/own/".into();
        assert_eq!(cgroup_path(&node, &pod("a", "1")), "/own/kubepods/besteffort/pod1");
    }

    #[test]
    fn log_links_fit_a_file_name() {
        let id = PodIdentity { name: "p".repeat(250), ..PodIdentity::default() };
        let name = log_link_name(&id, "c", "0123");
        assert_eq!((name.len(), &name[name.len() - 4..]), (255, ".log"));
    }
}
