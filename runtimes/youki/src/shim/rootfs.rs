//! The container's root file system: an overlay of the image's layers, mounted in a mount namespace that only the shim
//! and then the container have, so that it is gone with them however they end. May change its own process's mounts.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_bind, mount_change, open_tree,
};

use super::error::{Doing as _, Error, Result};
use super::protocol::ShimSpec;
use super::volumes;
use crate::image::inroot::Root;
use crate::selinux;

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

/// What mount(2) takes of options, in bytes with the end; the rest it leaves out without a word.
const OPTIONS: usize = 4096;

/// Mounts the overlay. Layers are named by descriptors, from the directory of these: so any path fits, and as many layers
/// as overlayfs takes.
pub(crate) fn mount_overlay(spec: &ShimSpec) -> Result<()> {
    let label = spec.bundle.spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    if spec.lower.is_empty() {
        if let Some(label) = label {
            selinux::relabel(&spec.upper, label).doing(|| format!("label {}", spec.upper.display()))?;
        }
        return mount_bind(&spec.upper, &spec.rootfs).doing(|| format!("bind {}", spec.upper.display()));
    }
    let flags = if spec.no_devices { MountFlags::NODEV } else { MountFlags::empty() };
    overlay(&spec.lower, (&spec.upper, &spec.work), &spec.rootfs, flags, label)
}

/// `own`: the container's upper and working directories.
fn overlay(
    lower: &[PathBuf],
    own: (&Path, &Path),
    rootfs: &Path,
    flags: MountFlags,
    label: Option<&str>,
) -> Result<()> {
    let directory = |path: &Path| -> Result<OwnedFd> {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing(|| format!("open {}", path.display()))
    };
    let (upper, work) = (directory(own.0)?, directory(own.1)?);
    let layers = lower.len();
    let lower = lower.iter().map(|p| directory(p)).collect::<Result<Vec<_>>>()?;
    let name = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    let lower = lower.iter().map(name).collect::<Vec<_>>().join(":");
    let options = overlay_options(&lower, &name(&upper), &name(&work), label);
    if options.len() >= OPTIONS {
        return Err(Error::Asked(format!("the image has {layers} layers, more than one mount takes")));
    }
    let options =
        std::ffi::CString::new(options).map_err(std::io::Error::from).doing(|| "name the layers".into())?;
    let back = directory(Path::new("."))?;
    std::env::set_current_dir("/proc/self/fd").doing(|| "enter /proc/self/fd".into())?;
    let mounted = mount("overlay", rootfs, "overlay", flags, Some(options.as_c_str()))
        .doing(|| format!("mount the image's layers on {}", rootfs.display()));
    rustix::process::fchdir(&back).doing(|| "go back to the run directory".into())?;
    mounted
}

/// The label is what SELinux gives every file; in quotes, because its level may hold commas.
fn overlay_options(lower: &str, upper: &str, work: &str, label: Option<&str>) -> String {
    let layers = format!("upperdir={upper},workdir={work},lowerdir={lower}");
    match label {
        Some(label) => format!("{layers},context=\"{label}\""),
        None => layers,
    }
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

    /// As many as an image may have.
    #[test]
    fn the_lowest_of_500_layers_is_seen_and_what_is_written_goes_to_the_upper_directory() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = |name: &str| {
            let dir = temp.path().join(name);
            std::fs::create_dir(&dir).expect("make a directory");
            dir
        };
        let (upper, work, rootfs) = (dir("upper"), dir("work"), dir("rootfs"));
        let lower: Vec<_> = (0..500).map(|n| dir(&n.to_string())).collect();
        for layer in [&lower[0], &lower[499]] {
            std::fs::write(layer.join(layer.file_name().expect("a name")), "x").expect("write");
        }
        // Of this thread alone, as its working directory then is.
        let on = std::thread::spawn(move || -> Result<(bool, PathBuf)> {
            unshare(CloneFlags::CLONE_NEWNS).doing(|| "unshare".into())?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .doing(|| "keep mounts".into())?;
            std::env::set_current_dir("/usr").doing(|| "enter /usr".into())?;
            overlay(&lower, (&upper, &work), &rootfs, MountFlags::empty(), None)?;
            let seen = rootfs.join("0").exists() && rootfs.join("499").exists();
            std::fs::write(rootfs.join("new"), "x").doing(|| "write".into())?;
            Ok((seen && upper.join("new").exists(), std::env::current_dir().doing(|| "look".into())?))
        });
        let (seen, at) = on.join().expect("no panic").expect("mounted");
        assert!(seen && at == Path::new("/usr"), "{seen} {at:?}");
    }

    #[test]
    fn a_label_goes_to_the_overlay_in_quotes() {
        let options = |label| overlay_options("/a:/b", "/u", "/w", label);
        assert_eq!(options(None), "upperdir=/u,workdir=/w,lowerdir=/a:/b");
        let labelled = options(Some("u:r:t:s0:c1,c2"));
        assert_eq!(labelled, "upperdir=/u,workdir=/w,lowerdir=/a:/b,context=\"u:r:t:s0:c1,c2\"");
    }

    #[test]
    fn the_deepest_and_last_mount_decides_whether_a_path_is_shared() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n2 1 0:2 / /srv rw - tmpfs t rw\n\
                     3 1 0:3 / /srv rw shared:7 master:1 - tmpfs t rw\n4 1 0:4 / /srv/own rw - tmpfs t rw\n";
        assert!(is_shared(table, Path::new("/etc")) && is_shared(table, Path::new("/srv/x")));
        assert!(!is_shared(table, Path::new("/srv/own")) && is_shared(table, Path::new("/srv/owner")));
    }
}
