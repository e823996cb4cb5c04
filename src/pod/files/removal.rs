//! The end of a pod's directory. Touches only that directory and what was mounted in it for the pod: no link is followed,
//! no other file system is entered, and what others mounted there is theirs to take away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podstead_runtime::PodUid;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use super::remains::REMAINS;
use super::{FilesError, failed, make_dir, mountinfo, subpath};
use crate::pod::volumes::{EMPTY_DIR, SUB_PATHS, VOLUMES};
use crate::pod::{NodeFacts, identity};

/// Since when something in the directory has been in use.
const BUSY: &str = "busy-since";
/// After this long, the pod's own mounts are detached although somebody uses them.
const DETACH_AFTER: Duration = Duration::from_secs(30);
/// After this long, a directory in which others mounted something is put aside, so that the pod's name is free.
const ASIDE_AFTER: Duration = Duration::from_secs(60);

/// Removes the pod's directory. While something in it is in use, that is the error, and a later call goes on.
pub fn remove(node: &NodeFacts, uid: &PodUid) -> Result<(), FilesError> {
    tidy_aside(node);
    let dir = identity::pod_dir(node, uid);
    match fs::symlink_metadata(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed(uid, "look at", &dir))?,
    };
    let Err(error) = empty(uid, &dir) else {
        return fs::remove_dir(&dir).map_err(failed(uid, "remove", &dir));
    };
    if matches!(error, FilesError::Busy { .. }) && busy_for(&dir) >= ASIDE_AFTER {
        tracing::warn!("{error}");
        return put_aside(node, uid, &dir);
    }
    Err(error)
}

/// Empties the directory. The note goes last: without it nobody knows what else is to be removed.
fn empty(uid: &PodUid, dir: &Path) -> Result<(), FilesError> {
    unmount_own(uid, dir)?;
    for entry in fs::read_dir(dir).map_err(failed(uid, "list", dir))? {
        let entry = entry.map_err(failed(uid, "list", dir))?;
        let path = entry.path();
        if entry.file_type().map_err(failed(uid, "look at", &path))?.is_dir() {
            podstead_trees::remove(&path).map_err(failed(uid, "remove", &path))?;
        } else if entry.file_name() != REMAINS {
            fs::remove_file(&path).map_err(failed(uid, "remove", &path))?;
        }
    }
    match fs::remove_file(dir.join(REMAINS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed(uid, "remove the note in", dir)),
    }
}

/// Takes away what the agent mounted. What is in use is left for later, at first.
fn unmount_own(uid: &PodUid, dir: &Path) -> Result<(), FilesError> {
    let real = dir.canonicalize().map_err(failed(uid, "find", dir))?;
    let points = mountinfo::at_or_below(&real).map_err(failed(uid, "see what is mounted in", dir))?;
    let mut busy: Option<PathBuf> = None;
    for point in points {
        match owner(&real, &point) {
            Owner::Part(at) => {
                subpath::unbind(&at).map_err(failed(uid, "take away the binding", &at))?;
            }
            // With what others mounted in it, it is theirs as well.
            Owner::Volume if !busy.as_ref().is_some_and(|busy| busy.starts_with(&point)) => {
                if let Err(errno) = unmount(&point, UnmountFlags::NOFOLLOW) {
                    match errno {
                        Errno::INVAL => {}
                        Errno::BUSY if busy_for(dir) >= DETACH_AFTER => {
                            tracing::warn!("{} is in use by somebody; detaching it", point.display());
                            unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                                .map_err(io::Error::from)
                                .map_err(failed(uid, "detach", &point))?;
                        }
                        Errno::BUSY => busy = Some(point),
                        errno => return Err(failed(uid, "unmount", &point)(errno.into())),
                    }
                }
            }
            Owner::Volume | Owner::Others => busy = Some(busy.unwrap_or(point)),
        }
    }
    match busy {
        None => Ok(()),
        Some(path) => {
            mark_busy(dir);
            Err(FilesError::Busy { pod: uid.clone(), path })
        }
    }
}

/// Detaches everything that is mounted at a directory or below it, whoever uses it: for tests, at their end.
pub fn unmount_all(dir: &Path) -> io::Result<()> {
    let points = match mountinfo::at_or_below(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        points => points?,
    };
    for point in points {
        let _ = mount_change(&point, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
        unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

enum Owner {
    /// A part of a volume bound to this place, or something that came with it.
    Part(PathBuf),
    /// A tmpfs or huge pages.
    Volume,
    /// Somebody else.
    Others,
}

fn owner(dir: &Path, point: &Path) -> Owner {
    let Ok(below) = point.strip_prefix(dir) else { return Owner::Others };
    let names: Vec<_> = below.iter().collect();
    match names[..] {
        [first, volume, container, index, ..] if first == SUB_PATHS => {
            Owner::Part(dir.join(first).join(volume).join(container).join(index))
        }
        [first, plugin, _] if first == VOLUMES && plugin == EMPTY_DIR => Owner::Volume,
        _ => Owner::Others,
    }
}

fn mark_busy(dir: &Path) {
    let mark = dir.join(BUSY);
    if !mark.exists() {
        // Without the mark, the removal waits for ever: that harms nothing.
        let _ = fs::File::create(mark);
    }
}

fn busy_for(dir: &Path) -> Duration {
    let since = fs::metadata(dir.join(BUSY)).and_then(|found| found.modified());
    since.ok().and_then(|since| since.elapsed().ok()).unwrap_or_default()
}

fn aside(node: &NodeFacts) -> PathBuf {
    node.root_dir.join("put-aside")
}

/// Moves a directory that cannot be removed out of the way; it is removed as soon as it can be.
fn put_aside(node: &NodeFacts, uid: &PodUid, dir: &Path) -> Result<(), FilesError> {
    let aside = aside(node);
    make_dir(uid, &aside, 0o700)?;
    let to = aside.join(format!("{uid}.{}", jiff::Timestamp::now().as_nanosecond()));
    fs::rename(dir, &to).map_err(failed(uid, "put aside", dir))?;
    tracing::warn!(
        "{} is put aside as {}, since it cannot be removed while something is mounted in it",
        dir.display(),
        to.display()
    );
    Ok(())
}

/// Removes what was put aside, where that is possible by now.
fn tidy_aside(node: &NodeFacts) {
    for entry in fs::read_dir(aside(node)).into_iter().flatten().flatten() {
        let (uid, dir) = (PodUid(entry.file_name().to_string_lossy().into_owned()), entry.path());
        match empty(&uid, &dir) {
            Ok(()) => drop(fs::remove_dir(&dir)),
            Err(error) => tracing::debug!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rustix::mount::{MountFlags, mount, mount_bind};

    use super::super::tests::{is_root, place, pod};
    use super::super::{bind_sub_paths, prepare, remains};
    use super::*;
    use crate::pod::volumes::SubPath;

    fn uid() -> PodUid {
        PodUid::from("u1")
    }

    fn made(volume: &str) -> (tempfile::TempDir, NodeFacts, PathBuf) {
        let (dir, node) = place();
        let volume = serde_yaml::from_str(&format!("{{name: v, {volume}}}")).unwrap();
        prepare(&node, &pod(vec![volume])).unwrap();
        let own = identity::pod_dir(&node, &uid());
        (dir, node, own)
    }

    /// As if the first failure was long ago.
    fn wait_long(dir: &Path) {
        let mark = fs::File::options().write(true).open(dir.join(BUSY)).unwrap();
        mark.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn removing_never_follows_a_link() {
        let (dir, node, own) = made("emptyDir: {}");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        for at in ["link", "volumes/kubernetes.io~empty-dir/v/link", "volumes/link"] {
            std::os::unix::fs::symlink(&outside, own.join(at)).unwrap();
        }
        remove(&node, &uid()).unwrap();
        assert!(outside.join("kept").exists() && !own.exists());
    }

    #[test]
    fn parts_of_volumes_are_unbound_and_nothing_of_them_is_removed() {
        if !is_root() {
            return;
        }
        let (dir, node, own) = made("emptyDir: {medium: Memory, sizeLimit: 1Mi}");
        let host = dir.path().join("host");
        fs::create_dir_all(host.join("sub")).unwrap();
        fs::write(host.join("sub/kept"), "x").unwrap();
        let part = |volume: PathBuf, path: &str, index: &str| SubPath {
            volume,
            path: path.into(),
            at: own.join("volume-subpaths/v/c").join(index),
            shared: false,
        };
        let memory = own.join("volumes/kubernetes.io~empty-dir/v");
        bind_sub_paths(&uid(), &[part(host.clone(), "sub", "0"), part(memory, "made", "1")]).unwrap();
        remove(&node, &uid()).unwrap();
        assert!(!own.exists() && host.join("sub/kept").exists());
    }

    #[test]
    fn a_busy_volume_delays_the_removal_and_is_detached_in_the_end() {
        if !is_root() {
            return;
        }
        let (_dir, node, own) = made("emptyDir: {medium: Memory}");
        let volume = own.join("volumes/kubernetes.io~empty-dir/v");
        let user = fs::File::create(volume.join("open")).unwrap();
        for _ in 0..2 {
            let error = remove(&node, &uid()).unwrap_err();
            assert!(matches!(&error, FilesError::Busy { path, .. } if path.ends_with("v")), "{error}");
        }
        assert!(remains(&node).unwrap()[0].1.is_some(), "the note is kept");
        wait_long(&own);
        remove(&node, &uid()).unwrap();
        assert!(!own.exists());
        drop(user);
    }

    #[test]
    fn what_others_mounted_is_left_alone_and_the_pods_name_is_free_in_the_end() {
        if !is_root() {
            return;
        }
        let (dir, node, own) = made("emptyDir: {medium: Memory}");
        let host = dir.path().join("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("kept"), "x").unwrap();
        let inner = own.join("volumes/kubernetes.io~empty-dir/v/inner");
        fs::create_dir(&inner).unwrap();
        mount_bind(&host, &inner).unwrap();
        let beside = own.join("beside");
        fs::create_dir(&beside).unwrap();
        mount("tmpfs", &beside, "tmpfs", MountFlags::empty(), None).unwrap();
        assert!(matches!(remove(&node, &uid()).unwrap_err(), FilesError::Busy { .. }));
        wait_long(&own);
        remove(&node, &uid()).unwrap();
        assert!(!own.exists() && remains(&node).unwrap().is_empty());
        let aside = fs::read_dir(aside(&node)).unwrap().next().unwrap().unwrap().path();
        assert!(aside.join("volumes/kubernetes.io~empty-dir/v/inner/kept").exists());
        unmount(aside.join("beside"), UnmountFlags::empty()).unwrap();
        unmount(aside.join("volumes/kubernetes.io~empty-dir/v/inner"), UnmountFlags::empty()).unwrap();
        remove(&node, &"another".into()).unwrap();
        assert!(!aside.exists() && host.join("kept").exists());
    }
}
