//! File operations that cannot leave a root directory, whatever the names and links below it say.
//!
//! Every step opens from the root with openat2 (Linux 5.6) and `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; symbolic
//! links are followed here, by hand, as if the root were `/`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

/// Deeper trees are refused: removing one holds a descriptor per level.
const MAX_DEPTH: usize = 256;
/// As the kernel's own limit.
const MAX_LINKS: usize = 40;
const PATH_MAX: usize = 4096;

/// A directory that acts as `/`.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

/// Splits a path of an archive. `None` for a path that holds `..` or is too long: no honest archive has one.
/// Leading slashes are dropped, as every tar does.
pub(crate) fn components(path: &[u8]) -> Option<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    let sane = path.len() < PATH_MAX && parts.len() <= MAX_DEPTH && !parts.contains(&b"..".as_slice());
    sane.then_some(parts)
}

pub(crate) fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether this is what overlayfs takes for "removed": a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Marks a directory as hiding what lower layers have there.
pub(crate) fn set_opaque(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
}

/// The entry itself, never what a link points to; `None` if there is none.
pub(crate) fn lstat(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Opens a directory entry that must be a directory itself.
pub(crate) fn open_subdir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Makes a directory with exactly this mode (whatever the umask) and opens it.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    let made = open_subdir(dir, name)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    Ok(made)
}

/// Removes an entry, with everything below it if it is a directory. No link is followed.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<()> {
    if kind_of(stat) != FileType::Directory {
        return Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?);
    }
    let sub = open_subdir(dir, name)?;
    for entry in Dir::read_from(&sub)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if child == b"." || child == b".." {
            continue;
        }
        if let Some(stat) = lstat(sub.as_fd(), child)? {
            remove(sub.as_fd(), child, &stat)?;
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

impl Root {
    /// Opens a directory that the caller trusts by its path.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens the directory at this path for working in it. Links on the way are followed inside the root. With
    /// `create`, what is missing is made (0755, root), and a whiteout on the way becomes an opaque directory.
    pub(crate) fn dir(&self, path: &[&[u8]], create: bool) -> io::Result<OwnedFd> {
        match self.plain_dir(&path.join(&b'/')) {
            Ok(fd) => Ok(fd),
            // ELOOP: a link; ENOENT and ENOTDIR: perhaps something to make.
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => self.walk(path, create),
            Err(e) => Err(e.into()),
        }
    }

    fn plain_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)
    }

    fn walk(&self, path: &[&[u8]], create: bool) -> io::Result<OwnedFd> {
        let mut todo: VecDeque<Vec<u8>> = path.iter().map(|c| c.to_vec()).collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => {}
            }
            let dir = self.plain_dir(&done.join(&b'/'))?;
            let stat = lstat(dir.as_fd(), &name)?;
            match stat.as_ref().map(kind_of) {
                Some(FileType::Directory) => done.push(name),
                Some(FileType::Symlink) => {
                    links += 1;
                    let target = rustix::fs::readlinkat(&dir, name.as_slice(), Vec::new())?.into_bytes();
                    if links > MAX_LINKS || todo.len() + target.len() > 2 * PATH_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    for part in target.split(|b| *b == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                }
                None if create => {
                    make_dir(dir.as_fd(), &name, 0o755)?;
                    done.push(name);
                }
                None => return Err(Errno::NOENT.into()),
                Some(_) if create && stat.as_ref().is_some_and(is_whiteout) => {
                    rustix::fs::unlinkat(&dir, name.as_slice(), AtFlags::empty())?;
                    set_opaque(make_dir(dir.as_fd(), &name, 0o755)?)?;
                    done.push(name);
                }
                Some(_) => return Err(Errno::NOTDIR.into()),
            }
            if done.len() > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
        }
        Ok(self.plain_dir(&done.join(&b'/'))?)
    }

    /// Opens a file for reading, links followed inside the root. Never blocks on a FIFO. The mounted root file
    /// system of a container may have other mounts in it; those may be crossed.
    pub(crate) fn open_file(&self, path: &Path) -> io::Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: the kernel could not prove that a parallel rename left the path inside; it asks to try again.
        for _ in 0..16 {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return Ok(other?.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_dotdot_are_no_paths() {
        assert_eq!(components(b"/a/./b//c"), Some(vec![b"a".as_slice(), b"b", b"c"]));
        assert_eq!(components(b"./"), Some(vec![]));
        assert_eq!(components(b"a/../b"), None);
        assert_eq!(components(&b"a/".repeat(300)), None);
    }

    #[test]
    fn links_are_followed_as_if_the_root_were_slash() {
        let tmp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let at = |p: &str| tmp.path().join(p);
        std::fs::create_dir_all(at("usr/lib")).unwrap();
        std::os::unix::fs::symlink("/usr/lib", at("abs")).unwrap();
        std::os::unix::fs::symlink("../../../../usr", at("up")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("out")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        let root = Root::open(tmp.path()).unwrap();
        let make = |path: &[&[u8]]| root.dir(path, true);
        make_dir(make(&[b"abs"]).unwrap().as_fd(), b"one", 0o755).unwrap();
        make_dir(make(&[b"up", b"lib"]).unwrap().as_fd(), b"two", 0o755).unwrap();
        make_dir(make(&[b"out"]).unwrap().as_fd(), b"three", 0o755).unwrap();
        assert!(at("usr/lib/one").is_dir() && at("usr/lib/two").is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "nothing was made outside");
        let inside = tmp.path().join(outside.path().strip_prefix("/").unwrap()).join("three");
        assert!(inside.is_dir(), "{}", inside.display());
        assert!(make(&[b"loop", b"x"]).is_err());
    }
}
