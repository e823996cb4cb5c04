//! Opening what lies below a directory that others may write to: no name and no link leads out of it. Opens only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The kernel asks to try again when it could not prove that a rename meanwhile left the path inside.
const TRIES: u32 = 32;

/// Opens a directory that is trusted by its path, to open things below it.
pub(super) fn root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a path below it. Links are followed as long as they stay below; mounts may be crossed.
pub(super) fn open(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(retried(root, path.as_ref(), flags, resolve)?)
}

/// Opens a directory's own subdirectory: no link, and no mount.
pub(super) fn subdir(dir: impl AsFd, name: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    retried(dir, name.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, resolve)
}

fn retried(dir: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    for _ in 0..TRIES {
        match openat2(dir.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// An error of [`open`] for people.
pub(super) fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) if code == Errno::XDEV.raw_os_error() => "it leads out of the volume".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_inside_and_refused_outside() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        std::fs::create_dir_all(inside.join("a")).unwrap();
        std::fs::write(inside.join("a/f"), "x").unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        symlink("a/../a", inside.join("good")).unwrap();
        for (name, target) in [("up", "../secret"), ("abs", "/etc/passwd"), ("deep", "a/../../secret")] {
            symlink(target, inside.join(name)).unwrap();
        }
        let root = root(&inside).unwrap();
        assert!(open(&root, "good/f", OFlags::RDONLY).is_ok());
        for name in ["up", "abs", "deep", "../secret", "/etc/passwd"] {
            let error = open(&root, name, OFlags::RDONLY).unwrap_err();
            assert_eq!(explain(&error), "it leads out of the volume", "{name}");
        }
        assert!(subdir(&root, "a").is_ok());
        assert!(subdir(&root, "good").is_err());
    }
}
