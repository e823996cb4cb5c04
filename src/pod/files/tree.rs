//! Removing a directory with all that is in it, as deep as it may be. No link is followed, and what is mounted in it is
//! neither entered nor removed.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::below;

/// Removes it; one that is gone is a success, and so is one that somebody else removes at the same time.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match below::root(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let top = match below::subdir(&parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    // Every directory is first moved to the top: so each is reached by one step, however deep it was, and no stack and no
    // descriptor is needed for what lies between.
    let mut moved = 0_u64;
    while let Some(name) = one_directory(&top)? {
        let below = below::subdir(&top, Path::new(os(&name)))?;
        empty(&below, Some((&top, &mut moved)))?;
        unlinkat(&top, &*name, AtFlags::REMOVEDIR)?;
    }
    empty(&top, None)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
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
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    use super::super::tests::is_root;
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
        remove(&dir).unwrap();
        assert!(!dir.exists());
        remove(&dir).unwrap();
    }

    #[test]
    fn what_is_mounted_in_it_is_not_entered() {
        if !is_root() {
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
