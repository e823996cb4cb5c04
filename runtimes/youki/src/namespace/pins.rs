//! The files namespaces are bound to: creates, mounts, unmounts and removes `net`, `ipc`, `uts`, `pid` and `user` in one
//! directory, relative to its descriptor, never through a symbolic link.

use std::{
    fs::DirBuilder,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, fchmod, fstat, fstatfs, open, openat, unlinkat},
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
};

use super::Error;

/// `NSFS_MAGIC` of linux/magic.h: the file system that namespace files live on.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The names of the files, which are also those in `/proc/<pid>/ns`.
pub(super) const KINDS: [&str; 3] = ["net", "ipc", "uts"];

/// The pid namespace's file; it needs a process inside, so it is bound to another's.
pub(super) const PID: &str = "pid";

/// The user namespace's file, of pods that have one of their own.
pub(super) const USER: &str = "user";

/// An open directory of pins.
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens `path`, which must not be a symbolic link. `None` when it does not exist.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: path.to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(file_error("opening", path, errno)),
        }
    }

    /// Makes `path` when it is missing; afterwards it is the caller's own and 0700.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| Error::File {
            doing: "creating directory",
            path: path.to_owned(),
            source,
        })?;
        let dir = Self::open(path)?.ok_or_else(|| file_error("opening", path, Errno::NOENT))?;
        let stat = fstat(&dir.fd).map_err(|errno| file_error("reading the owner of", path, errno))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(file_error("using a directory of another user:", path, Errno::PERM));
        }
        if stat.st_mode & 0o777 != 0o700 {
            fchmod(&dir.fd, Mode::RWXU).map_err(|errno| file_error("setting the mode of", path, errno))?;
        }
        Ok(dir)
    }

    /// Whether a namespace is bound to the file `name`.
    pub(super) fn is_pinned(&self, name: &str) -> Result<bool, Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => is_namespace(&fd).map_err(|errno| file_error("reading", &self.path.join(name), errno)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(file_error("opening", &self.path.join(name), errno)),
        }
    }

    /// Binds the calling thread's namespace of this kind to a new file of that name.
    pub(super) fn bind_own(&self, name: &str) -> Result<(), Error> {
        self.bind(name, &format!("/proc/thread-self/ns/{name}"))
    }

    /// Binds the namespace behind `source` to a new file of that name.
    pub(super) fn bind(&self, name: &str, source: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| file_error("creating", &path, errno))?;
        // By descriptor, so that nothing can be put in the file's place between the two calls.
        let target = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        mount_bind(source, target).map_err(|errno| file_error("binding a namespace to", &path, errno))
    }

    /// Unmounts and removes the file `name`; nothing to do is success.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let target = format!("/proc/thread-self/fd/{}/{name}", self.fd.as_raw_fd());
        loop {
            match unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                // Mounts may lie on top of each other.
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(errno) => return Err(file_error("unmounting", &self.path.join(name), errno)),
            }
        }
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(file_error("removing", &self.path.join(name), errno)),
        }
    }

    /// Removes every pin; goes on after a failure and reports the first.
    pub(super) fn remove_all(&self) -> Result<(), Error> {
        let all = KINDS.into_iter().chain([PID, USER]);
        let results: Vec<_> = all.map(|kind| self.remove(kind)).collect();
        results.into_iter().collect()
    }
}

/// Whether the descriptor is one of a namespace.
pub(super) fn is_namespace(fd: &OwnedFd) -> Result<bool, Errno> {
    // f_type is signed or not depending on the architecture; the value fits both.
    #[allow(clippy::cast_sign_loss, clippy::cast_lossless, clippy::unnecessary_cast)]
    fstatfs(fd).map(|found| found.f_type as u64 == NSFS_MAGIC)
}

pub(super) fn file_error(doing: &'static str, path: &Path, errno: Errno) -> Error {
    Error::File { doing, path: path.to_owned(), source: io::Error::from(errno) }
}
