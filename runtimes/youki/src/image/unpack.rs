//! Applies the entries of one layer to an empty directory, in the form overlayfs wants a lower layer to have.
//! Touches only what is below that directory.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::error::{Error, Result};
use super::inroot::{self, Root, components, lstat, make_dir, open_subdir};
use super::limits::Limits;
use super::tarstream::{Entry, TarStream};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that old union file systems kept for themselves.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// A directory being filled from a layer.
pub(crate) struct Unpacker<'a> {
    root: Root,
    /// Name of the layer and its place, for errors.
    what: &'a str,
    place: &'a Path,
    /// The directory the last entry was put in; most entries follow a sibling.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set at the end because every new entry changes them; and bytes that more of them may take.
    times: HashMap<Vec<u8>, (i64, u32)>,
    times_left: u64,
    entries_left: u64,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    /// `place` is an existing, empty directory that nobody else writes to.
    pub(crate) fn new(what: &'a str, place: &'a Path, limits: &Limits) -> Result<Self> {
        let root = Root::open(place).map_err(|e| Error::io("opening", place, e))?;
        rustix::fs::fchmod(root.fd(), Mode::from_raw_mode(0o755))
            .map_err(|e| Error::io("setting the mode of", place, e))?;
        let buffer = vec![0; 128 * 1024];
        Ok(Self {
            root,
            what,
            place,
            last_parent: None,
            times: HashMap::new(),
            times_left: limits.layer_paths,
            entries_left: limits.layer_entries,
            buffer,
        })
    }

    /// Applies all entries of the stream.
    pub(crate) fn run<R: Read>(&mut self, tar: &mut TarStream<R>) -> Result<()> {
        while let Some(entry) = tar.next_entry().map_err(|e| self.bad_stream(&e))? {
            let Some(left) = self.entries_left.checked_sub(1) else {
                return Err(Error::corrupt(self.what, "it has more entries than the configured limit"));
            };
            self.entries_left = left;
            self.apply(&entry, tar)?;
        }
        for (path, mtime) in std::mem::take(&mut self.times) {
            // A directory that a later entry replaced has no time to set.
            if let Ok(dir) = self.directory(&path) {
                let _ = rustix::fs::futimens(&dir, &times(mtime));
            }
        }
        Ok(())
    }

    fn apply<R: Read>(&mut self, entry: &Entry, tar: &mut TarStream<R>) -> Result<()> {
        let fail = |e: io::Error| self.refusal(entry, &e);
        let path = components(&entry.path).ok_or_else(|| {
            let reason =
                format!("entry \"{}\" leads out of the layer or is too long", entry.path.escape_ascii());
            Error::corrupt(self.what, reason)
        })?;
        let Some((name, parents)) = path.split_last() else {
            return match entry.kind {
                EntryType::Directory => {
                    let root = self.root.dir(&[], false).map_err(fail)?;
                    self.finish_dir(entry, &root, &[]).map_err(|e| self.refusal(entry, &e))
                }
                _ => Err(fail(Errno::ISDIR.into())),
            };
        };
        let parent = self.parent(parents).map_err(|e| self.refusal(entry, &e))?;
        let done = if name.starts_with(WHITEOUT) {
            Self::whiteout(&parent, name)
        } else if matches!(entry.kind, EntryType::Regular | EntryType::Continuous) {
            // Its own path: reading the archive and writing the file fail for different reasons.
            let result = self.file(entry, &parent, name, tar);
            self.last_parent = Some((parents.join(&b'/'), parent));
            return result;
        } else {
            self.other(entry, &parent, name, &path)
        };
        // A link or a replaced directory may change where a path leads; otherwise the parent stays good.
        if matches!(entry.kind, EntryType::Link | EntryType::Fifo) && done.is_ok() {
            self.last_parent = Some((parents.join(&b'/'), parent));
        }
        done.map_err(|e| self.refusal(entry, &e))
    }

    /// The directory an entry goes into. Takes the cached one away; who keeps it valid puts it back.
    fn parent(&mut self, parents: &[&[u8]]) -> io::Result<OwnedFd> {
        match self.last_parent.take() {
            Some((path, fd)) if path == parents.join(&b'/') => Ok(fd),
            _ => self.root.dir(parents, true),
        }
    }

    fn directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = components(path).ok_or(Errno::INVAL)?;
        let Some((name, parents)) = path.split_last() else { return self.root.dir(&[], false) };
        open_subdir(self.root.dir(parents, false)?.as_fd(), name)
    }

    /// OCI image-spec, layer.md, "Whiteouts": they speak of lower layers only, never of this one.
    fn whiteout(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if name == OPAQUE {
            return inroot::set_opaque(parent);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Errno::INVAL.into());
        }
        match lstat(parent.as_fd(), hidden)? {
            None => {
                let mode = Mode::from_raw_mode(0o600);
                Ok(rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, mode, 0)?)
            }
            // This layer's own directory stays, but shows nothing from below.
            Some(stat) if inroot::kind_of(&stat) == FileType::Directory => {
                inroot::set_opaque(open_subdir(parent.as_fd(), hidden)?)
            }
            // This layer's own file hides the lower one already.
            Some(_) => Ok(()),
        }
    }

    /// Removes what an earlier entry of the same layer put here: the later one wins.
    fn make_room(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match lstat(parent.as_fd(), name)? {
            Some(stat) => inroot::remove(parent.as_fd(), name, &stat),
            None => Ok(()),
        }
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        tar: &mut TarStream<R>,
    ) -> Result<()> {
        let create = || -> io::Result<std::fs::File> {
            Self::make_room(parent, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?.into())
        };
        let mut file = create().map_err(|e| self.refusal(entry, &e))?;
        loop {
            let n = tar.read(&mut self.buffer).map_err(|e| self.bad_stream(&e))?;
            if n == 0 {
                break;
            }
            file.write_all(&self.buffer[..n]).map_err(|e| self.refusal(entry, &e))?;
        }
        let finish = || -> io::Result<()> {
            // Owner first: a change of owner takes away setuid bits and capabilities.
            let (uid, gid) = owner(entry)?;
            rustix::fs::fchown(&file, uid, gid)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
            set_xattrs(entry, &file)?;
            Ok(rustix::fs::futimens(&file, &times(entry.mtime))?)
        };
        finish().map_err(|e| self.refusal(entry, &e))
    }

    fn other(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8], path: &[&[u8]]) -> io::Result<()> {
        match entry.kind {
            EntryType::Directory => self.make_directory(entry, parent, name, path),
            EntryType::Link => self.hard_link(entry, parent, name, path),
            EntryType::Symlink => {
                Self::make_room(parent, name)?;
                rustix::fs::symlinkat(entry.link.as_slice(), parent, name)?;
                Self::finish_node(entry, parent, name)
            }
            EntryType::Char => Self::node(entry, parent, name, FileType::CharacterDevice),
            EntryType::Block => Self::node(entry, parent, name, FileType::BlockDevice),
            EntryType::Fifo => Self::node(entry, parent, name, FileType::Fifo),
            // Refused rather than left out: a layer is whole or not at all.
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn make_directory(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        path: &[&[u8]],
    ) -> io::Result<()> {
        let dir = match lstat(parent.as_fd(), name)? {
            Some(stat) if inroot::kind_of(&stat) == FileType::Directory => open_subdir(parent.as_fd(), name)?,
            Some(stat) => {
                inroot::remove(parent.as_fd(), name, &stat)?;
                let made = make_dir(parent.as_fd(), name, 0o755)?;
                if inroot::is_whiteout(&stat) {
                    inroot::set_opaque(&made)?;
                }
                made
            }
            None => make_dir(parent.as_fd(), name, 0o755)?,
        };
        self.finish_dir(entry, &dir, path)
    }

    fn finish_dir(&mut self, entry: &Entry, dir: &OwnedFd, path: &[&[u8]]) -> io::Result<()> {
        let (uid, gid) = owner(entry)?;
        rustix::fs::fchown(dir, uid, gid)?;
        rustix::fs::fchmod(dir, Mode::from_raw_mode(entry.mode))?;
        set_xattrs(entry, dir)?;
        let path = path.join(&b'/');
        let bytes = (path.len() + size_of::<(Vec<u8>, (i64, u32))>()) as u64;
        if self.times.insert(path, entry.mtime).is_none() {
            let reason = "the paths of its directories are more bytes than the configured limit";
            let left = self.times_left.checked_sub(bytes);
            self.times_left = left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        }
        Ok(())
    }

    fn hard_link(&self, entry: &Entry, parent: &OwnedFd, name: &[u8], path: &[&[u8]]) -> io::Result<()> {
        let target = components(&entry.link).ok_or(Errno::XDEV)?;
        if target == path {
            return Ok(());
        }
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(Errno::ISDIR.into());
        };
        let from = self.root.dir(target_parents, false)?;
        let stat = lstat(from.as_fd(), target_name)?.ok_or(Errno::NOENT)?;
        if inroot::kind_of(&stat) == FileType::Directory {
            return Err(Errno::ISDIR.into());
        }
        Self::make_room(parent, name)?;
        // Without AT_SYMLINK_FOLLOW a link is linked itself, not what it points to.
        Ok(rustix::fs::linkat(&from, *target_name, parent, name, AtFlags::empty())?)
    }

    fn node(entry: &Entry, parent: &OwnedFd, name: &[u8], kind: FileType) -> io::Result<()> {
        Self::make_room(parent, name)?;
        let (major, minor) = if kind == FileType::Fifo { (0, 0) } else { entry.device };
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
        Self::finish_node(entry, parent, name)
    }

    fn finish_node(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let (uid, gid) = owner(entry)?;
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if entry.kind != EntryType::Symlink {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// A failure to read the archive: its fault, unless the disk below it failed.
    fn bad_stream(&self, error: &io::Error) -> Error {
        stream_error(self.what, self.place, error)
    }

    /// A failure to apply an entry: the archive's fault when the name or the order of entries makes it impossible.
    fn refusal(&self, entry: &Entry, error: &io::Error) -> Error {
        let path = entry.path.escape_ascii();
        if error.raw_os_error().is_none() && error.kind() == io::ErrorKind::InvalidData {
            return Error::corrupt(self.what, error.to_string());
        }
        let code = error.raw_os_error();
        if code.map(Errno::from_raw_os_error).is_some_and(|e| IMPOSSIBLE.contains(&e)) {
            return Error::corrupt(self.what, format!("entry \"{path}\" cannot be applied: {error}"));
        }
        let source = code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
        Error::io(format!("unpacking entry \"{path}\" of {} into", self.what), self.place, source)
    }
}

/// Failures that only the archive's own names and order of entries bring about.
const IMPOSSIBLE: [Errno; 9] = [
    Errno::NAMETOOLONG,
    Errno::INVAL,
    Errno::NOTDIR,
    Errno::LOOP,
    Errno::NOENT,
    Errno::EXIST,
    Errno::ISDIR,
    Errno::MLINK,
    Errno::XDEV,
];

/// Tells a malformed stream from a disk that cannot be read.
pub(crate) fn stream_error(what: &str, place: &Path, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(code) => Error::io(format!("reading {what} for"), place, io::Error::from_raw_os_error(code)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Error::corrupt(what, "it ends too early"),
        None => Error::corrupt(what, error.to_string()),
    }
}

fn owner(entry: &Entry) -> io::Result<(Option<Uid>, Option<Gid>)> {
    // 2^32-1 means "leave as it is" to chown and is nobody's id.
    let id = |n: u64| u32::try_from(n).ok().filter(|n| *n != u32::MAX).ok_or(Errno::INVAL);
    Ok((Some(Uid::from_raw(id(entry.uid)?)), Some(Gid::from_raw(id(entry.gid)?))))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets the attributes an image may bring: file capabilities and the user's own. Everything else, overlayfs's
/// marks above all, is for the host to decide and left out.
fn set_xattrs(entry: &Entry, file: impl AsFd) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        let capability = name == b"security.capability";
        if !capability && (!name.starts_with(b"user.") || name.starts_with(b"user.overlay.")) {
            tracing::debug!(xattr = %name.escape_ascii(), entry = %entry.path.escape_ascii(), "attribute left out");
            continue;
        }
        match rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {
                tracing::warn!(xattr = %name.escape_ascii(), entry = %entry.path.escape_ascii(),
                    "the store's file system has no such attributes; put it on one that has");
            }
            other => other?,
        }
    }
    Ok(())
}
