//! Sources of a container's mounts that are made in the shim's own mount namespace, so that they are gone with it: images,
//! and volumes that must not see what is mounted in them later. May change its own process's mounts only.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
    open_tree,
};

use super::error::{Doing as _, Error, Result};
use super::protocol::{ImageMount, ShimSpec};

/// Mounts the images.
pub(crate) fn images(spec: &ShimSpec) -> Result<()> {
    spec.images.iter().try_for_each(image)
}

/// Mounts an image read-only, and a part of it beside.
fn image(image: &ImageMount) -> Result<()> {
    let at = &image.at;
    std::fs::create_dir_all(at).doing(|| format!("make {}", at.display()))?;
    if !image.lower.is_empty() {
        // An overlay of one layer alone is none to the kernel, hence the empty one at the bottom.
        let empty = beside(at, "empty");
        std::fs::create_dir_all(&empty).doing(|| format!("make {}", empty.display()))?;
        let layers = image.lower.iter().chain([&empty]);
        let layers = layers.map(|layer| directory(layer)).collect::<Result<Vec<_>>>()?;
        let names: Vec<_> = layers.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        let options = std::ffi::CString::new(format!("lowerdir={}", names.join(":")))
            .map_err(io::Error::from)
            .doing(|| "name the layers".into())?;
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        mount("overlay", at, "overlay", flags, Some(options.as_c_str()))
            .doing(|| format!("mount image {} on {}", image.name, at.display()))?;
    }
    if image.sub_path.is_empty() {
        return Ok(());
    }
    // Links in the image are the image's: they lead to what is in it.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let part = match openat2(directory(at)?, &image.sub_path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => {
            let cause = format!("image {} has no path {}", image.name, image.sub_path);
            return Err(Error::Asked(cause));
        }
        part => part.doing(|| format!("open {} in image {}", image.sub_path, image.name))?,
    };
    let place = part_of(at);
    let tree = clone(&part).doing(|| format!("take hold of {} in image {}", image.sub_path, image.name))?;
    attach(&tree, &place).doing(|| format!("bind {} of image {}", image.sub_path, image.name))
}

/// Where the part of an image lies that a mount asks for.
pub(crate) fn part_of(at: &Path) -> PathBuf {
    beside(at, "part")
}

fn beside(at: &Path, what: &str) -> PathBuf {
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    at.with_file_name(format!("{name}-{what}"))
}

fn directory(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {}", path.display()))
}

fn clone(opened: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(opened, "", flags)?)
}

pub(super) fn attach(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode).is_dir() {
        std::fs::create_dir(at)?;
    } else {
        File::create(at)?;
    }
    Ok(move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Binds the sources that are to be private to places of their own and makes those private, when another mount of the
/// container is not: libcontainer gives all of them the propagation of the container's root.
pub(crate) fn seclude(spec: &mut ShimSpec, run_dir: &Path) -> Result<()> {
    let mounts = spec.bundle.spec.mounts_mut();
    let has = |mount: &Mount, wanted: &[&str]| {
        mount.options().iter().flatten().any(|option| wanted.contains(&option.as_str()))
    };
    if !mounts.iter().flatten().any(|mount| has(mount, &["rslave", "rshared"])) {
        return Ok(());
    }
    for (number, mount) in mounts.iter_mut().flatten().filter(|m| has(m, &["rprivate"])).enumerate() {
        let Some(source) = mount.source().clone() else { continue };
        let opened = open(&source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .doing(|| format!("open {}", source.display()))?;
        let at = run_dir.join(format!("private-{number}"));
        let bound = clone(&opened).and_then(|tree| attach(&tree, &at)).and_then(|()| {
            Ok(mount_change(&at, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
        });
        bound.doing(|| format!("bind {}", source.display()))?;
        mount.set_source(Some(at));
    }
    Ok(())
}
