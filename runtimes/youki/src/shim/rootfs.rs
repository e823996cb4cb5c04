//! The container's root file system: an overlay of the image's layers, mounted in a mount namespace that only the shim
//! and then the container have, so that it is gone with them however they end. May change its own process's mounts.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_bind, mount_change, open_tree,
};

use super::error::{Doing as _, Error, Result};
use super::protocol::ShimSpec;
use super::volumes;
use crate::image::inroot::Root;

/// The mount namespace the shim came from.
pub(crate) struct Home(File);

/// Takes the process into a mount namespace of its own, which gets the node's later mounts and gives none back; but for
/// the sources of bidirectional mounts, which are bound into the run directory and still do.
pub(crate) fn leave_home(spec: &mut ShimSpec, run_dir: &Path) -> Result<Home> {
    let home = File::open("/proc/self/ns/mnt").doing(|| "open the mount namespace".into())?;
    unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a mount namespace".into())?;
    let mut shared = Vec::new();
    for mount in spec.bundle.spec.mounts_mut().iter_mut().flatten() {
        let both_ways = mount.options().iter().flatten().any(|option| option == "rshared");
        if let (true, Some(source)) = (both_ways, mount.source().clone()) {
            // Cloned now, it stays a peer of the node's.
            shared.push((clone_tree(&source)?, mount));
        }
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing(|| "keep mounts from spreading".into())?;
    for (number, (tree, mount)) in shared.into_iter().enumerate() {
        let at = run_dir.join(format!("shared-{number}"));
        volumes::attach(&tree, &at)
            .doing(|| format!("bind the source of {}", mount.destination().display()))?;
        mount.set_source(Some(at));
    }
    Ok(Home(home))
}

/// A detached copy of the mounts at a path, which must spread to other mount namespaces.
fn clone_tree(source: &Path) -> Result<OwnedFd> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").doing(|| "read the mount table".into())?;
    let real = source.canonicalize().doing(|| format!("find {}", source.display()))?;
    if !is_shared(&table, &real) {
        let path = source.display();
        let cause = format!(
            "{path} is not on a shared mount; bidirectional needs `mount --make-rshared` of its mount"
        );
        return Err(Error::Asked(cause));
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, &real, flags).doing(|| format!("take hold of {}", source.display()))
}

/// Whether the mount that holds the path has peers (`shared:` of proc(5)).
fn is_shared(mountinfo: &str, path: &Path) -> bool {
    let holds = |line: &str| {
        let point = line.split(' ').nth(4)?.replace("\\040", " ");
        path.starts_with(&point).then_some((point.len(), line.contains(" shared:")))
    };
    // Of equals the last one lies on top.
    mountinfo.lines().filter_map(holds).max_by_key(|(length, _)| *length).is_some_and(|(_, shared)| shared)
}

/// Goes back. What was mounted in between lives on in the container alone.
pub(crate) fn go_home(home: &Home) -> Result<()> {
    setns(&home.0, CloneFlags::CLONE_NEWNS).doing(|| "leave the container's mount namespace".into())
}

/// Mounts the overlay. Layers are named by descriptors: any number of them fits, and any path.
pub(crate) fn mount_overlay(spec: &ShimSpec) -> Result<()> {
    if spec.lower.is_empty() {
        return mount_bind(&spec.upper, &spec.rootfs).doing(|| format!("bind {}", spec.upper.display()));
    }
    let directory = |path: &Path| -> Result<OwnedFd> {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing(|| format!("open {}", path.display()))
    };
    let lower = spec.lower.iter().map(|p| directory(p)).collect::<Result<Vec<_>>>()?;
    let (upper, work) = (directory(&spec.upper)?, directory(&spec.work)?);
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower = lower.iter().map(name).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={lower},upperdir={},workdir={}", name(&upper), name(&work));
    let options =
        std::ffi::CString::new(options).map_err(std::io::Error::from).doing(|| "name the layers".into())?;
    let flags = if spec.no_devices { MountFlags::NODEV } else { MountFlags::empty() };
    mount("overlay", &spec.rootfs, "overlay", flags, Some(options.as_c_str()))
        .doing(|| format!("mount the image's layers on {}", spec.rootfs.display()))
}

/// Makes the working directory where the image has none, as other runtimes do. Nothing is made outside the root.
pub(crate) fn make_working_dir(rootfs: &Path, dir: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let parts: Vec<&[u8]> =
        dir.as_os_str().as_bytes().split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    let root = Root::open(rootfs).doing(|| format!("open {}", rootfs.display()))?;
    // Where that fails, libcontainer's own message about the directory is the better one.
    let _ = root.dir(&parts, true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_decides_whether_a_path_is_shared() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n2 1 0:2 / /srv rw - tmpfs t rw\n\
                     3 1 0:3 / /srv rw shared:7 master:1 - tmpfs t rw\n4 1 0:4 / /srv/own rw - tmpfs t rw\n";
        assert!(is_shared(table, Path::new("/etc")) && is_shared(table, Path::new("/srv/x")));
        assert!(!is_shared(table, Path::new("/srv/own")) && is_shared(table, Path::new("/srv/owner")));
    }
}
