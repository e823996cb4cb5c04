//! Device nodes of a container, and which devices it may use. Pure: the node's devices are handed in.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use super::Input;
use super::error::{Blame, Error};

/// A device node of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceNode {
    /// Path on the host, below /dev.
    pub path: PathBuf,
    /// A block device; otherwise a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What every container may use: major and minor number of character devices; `None` is any.
const ALWAYS: [(u32, Option<u32>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts
];

/// In a container's /dev these are its own, never the node's.
const OWN: [&str; 6] = ["/dev/ptmx", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/fd"];

/// The device nodes made in the container, with what it may do with each.
pub(super) fn nodes(input: &Input<'_>) -> Result<Vec<(LinuxDevice, String)>, Error> {
    let blame = Blame(&input.container.name);
    let mut all: Vec<(LinuxDevice, String)> = Vec::new();
    if input.container.security.privileged {
        let theirs = input.node.devices.iter().filter(|n| !OWN.iter().any(|own| n.path.starts_with(own)));
        all.extend(theirs.map(|node| (made(node, &node.path), "rwm".to_owned())));
    }
    for asked in &input.container.devices {
        let permissions = permissions(blame, &asked.permissions)?;
        // A directory stands for all devices in it.
        let found: Vec<&DeviceNode> =
            input.node.devices.iter().filter(|node| node.path.starts_with(&asked.host_path)).collect();
        if found.is_empty() {
            return Err(blame.not_on_node(format!("device {}", asked.host_path.display())));
        }
        let into = if asked.container_path.as_os_str().is_empty() {
            &asked.host_path
        } else {
            &asked.container_path
        };
        for node in found {
            let below = node.path.strip_prefix(&asked.host_path).unwrap_or(Path::new(""));
            let path = if below.as_os_str().is_empty() { into.clone() } else { into.join(below) };
            let plain = path.components().all(|c| !matches!(c, std::path::Component::ParentDir));
            if !path.starts_with("/dev/") || path == Path::new("/dev") || !plain {
                return Err(blame.unsupported(format!("device {} outside of /dev", path.display())));
            }
            all.retain(|(known, _)| *known.path() != path);
            all.push((made(node, &path), permissions.clone()));
        }
    }
    Ok(all)
}

fn made(node: &DeviceNode, path: &Path) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(path.to_owned())
        .set_typ(if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .set_major(i64::from(node.major))
        .set_minor(i64::from(node.minor))
        .set_file_mode(Some(node.mode & 0o7777))
        .set_uid(Some(node.uid))
        .set_gid(Some(node.gid));
    device
}

fn permissions(blame: Blame<'_>, text: &str) -> Result<String, Error> {
    if text.chars().all(|c| "rwm".contains(c)) {
        return Ok(if text.is_empty() { "rwm" } else { text }.to_owned());
    }
    Err(blame.invalid(format!("device permissions \"{text}\""), "they are made of `r`, `w` and `m`"))
}

/// The device cgroup: nothing, then the usual, then what was asked for; everything when privileged.
pub(super) fn rules(privileged: bool, nodes: &[(LinuxDevice, String)]) -> Vec<LinuxDeviceCgroup> {
    if privileged {
        return vec![rule(true, LinuxDeviceType::A, None, None, "rwm")];
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    for (major, minor) in ALWAYS {
        let minor = minor.map(i64::from);
        rules.push(rule(true, LinuxDeviceType::C, Some(i64::from(major)), minor, "rwm"));
    }
    for (device, access) in nodes {
        rules.push(rule(true, device.typ(), Some(device.major()), Some(device.minor()), access));
    }
    rules
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(kind))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}
