//! Containers in a user namespace: what they are made of is shown to them with its owners counted as they count
//! (idmapped mounts), and where a process without the node's rights can walk to. May change its own process's mounts, and
//! gives the container's own directories their owner.
//!
//! libcontainer enters the user namespace first and mounts afterwards, by path: as nobody on the node, whom the
//! directories of the runtime and of the pods keep out.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::syscall::linux::{AT_EMPTY_PATH, MountAttr};
use libcontainer::syscall::syscall::create_syscall;
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, open};
use rustix::mount::{MountFlags, OpenTreeFlags, mount, open_tree};

use super::error::{Doing as _, Error, Result};
use super::protocol::{ShimSpec, Users};
use super::users::mapped;
use super::volumes;

/// `MOUNT_ATTR_IDMAP` of linux/mount.h.
const IDMAP: u64 = 0x0010_0000;

/// Directories that every node has and that nothing here is in; in the shim's own mount namespace one is covered.
const PLACES: [&str; 7] = ["/mnt", "/media", "/srv", "/opt", "/home", "/boot", "/root"];

/// Has the layers of all images show their owners as the container counts them.
pub(super) fn map_layers(spec: &mut ShimSpec, run_dir: &Path) -> Result<()> {
    let Some(users) = spec.users.clone() else { return Ok(()) };
    let namespace = namespace(&users)?;
    let at = run_dir.join("layers");
    fs::create_dir_all(&at).doing(|| format!("make {}", at.display()))?;
    tmpfs(&at)?;
    let images = spec.images.iter_mut().flat_map(|image| image.lower.iter_mut());
    for (number, layer) in spec.lower.iter_mut().chain(images).enumerate() {
        let tree = tree(layer, OpenTreeFlags::empty())?;
        map(&tree, &namespace, layer)?;
        *layer = attach(&tree, at.join(number.to_string()))?;
    }
    // What the container writes is its root's from the beginning: the upper directory bears the ids of the node.
    let owner = (mapped(&users.ids.uids, "user", 0)?, mapped(&users.ids.gids, "group", 0)?);
    for dir in [&spec.upper, &spec.work] {
        chown(dir, owner)?;
    }
    Ok(())
}

/// Puts the root file system, the sources of all mounts and the pod's namespaces where the container's maker can reach
/// them.
pub(super) fn set(spec: &mut ShimSpec) -> Result<()> {
    let Some(users) = spec.users.clone() else { return Ok(()) };
    let namespace = namespace(&users)?;
    let stage = place(spec)?;
    // All are taken hold of before anything is covered.
    let mut held = Vec::new();
    for mount in spec.bundle.spec.mounts_mut().iter_mut().flatten() {
        let Some(source) = mount.source().clone().filter(|_| mount.typ().as_deref() == Some("bind")) else {
            continue;
        };
        let tree = tree(&source, OpenTreeFlags::AT_RECURSIVE)?;
        if mount.uid_mappings().is_some() {
            map(&tree, &namespace, &source)?;
            mount.set_uid_mappings(None).set_gid_mappings(None);
        }
        let at = stage.join(held.len().to_string());
        mount.set_source(Some(at.clone()));
        held.push((tree, at));
    }
    let linux = spec.bundle.spec.linux_mut().as_mut();
    for namespace in linux.and_then(|l| l.namespaces_mut().as_mut()).into_iter().flatten() {
        // The user namespace itself is entered first.
        let path = namespace.path().clone().filter(|_| namespace.typ() != LinuxNamespaceType::User);
        if let Some(path) = path {
            let at = stage.join(namespace.typ().to_string());
            namespace.set_path(Some(at.clone()));
            held.push((tree(&path, OpenTreeFlags::empty())?, at));
        }
    }
    tmpfs(&stage)?;
    for (tree, at) in held {
        attach(&tree, at)?;
    }
    spec.rootfs = stage.join("rootfs");
    fs::create_dir(&spec.rootfs).doing(|| format!("make {}", spec.rootfs.display()))?;
    if let Some(root) = spec.bundle.spec.root_mut() {
        root.set_path(spec.rootfs.clone());
    }
    Ok(())
}

fn namespace(users: &Users) -> Result<File> {
    File::open(&users.namespace).doing(|| "open the pod's user namespace".into())
}

/// The first of the places that is a directory and holds nothing of the container's.
fn place(spec: &ShimSpec) -> Result<PathBuf> {
    let own = [&spec.kept, &spec.upper, &spec.rootfs, &spec.hints];
    let run = std::env::current_dir().doing(|| "find the run directory".into())?;
    let free = |place: &&str| {
        let place = Path::new(place);
        fs::symlink_metadata(place).is_ok_and(|found| found.is_dir())
            && own.into_iter().chain([&run]).all(|path| !path.starts_with(place))
    };
    let found = PLACES.into_iter().find(free).map(PathBuf::from);
    found.ok_or_else(|| {
        let places = PLACES.join(", ");
        Error::Asked(format!("a pod with a user namespace needs one of the directories {places} on the node"))
    })
}

/// Memory for mount points, open to whoever walks through.
fn tmpfs(at: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("stage", at, "tmpfs", flags, Some(c"mode=711,size=4m"))
        .doing(|| format!("mount a tmpfs on {}", at.display()))
}

fn tree(source: &Path, more: OpenTreeFlags) -> Result<OwnedFd> {
    // Volumes may be links (as those of `kubernetes.io~projected` are within): where they lead is what is mounted.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | more;
    open_tree(CWD, source, flags).doing(|| format!("take hold of {}", source.display()))
}

fn map(tree: &OwnedFd, namespace: &File, source: &Path) -> Result<()> {
    let attr = MountAttr {
        attr_set: IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).unwrap_or_default(),
    };
    let size = size_of::<MountAttr>();
    let mapped = create_syscall().mount_setattr(tree.as_fd(), Path::new(""), AT_EMPTY_PATH, &attr, size);
    mapped.map_err(|error| {
        let path = source.display();
        Error::Asked(format!(
            "{path} cannot be mounted with the owners of the pod's user namespace ({error}): its file system, or this \
             kernel, cannot map ids; use another file system for it, or hostUsers: true"
        ))
    })
}

fn attach(tree: &OwnedFd, at: PathBuf) -> Result<PathBuf> {
    volumes::attach(tree, &at).doing(|| format!("bind {}", at.display()))?;
    Ok(at)
}

fn chown(path: &Path, (uid, gid): (u32, u32)) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = open(path, flags, Mode::empty()).doing(|| format!("open {}", path.display()))?;
    rustix::fs::fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .doing(|| format!("give {} to the pod's root", path.display()))
}
