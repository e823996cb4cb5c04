//! A container of the contract as a configuration for libcontainer. Pure: reads no file and asks no kernel; what the
//! node has comes in as [`NodeFacts`].
//!
//! The configuration is for libcontainer 0.7 and avoids what that version gets wrong: see `mount` (propagation,
//! /proc, /dev), `resource` (periods, zeroes), `security` (cgroup v1 is mounted writable) and `seccomp` (the operands
//! of a masked comparison are swapped).

mod capability;
mod device;
mod error;
mod mount;
mod process;
mod resource;
mod seccomp;
mod security;
mod signal;
mod user;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Process, Root, Spec};
use podstead_runtime::{ContainerSpec, NamespaceMode, SandboxSpec};
use serde::{Deserialize, Serialize};

pub use device::DeviceNode;
pub use error::Error;
pub use process::exec_process;
pub use resource::{changed_resources, resources};
pub use signal::stop_signal;
pub use user::{UserRequest, apply_user};

use crate::image::ImageConfig;
use capability::Granted;
use error::Blame;

/// All that decides a container's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The container.
    pub container: &'a ContainerSpec,
    /// Its pod's sandbox.
    pub sandbox: &'a SandboxSpec,
    /// What its image says.
    pub image: &'a ImageConfig,
    /// Where the root file system will be mounted.
    pub rootfs: &'a Path,
    /// The pod's namespaces.
    pub namespaces: &'a NamespacePaths,
    /// The pod's files.
    pub files: &'a PodFiles,
    /// The container's own cgroup, absolute from the root of the hierarchies.
    pub cgroup_path: &'a str,
    /// The node.
    pub node: &'a NodeFacts,
    /// Text of the seccomp profile file of [`Profile::Localhost`](podstead_runtime::Profile::Localhost).
    pub localhost_seccomp: Option<&'a str>,
}

/// Pinned namespaces of a pod; `None` is the node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespacePaths {
    /// Network.
    pub net: Option<PathBuf>,
    /// System V and POSIX IPC.
    pub ipc: Option<PathBuf>,
    /// Host name.
    pub uts: Option<PathBuf>,
    /// Process ids, when the pod shares one; without it the container gets its own, unless it has the node's.
    pub pid: Option<PathBuf>,
    /// Users and groups.
    pub user: Option<PathBuf>,
}

/// Files of a pod on the host that its containers see; `None` leaves one out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodFiles {
    /// `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// `/dev/shm`, a directory.
    pub shm: Option<PathBuf>,
}

/// What a configuration must know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// Host name, for pods that have none of their own.
    pub hostname: String,
    /// Only cgroup v2 is mounted; hybrid hosts count as v1.
    pub cgroup_v2: bool,
    /// Names below `/sys/fs/cgroup` where v1 hierarchies are mounted; empty for the usual ones.
    pub cgroup_v1_hierarchies: Vec<String>,
    /// Whether swap can be limited (`memory.memsw.*` of v1, `memory.swap.max` of v2).
    pub swap_limits: bool,
    /// Page sizes (`2MB`) that the cgroup hierarchy can limit.
    pub huge_page_sizes: Vec<String>,
    /// Devices below /dev: all of them go into privileged containers.
    pub devices: Vec<DeviceNode>,
    /// Capabilities the runtime itself holds, as `CapBnd` of proc(5); `None` for all.
    pub capabilities: Option<u64>,
    /// The lowest OOM score adjustment the runtime may set; `None` for any.
    pub min_oom_score_adj: Option<i32>,
    /// Kernel version (6, 1), for conditions in seccomp profiles; `None` for the oldest this runtime works on.
    pub kernel: Option<(u32, u32)>,
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
}

/// A container as libcontainer takes it, but for its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The configuration. Its process runs as root until [`apply_user`] has said who it is.
    pub spec: Spec,
    /// Who it is to be.
    pub user: UserRequest,
}

/// Describes a container.
pub fn build(input: &Input<'_>) -> Result<Bundle, Error> {
    let container = input.container;
    let blame = Blame(&container.name);
    supported(input, blame)?;
    let user = user::request(container, input.image)?;
    let granted = Granted::of(blame, &container.security, input.node.capabilities, !input.node.cgroup_v2)?;
    let mut root = Root::default();
    root.set_path(input.rootfs.to_owned()).set_readonly(Some(container.security.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_version("1.0.2".to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mount::mounts(input)?))
        .set_process(Some(main_process(input, &granted)?))
        // The sandbox's namespace bears the name; a container that sets it again would fail without one.
        .set_hostname(None)
        .set_domainname(None)
        .set_annotations(None)
        .set_linux(Some(linux(input, &granted)?));
    Ok(Bundle { spec, user })
}

fn supported(input: &Input<'_>, blame: Blame<'_>) -> Result<(), Error> {
    let (own, pod) = (&input.container.security.namespaces, &input.sandbox.security.namespaces);
    if own.user.is_some() && own.user != pod.user {
        return Err(blame.unsupported("a user namespace that is not the pod's"));
    }
    if pod.user.is_some() && input.namespaces.user.is_none() {
        return Err(blame.invalid("the user namespace", "its sandbox has none"));
    }
    if let NamespaceMode::Target(of) = &own.pid {
        return Err(blame.unsupported(format!("the process namespace of container {of}")));
    }
    if let Some(device) = input.container.cdi_devices.first() {
        return Err(blame.unsupported(format!("the CDI device {device}")));
    }
    let path = Path::new(input.cgroup_path);
    let plain = path.components().all(|c| !matches!(c, std::path::Component::ParentDir));
    if !path.is_absolute() || path.parent().is_none() || !plain {
        let what = format!("cgroup path \"{}\"", input.cgroup_path);
        return Err(blame.invalid(what, "it is not an absolute path below the root"));
    }
    Ok(())
}

fn main_process(input: &Input<'_>, granted: &Granted) -> Result<Process, Error> {
    let container = input.container;
    let security = &container.security;
    let selinux = security::selinux(security, input.node).map(|(process, _)| process);
    let mut process = Process::default();
    process
        .set_terminal(Some(container.tty))
        .set_user(oci_spec::runtime::User::default())
        .set_args(Some(process::arguments(container, input.image)?))
        .set_env(Some(process::environment(input)?))
        .set_cwd(process::working_dir(container, input.image)?)
        .set_capabilities(Some(granted.to_oci()))
        .set_rlimits(None)
        // Present but false, it makes libcontainer load seccomp after the privilege for it is gone.
        .set_no_new_privileges(security.no_new_privs.then_some(true))
        .set_apparmor_profile(security::apparmor(container, input.node)?)
        .set_oom_score_adj(Some(resource::oom_score_adj(
            Blame(&container.name),
            &container.resources,
            input.node,
        )?))
        .set_selinux_label(selinux);
    Ok(process)
}

fn linux(input: &Input<'_>, granted: &Granted) -> Result<Linux, Error> {
    let container = input.container;
    let privileged = container.security.privileged;
    let nodes = device::nodes(input)?;
    let mut resources = resources(&container.resources, input.node);
    resources.set_devices(Some(device::rules(privileged, &nodes)));
    let devices: Vec<_> = nodes.into_iter().map(|(device, _)| device).collect();
    let (masked, readonly) = security::paths(container, input.node, input.namespaces.user.is_some());
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(input)))
        .set_cgroups_path(Some(input.cgroup_path.into()))
        .set_resources(Some(resources))
        .set_devices((!devices.is_empty()).then_some(devices))
        .set_seccomp(seccomp::profile(input, granted)?)
        .set_rootfs_propagation(Some(mount::root_propagation(container).to_owned()))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly))
        .set_mount_label(security::selinux(&container.security, input.node).map(|(_, files)| files))
        .set_sysctl(None);
    Ok(linux)
}

fn namespaces(input: &Input<'_>) -> Vec<LinuxNamespace> {
    let security = &input.container.security;
    let of = |kind: LinuxNamespaceType, path: Option<&PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path.cloned());
        namespace
    };
    let mut all = vec![of(LinuxNamespaceType::Mount, None)];
    let pinned = [
        // The others belong to it; libcontainer enters it first.
        (LinuxNamespaceType::User, &input.namespaces.user),
        (LinuxNamespaceType::Network, &input.namespaces.net),
        (LinuxNamespaceType::Ipc, &input.namespaces.ipc),
        (LinuxNamespaceType::Uts, &input.namespaces.uts),
    ];
    all.extend(pinned.into_iter().filter_map(|(kind, path)| path.as_ref().map(|path| of(kind, Some(path)))));
    match security.namespaces.pid {
        NamespaceMode::Node => {}
        NamespaceMode::Container => all.push(of(LinuxNamespaceType::Pid, None)),
        _ => all.push(of(LinuxNamespaceType::Pid, input.namespaces.pid.as_ref())),
    }
    if input.node.cgroup_v2 && !security.privileged {
        all.push(of(LinuxNamespaceType::Cgroup, None));
    }
    all
}

#[cfg(test)]
mod tests;
