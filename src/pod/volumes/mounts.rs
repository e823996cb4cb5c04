//! The mounts of a container, and the parts of volumes among them (`kubelet-static-pods.md 4.1`). Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};
use podstead_runtime::{EnvVar, ImageVolume, Mount, Propagation};
use thiserror::Error;

use super::{SUB_PATHS, Source, image_spec, source};
use crate::pod::{NodeFacts, env, identity};

/// A mount that cannot be made, mostly in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MountError {
    /// There is no such volume.
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    NoVolume {
        /// The container.
        container: String,
        /// The volume named.
        volume: String,
    },
    /// The runtime cannot do it.
    #[error(
        "container {container}: failed to resolve recursive read-only mode: volume {volume:?} requested recursive \
         read-only mode, but it is not supported by the runtime"
    )]
    RecursiveReadOnly {
        /// The container.
        container: String,
        /// The volume named.
        volume: String,
    },
    /// `subPathExpr` names variables without a value.
    #[error("container {container}: subPathExpr of {path}: missing value for {variables}")]
    NoVariable {
        /// The container.
        container: String,
        /// The mount path.
        path: String,
        /// The variables.
        variables: String,
    },
    /// What `subPathExpr` becomes is no path within a volume.
    #[error("container {container}: unable to provision SubPath `{sub_path}`: {problem}")]
    SubPath {
        /// The container.
        container: String,
        /// The path.
        sub_path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A part of a volume that is to be bound to a place of its own before the runtime mounts it: what a container does to
/// the volume later cannot lead that mount elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    /// The volume's root.
    pub volume: PathBuf,
    /// The part: relative, without `..`.
    pub path: PathBuf,
    /// Where it is bound.
    pub at: PathBuf,
    /// Whether mounts made in the container are to reach the node.
    pub shared: bool,
}

/// The container's mounts, in the order of the manifest. `env` is its final environment.
pub fn mounts(
    node: &NodeFacts,
    pod: &Pod,
    container: &Container,
    env: &[EnvVar],
) -> Result<Vec<Mount>, MountError> {
    planned(node, pod, container, env).map(|all| all.into_iter().map(|(mount, _)| mount).collect())
}

/// The parts of volumes that must be bound before the container is made.
pub fn sub_paths(
    node: &NodeFacts,
    pod: &Pod,
    container: &Container,
    env: &[EnvVar],
) -> Result<Vec<SubPath>, MountError> {
    planned(node, pod, container, env).map(|all| all.into_iter().filter_map(|(_, part)| part).collect())
}

fn planned(
    node: &NodeFacts,
    pod: &Pod,
    container: &Container,
    env: &[EnvVar],
) -> Result<Vec<(Mount, Option<SubPath>)>, MountError> {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let uid = identity::identity(pod).uid;
    let of = |(index, mount): (usize, &VolumeMount)| {
        let volume = spec.volumes.iter().flatten().find(|v| v.name == mount.name);
        let source = volume.and_then(|v| source(node, &uid, spec, v)).ok_or_else(|| {
            let (container, volume) = (container.name.clone(), mount.name.clone());
            MountError::NoVolume { container, volume }
        })?;
        let part = sub_path(container, mount, env)?;
        let propagation = propagation(mount);
        let mut planned = Mount {
            destination: Path::new("/").join(&mount.mount_path),
            read_only: mount.read_only.unwrap_or(false) || !is_writable(&source),
            recursive_read_only: recursive(node, container, mount)?,
            selinux_relabel: source.is_own(),
            propagation,
            ..Mount::default()
        };
        let Some(path) = source.path() else {
            planned.image = image(pod, &source, part);
            return Ok((planned, None));
        };
        path.clone_into(&mut planned.source);
        let bound = part.map(|part| SubPath {
            volume: path.to_owned(),
            path: part.into(),
            at: identity::pod_dir(node, &uid)
                .join(SUB_PATHS)
                .join(&mount.name)
                .join(&container.name)
                .join(index.to_string()),
            shared: propagation == Propagation::Bidirectional,
        });
        if let Some(bound) = &bound {
            bound.at.clone_into(&mut planned.source);
        }
        Ok((planned, bound))
    };
    container.volume_mounts.iter().flatten().enumerate().map(of).collect()
}

/// Files that the agent writes and images are for reading only.
fn is_writable(source: &Source) -> bool {
    matches!(source, Source::HostPath { .. } | Source::EmptyDir { .. })
}

fn image(pod: &Pod, source: &Source, part: Option<String>) -> Option<ImageVolume> {
    let Source::Image { reference } = source else { return None };
    Some(ImageVolume { image: image_spec(pod, reference), sub_path: part.unwrap_or_default() })
}

fn propagation(mount: &VolumeMount) -> Propagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        _ => Propagation::Private,
    }
}

fn recursive(node: &NodeFacts, container: &Container, mount: &VolumeMount) -> Result<bool, MountError> {
    match mount.recursive_read_only.as_deref() {
        Some("IfPossible") => Ok(node.recursive_read_only),
        Some("Enabled") if !node.recursive_read_only => Err(MountError::RecursiveReadOnly {
            container: container.name.clone(),
            volume: mount.name.clone(),
        }),
        Some("Enabled") => Ok(true),
        _ => Ok(false),
    }
}

/// The part of the volume that is asked for; `None` for all of it. Without `//` and `/./`.
fn sub_path(
    container: &Container,
    mount: &VolumeMount,
    env: &[EnvVar],
) -> Result<Option<String>, MountError> {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let path = match (given(&mount.sub_path_expr), given(&mount.sub_path)) {
        (Some(expression), _) => expanded(container, mount, &expression, env)?,
        (None, Some(path)) => path,
        (None, None) => return Ok(None),
    };
    let wrong =
        |problem| MountError::SubPath { container: container.name.clone(), sub_path: path.clone(), problem };
    if path.starts_with('/') {
        return Err(wrong("must not be an absolute path"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(wrong("must not contain '..'"));
    }
    if path.contains('\0') {
        return Err(wrong("must not contain NUL"));
    }
    Ok(Some(parts.join("/")).filter(|path| !path.is_empty()))
}

/// A variable without a value would name another directory than the one that was meant.
fn expanded(
    container: &Container,
    mount: &VolumeMount,
    expression: &str,
    env: &[EnvVar],
) -> Result<String, MountError> {
    let mut missing = BTreeSet::new();
    let path = env::expand_with(expression, |name| {
        let value = env.iter().find(|v| v.name == name).map(|v| v.value.clone()).unwrap_or_default();
        if value.is_empty() {
            missing.insert(name.to_owned());
        }
        Some(value)
    });
    if missing.is_empty() {
        return Ok(path);
    }
    Err(MountError::NoVariable {
        container: container.name.clone(),
        path: mount.mount_path.clone(),
        variables: missing.into_iter().collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUMES: &str = "[{name: e, emptyDir: {}}, {name: h, hostPath: {path: /srv}}, {name: d, downwardAPI: {}}, \
                           {name: i, image: {reference: 'i:1'}}]";

    fn all(recursive: bool, mounts: &str) -> Result<Vec<(Mount, Option<SubPath>)>, MountError> {
        let text = format!(
            "metadata: {{uid: u1, annotations: {{a: b}}}}\nspec: {{volumes: {VOLUMES}, containers: [{{name: c, \
             volumeMounts: {mounts}}}]}}"
        );
        let pod: Pod = serde_yaml::from_str(&text).unwrap();
        let node =
            NodeFacts { root_dir: "/r".into(), recursive_read_only: recursive, ..NodeFacts::default() };
        let env = [("A", "x"), ("E", ""), ("UP", "../x"), ("ROOT", "/x")];
        let env = env.map(|(name, value)| EnvVar { name: name.into(), value: value.into() });
        planned(&node, &pod, &pod.spec.as_ref().unwrap().containers[0], &env)
    }

    fn one(mount: &str) -> Result<(Mount, Option<SubPath>), MountError> {
        all(false, &format!("[{{mountPath: m, {mount}}}]")).map(|mut all| all.remove(0))
    }

    #[test]
    fn volumes_are_mounted_as_their_kind_wants() {
        let seen = |mount: &str| {
            let (m, part) = one(mount).unwrap();
            assert_eq!((part, m.destination.as_path()), (None, Path::new("/m")));
            (m.source.display().to_string(), m.read_only, m.selinux_relabel)
        };
        let own = |plugin: &str| format!("/r/pods/u1/volumes/kubernetes.io~{plugin}");
        assert_eq!(seen("name: e"), (own("empty-dir/e"), false, true));
        assert_eq!(seen("name: e, readOnly: true"), (own("empty-dir/e"), true, true));
        assert_eq!(seen("name: h"), ("/srv".into(), false, false));
        assert_eq!(seen("name: d, readOnly: false"), (own("downward-api/d"), true, true));
        let (m, _) = one("name: i, subPath: a/./b/").unwrap();
        let image = m.image.unwrap();
        assert_eq!((image.image.image.as_str(), image.sub_path.as_str(), m.read_only), ("i:1", "a/b", true));
        assert_eq!(image.image.annotations["a"], "b");
    }

    #[test]
    fn a_part_is_bound_to_a_place_of_its_own() {
        let (m, part) = one("name: h, subPath: a//b/., mountPropagation: Bidirectional").unwrap();
        let at = PathBuf::from("/r/pods/u1/volume-subpaths/h/c/0");
        assert_eq!(m.source, at);
        let expected = SubPath { volume: "/srv".into(), path: "a/b".into(), at, shared: true };
        assert_eq!(part, Some(expected));
        let (_, part) = one("name: e, subPathExpr: \"$(A)/$$(A)\"").unwrap();
        assert_eq!(part.unwrap().path, Path::new("x/$(A)"));
        assert_eq!(one("name: e, subPath: ./").unwrap().1, None, "all of it");
    }

    #[test]
    fn a_path_that_an_expression_spoils_is_refused() {
        let error = |mount: &str| one(mount).unwrap_err().to_string();
        assert!(error("name: e, subPathExpr: \"$(A)$(Z)$(E)\"").ends_with("missing value for E, Z"));
        assert!(error("name: e, subPathExpr: \"a/$(UP)\"").ends_with("must not contain '..'"));
        assert!(error("name: e, subPathExpr: \"$(ROOT)\"").ends_with("must not be an absolute path"));
        assert!(error("name: z").contains("cannot find volume \"z\" to mount into container \"c\""));
    }

    #[test]
    fn recursive_read_only_is_what_the_runtime_can_do_or_an_error() {
        let with = |able: bool, mode: &str| {
            let mounts = format!("[{{name: h, mountPath: /m, readOnly: true, recursiveReadOnly: {mode}}}]");
            all(able, &mounts).map(|all| all[0].0.recursive_read_only)
        };
        assert_eq!(with(true, "Enabled"), Ok(true));
        assert_eq!((with(true, "IfPossible"), with(false, "IfPossible")), (Ok(true), Ok(false)));
        assert_eq!((with(true, "Disabled"), with(false, "Disabled")), (Ok(false), Ok(false)));
        assert!(with(false, "Enabled").unwrap_err().to_string().contains("not supported by the runtime"));
    }

    #[test]
    fn propagation_is_passed_on() {
        for (mode, expected) in [
            ("None", Propagation::Private),
            ("HostToContainer", Propagation::HostToContainer),
            ("Bidirectional", Propagation::Bidirectional),
        ] {
            assert_eq!(one(&format!("name: h, mountPropagation: {mode}")).unwrap().0.propagation, expected);
        }
        assert_eq!(one("name: h").unwrap().0.propagation, Propagation::Private);
    }
}
