//! What a container would be made from: its configuration with every path as this runtime lays it out. Pure.

use std::path::{Path, PathBuf};

use podstead_runtime::{ContainerSpec, SandboxSpec};

use super::layout::Layout;
use super::pods;
use crate::bundle::{Bundle, Error, Input, NodeFacts, build};
use crate::image::Image;
use crate::shim::protocol::ImageMount;
use crate::shim::volumes::part_of;

/// A container that is to be described.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// As in [`DirectOptions`](crate::DirectOptions).
    pub root: &'a Path,
    /// As in [`DirectOptions`](crate::DirectOptions).
    pub state_dir: &'a Path,
    /// The sandbox's id.
    pub sandbox_id: &'a str,
    /// The sandbox.
    pub sandbox: &'a SandboxSpec,
    /// The container's id.
    pub id: &'a str,
    /// The container.
    pub container: &'a ContainerSpec,
    /// Its image.
    pub image: &'a Image,
    /// The images that it mounts, in the order of its mounts.
    pub mounted: &'a [Image],
    /// The node.
    pub node: &'a NodeFacts,
    /// Text of its seccomp profile file, when it has one.
    pub localhost_seccomp: Option<&'a str>,
}

/// The configuration of a container, without making anything.
pub fn describe(of: &Described<'_>) -> Result<Bundle, Error> {
    let layout = Layout::new(of.root, of.state_dir);
    let (placed, _) = place_images(of.container, of.mounted, &layout.run(of.id));
    build(&Input {
        container: &placed,
        sandbox: of.sandbox,
        image: &of.image.config,
        rootfs: &rootfs(&layout, of.id),
        namespaces: &pods::namespaces(&layout, of.sandbox_id, of.sandbox),
        files: &pods::files(&layout, of.sandbox_id, of.sandbox),
        cgroup_path: &cgroup(of.sandbox, of.id),
        node: of.node,
        localhost_seccomp: of.localhost_seccomp,
    })
}

/// Where the container's root file system is mounted.
pub(super) fn rootfs(layout: &Layout, id: &str) -> PathBuf {
    layout.container(id).join("rootfs")
}

/// The container's cgroup, from the root of the hierarchies.
pub(super) fn cgroup(pod: &SandboxSpec, id: &str) -> String {
    let parent = pod.cgroup_parent.trim_matches('/');
    if parent.is_empty() { format!("/podstead/{id}") } else { format!("/{parent}/{id}") }
}

/// Gives every mounted image a place in the shim's directory, as the source of its mount.
pub(super) fn place_images(
    spec: &ContainerSpec,
    mounted: &[Image],
    run_dir: &Path,
) -> (ContainerSpec, Vec<ImageMount>) {
    let mut placed = spec.clone();
    let mut images = Vec::new();
    let wanted = placed.mounts.iter_mut().filter(|mount| mount.image.is_some());
    for (number, (mount, image)) in wanted.zip(mounted).enumerate() {
        let Some(volume) = mount.image.take() else { continue };
        let at = run_dir.join(format!("image-{number}"));
        mount.source = if volume.sub_path.is_empty() { at.clone() } else { part_of(&at) };
        mount.read_only = true;
        // Its layers show the owners already.
        (mount.uid_mappings, mount.gid_mappings) = (Vec::new(), Vec::new());
        images.push(ImageMount {
            name: volume.image.image,
            at,
            lower: image.layers.clone(),
            sub_path: volume.sub_path,
        });
    }
    (placed, images)
}
