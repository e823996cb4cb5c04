//! Where volumes are on the host, and the mounts they become (`kubelet-static-pods.md 4.1`). Pure.

mod mounts;
mod payload;

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, PodSpec, Volume};
use podstead_runtime::{ImageSpec, PodUid};

pub use mounts::{MountError, SubPath, mounts, sub_paths};
pub use payload::{FileContent, Payload, PayloadError, payload};

use super::{NodeFacts, identity, resources};
use crate::quantity::Amount;

/// Directory of a pod's volumes within its own.
pub const VOLUMES: &str = "volumes";
/// Directory, within the pod's own, of the parts of volumes that containers have mounted.
pub const SUB_PATHS: &str = "volume-subpaths";
/// Plugin of volumes that begin empty.
pub const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
const HUGE_PAGES: &str = "HugePages";

/// What a volume is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path of the node, with the check its type asks for.
    HostPath {
        /// The path.
        path: PathBuf,
        /// `""`, `Directory`, `DirectoryOrCreate`, `File`, `FileOrCreate`, `Socket`, `CharDevice`, `BlockDevice`.
        kind: String,
    },
    /// A directory of the pod's own.
    EmptyDir {
        /// The directory.
        path: PathBuf,
        /// What it is on.
        medium: Medium,
    },
    /// A directory whose files the agent writes (`payload`).
    Files {
        /// The directory.
        path: PathBuf,
    },
    /// An image, mounted by the runtime.
    Image {
        /// Its name as the manifest has it.
        reference: String,
    },
}

/// What an emptyDir is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The file system of the agent's root directory.
    Disk,
    /// A tmpfs.
    Memory {
        /// Its largest size in bytes; `None` for the kernel's default, half of the memory.
        size: Option<u64>,
    },
    /// A hugetlbfs.
    HugePages {
        /// The page size in bytes; `None` for the kernel's default.
        page: Option<u64>,
        /// Its largest size in bytes.
        size: Option<u64>,
    },
}

impl Source {
    /// The path to mount; `None` for an image.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::HostPath { path, .. } | Self::EmptyDir { path, .. } | Self::Files { path } => Some(path),
            Self::Image { .. } => None,
        }
    }

    /// Whether it is made for the pod, so that ownership and labels are the agent's to set.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::EmptyDir { .. } | Self::Files { .. })
    }
}

/// The volume on the host; `None` for kinds that admission refuses.
pub fn source(node: &NodeFacts, uid: &PodUid, spec: &PodSpec, volume: &Volume) -> Option<Source> {
    let own = |plugin: &str| identity::pod_dir(node, uid).join(VOLUMES).join(plugin).join(&volume.name);
    if let Some(host) = &volume.host_path {
        let kind = host.type_.clone().unwrap_or_default();
        return Some(Source::HostPath { path: PathBuf::from(&host.path), kind });
    }
    if let Some(empty) = &volume.empty_dir {
        return Some(Source::EmptyDir { path: own(EMPTY_DIR), medium: medium(node, spec, empty) });
    }
    if let Some(image) = &volume.image {
        return Some(Source::Image { reference: image.reference.clone().unwrap_or_default() });
    }
    let plugin = if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else {
        return None;
    };
    Some(Source::Files { path: own(plugin) })
}

/// The images that a container has mounted, each with its pull policy, in the order of its mounts.
pub fn images(pod: &Pod, container: &Container) -> Vec<(ImageSpec, String)> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
    let find = |name: &str| volumes?.iter().find(|v| v.name == name)?.image.as_ref();
    let mounted = container.volume_mounts.iter().flatten().filter_map(|mount| find(&mount.name));
    let mut all: Vec<(ImageSpec, String)> = Vec::new();
    for volume in mounted {
        let image = image_spec(pod, volume.reference.as_deref().unwrap_or_default());
        if !all.iter().any(|(known, _)| *known == image) {
            all.push((image, volume.pull_policy.clone().unwrap_or_else(|| "IfNotPresent".into())));
        }
    }
    all
}

fn image_spec(pod: &Pod, reference: &str) -> ImageSpec {
    ImageSpec {
        image: super::container::with_tag(reference),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        runtime_handler: String::new(),
    }
}

/// A tmpfs may grow to what is smallest of the node's memory, the pod's limit and its own.
fn medium(node: &NodeFacts, spec: &PodSpec, empty: &EmptyDirVolumeSource) -> Medium {
    let given = empty.size_limit.as_ref().and_then(|limit| limit.0.parse::<Amount>().ok());
    let positive = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
    let own = given.map(Amount::whole).and_then(positive);
    match empty.medium.as_deref().unwrap_or_default() {
        "Memory" => {
            let others = [positive(node.allocatable("memory")), positive(resources::pod(spec).memory_limit)];
            Medium::Memory { size: others.into_iter().chain([own]).flatten().min() }
        }
        medium if medium.starts_with(HUGE_PAGES) => {
            let page = match huge_page_sizes(spec, medium)[..] {
                [one] => Some(one),
                _ => None,
            };
            Medium::HugePages { page, size: own }
        }
        _ => Medium::Disk,
    }
}

/// The page sizes in bytes that a medium of huge pages can mean in this pod: the one it names, if the pod or a container
/// asks for pages of it, else all that they ask for. More or less than one is an error of the manifest.
pub fn huge_page_sizes(spec: &PodSpec, medium: &str) -> Vec<u64> {
    let size = |text: &str| text.parse::<Amount>().ok().and_then(|size| u64::try_from(size.whole()).ok());
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let resources = containers.filter_map(|c| c.resources.as_ref()).chain(spec.resources.as_ref());
    let tables = resources.flat_map(|r| [r.requests.as_ref(), r.limits.as_ref()]).flatten();
    let mut asked: Vec<u64> =
        tables.flat_map(|t| t.keys()).filter_map(|key| size(key.strip_prefix("hugepages-")?)).collect();
    asked.sort_unstable();
    asked.dedup();
    if let Some(named) = medium.strip_prefix("HugePages-") {
        asked.retain(|asked| Some(*asked) == size(named));
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(volume: &str, containers: &str) -> Source {
        let node = NodeFacts { root_dir: "/r".into(), memory_capacity: 8 << 30, ..NodeFacts::default() };
        let spec: PodSpec = serde_yaml::from_str(&format!("containers: {containers}")).unwrap();
        source(&node, &"u1".into(), &spec, &serde_yaml::from_str(volume).unwrap()).unwrap()
    }

    #[test]
    fn volumes_lie_where_the_kubelet_has_them() {
        for (volume, path) in [
            ("{name: v, hostPath: {path: /srv}}", "/srv"),
            ("{name: v, emptyDir: {}}", "/r/pods/u1/volumes/kubernetes.io~empty-dir/v"),
            ("{name: v, downwardAPI: {}}", "/r/pods/u1/volumes/kubernetes.io~downward-api/v"),
            ("{name: v, projected: {}}", "/r/pods/u1/volumes/kubernetes.io~projected/v"),
            ("{name: v, configMap: {name: c}}", "/r/pods/u1/volumes/kubernetes.io~configmap/v"),
            ("{name: v, secret: {secretName: c}}", "/r/pods/u1/volumes/kubernetes.io~secret/v"),
        ] {
            let source = of(volume, "[]");
            assert_eq!(source.path(), Some(Path::new(path)), "{volume}");
            assert_eq!(source.is_own(), path != "/srv");
        }
        let image = of("{name: v, image: {reference: a/b, pullPolicy: Never}}", "[]");
        assert_eq!(image, Source::Image { reference: "a/b".into() });
    }

    #[test]
    fn each_image_of_a_container_is_named_once_with_its_policy() {
        let text = "spec: {volumes: [{name: a, image: {reference: x, pullPolicy: Always}}, {name: e, emptyDir: {}}, \
                    {name: b, image: {reference: 'y:1', pullPolicy: Never}}, {name: c, image: {reference: z}}], \
                    containers: [{name: c, volumeMounts: [{name: b, mountPath: /1}, {name: e, mountPath: /2}, \
                    {name: a, mountPath: /3}, {name: b, mountPath: /4, subPath: p}]}]}";
        let pod: Pod = serde_yaml::from_str(text).unwrap();
        let all = images(&pod, &pod.spec.as_ref().unwrap().containers[0]);
        let seen: Vec<(&str, &str)> = all.iter().map(|(i, p)| (i.image.as_str(), p.as_str())).collect();
        assert_eq!(seen, [("y:1", "Never"), ("x:latest", "Always")]);
    }

    fn on(empty: &str, containers: &str) -> Medium {
        match of(&format!("{{name: v, emptyDir: {empty}}}"), containers) {
            Source::EmptyDir { medium, .. } => medium,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn memory_is_as_large_as_the_smallest_of_node_pod_and_volume() {
        let limited =
            "[{name: a, resources: {limits: {memory: 1Gi}}}, {name: b, resources: {limits: {memory: 1Gi}}}]";
        for (empty, containers, size) in [
            ("{medium: Memory}", "[{name: a}]", (8 << 30) - (100 << 20)),
            ("{medium: Memory}", limited, 2 << 30),
            ("{medium: Memory, sizeLimit: 3Gi}", limited, 2 << 30),
            ("{medium: Memory, sizeLimit: 1Mi}", limited, 1 << 20),
            ("{medium: Memory, sizeLimit: 0}", "[{name: a}]", (8 << 30) - (100 << 20)),
        ] {
            assert_eq!(on(empty, containers), Medium::Memory { size: Some(size) }, "{empty} {containers}");
        }
        assert_eq!(on("{sizeLimit: 1Mi}", limited), Medium::Disk);
    }

    #[test]
    fn huge_pages_are_of_the_size_that_is_named_and_asked_for() {
        let two = "[{name: a, resources: {limits: {hugepages-2Mi: 2Mi}}}]";
        let both = "[{name: a, resources: {limits: {hugepages-2Mi: 2Mi, hugepages-1Gi: 1Gi}}}]";
        let pages = |empty: &str, containers: &str| match on(empty, containers) {
            Medium::HugePages { page, .. } => page,
            other => panic!("{other:?}"),
        };
        assert_eq!(pages("{medium: HugePages}", two), Some(2 << 20));
        assert_eq!(pages("{medium: HugePages-2Mi}", both), Some(2 << 20));
        assert_eq!(pages("{medium: HugePages-1Gi}", both), Some(1 << 30));
        assert_eq!(pages("{medium: HugePages}", both), None);
        assert_eq!(pages("{medium: HugePages-1Gi}", two), None);
    }
}
