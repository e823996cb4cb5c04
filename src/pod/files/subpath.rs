//! Parts of volumes that containers have mounted (`kubelet-static-pods.md 4.1`): each is opened below its volume and bound
//! to a place of its own, so that nothing a container does to the volume later leads the mount elsewhere. Touches only the
//! pod's directory, and makes missing directories in volumes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use podstead_runtime::PodUid;
use rustix::fs::{CWD, FileType, Mode, OFlags, fchmod, fstat, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree,
    unmount,
};

use super::{FilesError, below, failed, make_dir};
use crate::pod::volumes::SubPath;

/// Binds the parts. May be called again: they are bound anew, as the volume is now. Containers that run keep theirs.
pub fn bind_sub_paths(uid: &PodUid, parts: &[SubPath]) -> Result<(), FilesError> {
    for part in parts {
        let path = part.volume.join(&part.path);
        let opened = open_or_make(part).map_err(|error| FilesError::Volume {
            pod: uid.clone(),
            problem: format!("failed to prepare subPath {}: {}", path.display(), below::explain(&error)),
        })?;
        if let Some(parent) = part.at.parent() {
            make_dir(uid, parent, 0o750)?;
        }
        bind(&opened, part).map_err(failed(uid, "bind a part of a volume to", &part.at))?;
    }
    Ok(())
}

/// Opens the part; where there is none yet, makes directories with the mode of the volume.
fn open_or_make(part: &SubPath) -> io::Result<OwnedFd> {
    let root = below::root(&part.volume)?;
    match below::open(&root, &part.path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mode = Mode::from_raw_mode(fstat(&root)?.st_mode & 0o2777);
    let mut done = std::path::PathBuf::from(".");
    for name in part.path.components() {
        let parent = below::open(&root, &done, OFlags::PATH | OFlags::DIRECTORY)?;
        match mkdirat(&parent, Path::new(&name), Mode::RWXU) {
            // Explicit, so that the process's umask does not matter.
            Ok(()) => fchmod(below::subdir(&parent, Path::new(&name))?, mode)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        done.push(name);
    }
    below::open(&root, &part.path, OFlags::PATH)
}

fn bind(opened: &OwnedFd, part: &SubPath) -> io::Result<()> {
    unbind(&part.at)?;
    if FileType::from_raw_mode(fstat(opened)?.st_mode).is_dir() {
        fs::create_dir(&part.at)?;
    } else {
        fs::File::create_new(&part.at)?;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(opened, "", flags)?;
    move_mount(&tree, "", CWD, &part.at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    if !part.shared {
        // Mounts of the node go on arriving; none go back.
        mount_change(&part.at, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    }
    Ok(())
}

/// Takes a binding and its place away, whether it is in use or not: what has it mounted keeps it.
pub(super) fn unbind(at: &Path) -> io::Result<()> {
    loop {
        // Else mounts that came with the part would be taken from where they came from.
        match mount_change(at, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC) {
            Ok(()) => {}
            // No mount, or nothing at all.
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
        unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    let removed = match fs::symlink_metadata(at) {
        Ok(found) if found.is_dir() => fs::remove_dir(at),
        Ok(_) => fs::remove_file(at),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::super::mountinfo;
    use super::super::tests::is_root;
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("volume")).unwrap();
            Self { dir }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn part(&self, path: &str) -> SubPath {
            let (volume, at) = (self.at("volume"), self.at("parts/v/c/0"));
            SubPath { volume, path: path.into(), at, shared: false }
        }

        fn bind(&self, path: &str) -> Result<(), FilesError> {
            bind_sub_paths(&"u1".into(), &[self.part(path)])
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            for point in mountinfo::at_or_below(self.dir.path()).unwrap() {
                let _ = unmount(&point, UnmountFlags::DETACH);
            }
        }
    }

    #[test]
    fn a_missing_part_is_made_with_the_mode_of_the_volume() {
        if !is_root() {
            return;
        }
        let place = Place::new();
        fs::set_permissions(place.at("volume"), fs::Permissions::from_mode(0o2773)).unwrap();
        place.bind("a/b").unwrap();
        for dir in ["volume/a", "volume/a/b", "parts/v/c/0"] {
            assert_eq!(fs::metadata(place.at(dir)).unwrap().mode() & 0o7777, 0o2773, "{dir}");
        }
        fs::write(place.at("parts/v/c/0/x"), "").unwrap();
        assert!(place.at("volume/a/b/x").exists());
    }

    #[test]
    fn a_later_swap_of_a_link_leads_the_mount_nowhere_else() {
        if !is_root() {
            return;
        }
        let place = Place::new();
        fs::create_dir(place.at("volume/real")).unwrap();
        fs::write(place.at("volume/real/f"), "inside").unwrap();
        fs::create_dir(place.at("outside")).unwrap();
        fs::write(place.at("outside/f"), "outside").unwrap();
        symlink("real", place.at("volume/link")).unwrap();
        place.bind("link").unwrap();
        let read = || fs::read_to_string(place.at("parts/v/c/0/f")).unwrap();
        assert_eq!(read(), "inside");
        fs::remove_file(place.at("volume/link")).unwrap();
        symlink(place.at("outside"), place.at("volume/link")).unwrap();
        assert_eq!(read(), "inside");
        let error = place.bind("link").unwrap_err().to_string();
        assert!(error.contains("subPath") && error.contains("leads out of the volume"), "{error}");
        assert!(place.bind("link/new").is_err() && !place.at("outside/new").exists());
        assert_eq!(read(), "inside", "what was bound stays");
    }

    #[test]
    fn a_part_may_be_a_file_and_is_bound_anew_each_time() {
        if !is_root() {
            return;
        }
        let place = Place::new();
        fs::write(place.at("volume/f"), "1").unwrap();
        place.bind("f").unwrap();
        fs::write(place.at("volume/g"), "2").unwrap();
        fs::rename(place.at("volume/g"), place.at("volume/f")).unwrap();
        let read = || fs::read_to_string(place.at("parts/v/c/0")).unwrap();
        assert_eq!(read(), "1");
        place.bind("f").unwrap();
        assert_eq!(read(), "2");
        fs::remove_file(place.at("volume/f")).unwrap();
        fs::create_dir(place.at("volume/f")).unwrap();
        place.bind("f").unwrap();
        assert!(place.at("parts/v/c/0").is_dir());
        unbind(&place.at("parts/v/c/0")).unwrap();
        unbind(&place.at("parts/v/c/0")).unwrap();
        assert_eq!(mountinfo::at_or_below(place.dir.path()).unwrap(), Vec::<PathBuf>::new());
        assert!(place.at("volume/f").is_dir());
    }

    #[test]
    fn mounts_in_a_part_come_along_and_stay_where_they_came_from() {
        if !is_root() {
            return;
        }
        let place = Place::new();
        let inner = place.at("volume/a/inner");
        fs::create_dir_all(&inner).unwrap();
        let tmpfs = |at: &Path| {
            rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        };
        tmpfs(&place.at("volume"));
        mount_change(place.at("volume"), MountPropagationFlags::SHARED).unwrap();
        fs::create_dir_all(&inner).unwrap();
        tmpfs(&inner);
        fs::write(inner.join("f"), "x").unwrap();
        for shared in [false, true] {
            let part = SubPath { shared, ..place.part("a") };
            bind_sub_paths(&"u1".into(), std::slice::from_ref(&part)).unwrap();
            assert!(part.at.join("inner/f").exists());
            unbind(&part.at).unwrap();
            assert!(inner.join("f").exists(), "shared {shared}");
        }
    }
}
