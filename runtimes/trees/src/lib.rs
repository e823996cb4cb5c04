//! Removing a directory with all that is in it, which a pod may have filled: as deep as no path is long, with links to
//! anywhere, and while somebody else writes or removes there. Nothing here recurses, follows a link, or enters what is
//! mounted. Blocking.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// The kernel asks to try again when it could not prove that a rename meanwhile left the path inside.
const TRIES: u32 = 32;
/// How often it is begun anew when somebody else removes, or adds, at the same time.
const ROUNDS: u32 = 1000;

/// Removes it. One that is gone is a success, and so is one that somebody else removes at the same time. A link or a file
/// is no directory, and an error.
pub fn remove(dir: &Path) -> io::Result<()> {
    let mut rounds = 0;
    loop {
        match remove_once(dir) {
            Err(error)
                if rounds < ROUNDS
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) =>
            {
                rounds += 1;
            }
            outcome => return outcome,
        }
    }
}

fn remove_once(dir: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let top = match subdir(&parent, Path::new(name)) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    // Every directory is first moved to the top: so each is reached by one step, however deep it was, and no stack and no
    // descriptor is needed for what lies between.
    let mut moved = 0_u64;
    while let Some(name) = one_directory(&top)? {
        let below = subdir(&top, Path::new(os(&name)))?;
        empty(&below, Some((&top, &mut moved)))?;
        unlinkat(&top, &*name, AtFlags::REMOVEDIR)?;
    }
    empty(&top, None)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A directory's own subdirectory: no link, and no mount.
fn subdir(dir: impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for _ in 0..TRIES {
        match openat2(dir.as_fd(), name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn os(name: &CString) -> &std::ffi::OsStr {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(name.as_bytes())
}

fn is_self(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

fn is_dir(dir: &OwnedFd, entry: &rustix::fs::DirEntry) -> io::Result<bool> {
    Ok(match entry.file_type() {
        FileType::Unknown => {
            let found = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            FileType::from_raw_mode(found.st_mode).is_dir()
        }
        known => known.is_dir(),
    })
}

fn one_directory(dir: &OwnedFd) -> io::Result<Option<CString>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !is_self(entry.file_name().to_bytes()) && is_dir(dir, &entry)? {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

/// Removes a directory's files and moves its directories to the top, if there is one, under new names.
fn empty(dir: &OwnedFd, mut top: Option<(&OwnedFd, &mut u64)>) -> io::Result<()> {
    // Entries that go while a directory is read may hide others: read again until there is nothing.
    loop {
        let mut found = false;
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_self(name.to_bytes()) {
                continue;
            }
            if !is_dir(dir, &entry)? {
                found = true;
                unlinkat(dir, name, AtFlags::empty())?;
            } else if let Some((top, moved)) = &mut top {
                found = true;
                hoist(dir, name, top, moved)?;
            }
        }
        if !found {
            return Ok(());
        }
    }
}

fn hoist(dir: &OwnedFd, name: &std::ffi::CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let new = format!(".removed-{moved}");
        match statat(top, &*new, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(renameat(dir, name, top, new)?),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use rustix::fs::{mkdirat, openat};

    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("deep");
        fs::create_dir(&dir).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = openat(CWD, &dir, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", flags, Mode::empty()).unwrap();
            openat(&at, ".removed-1", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        }
        std::thread::scope(|scope| {
            let removals = [0, 1].map(|_| scope.spawn(|| remove(&dir)));
            for removal in removals {
                removal.join().unwrap().unwrap();
            }
        });
        assert!(!dir.exists());
        remove(&dir).unwrap();
        remove(&dir.join("below")).unwrap();
    }

    #[test]
    fn what_is_mounted_in_it_is_not_entered() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let (dir, outside) = (temp.path().join("dir"), temp.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        for at in ["a/b", "c"].map(|at| dir.join(at)) {
            fs::create_dir_all(&at).unwrap();
            // Of the same file system, so that device numbers tell nothing.
            rustix::mount::mount_bind(&outside, &at).unwrap();
            let removed = remove(&dir);
            rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty()).unwrap();
            assert!(removed.is_err() && outside.join("kept").exists());
        }
        remove(&dir).unwrap();
        assert!(!dir.exists() && outside.join("kept").exists());
    }

    #[test]
    fn what_links_point_to_stays() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, outside) = (temp.path().join("dir"), temp.path().join("outside"));
        for dir in [&dir, &outside, &dir.join("a"), &dir.join("a/b"), &dir.join(".removed-1")] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, dir.join("a/b/link")).unwrap();
        symlink(&outside, temp.path().join("itself")).unwrap();
        remove(&dir).unwrap();
        assert!(remove(&temp.path().join("itself")).is_err());
        assert!(!dir.exists() && outside.join("kept").exists());
    }
}
