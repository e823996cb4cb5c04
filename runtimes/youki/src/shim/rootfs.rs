//! The container's root file system: an overlay of the image's layers, mounted in a mount namespace that only the shim
//! and then the container have, so that it is gone with them however they end. May change its own process's mounts.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use super::error::{Doing as _, Result};
use super::protocol::ShimSpec;
use crate::image::inroot::Root;

/// The mount namespace the shim came from.
pub(crate) struct Home(File);

/// Takes the process into a mount namespace of its own, which gets the node's later mounts and gives none back.
pub(crate) fn leave_home() -> Result<Home> {
    let home = File::open("/proc/self/ns/mnt").doing(|| "open the mount namespace".into())?;
    unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a mount namespace".into())?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing(|| "keep mounts from spreading".into())?;
    Ok(Home(home))
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
    mount("overlay", &spec.rootfs, "overlay", MountFlags::empty(), Some(options.as_c_str()))
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
