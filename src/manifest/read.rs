//! Reads the directory and its files. Touches the file system, never writes.
//!
//! Nothing here blocks on a pipe or a device: only regular files are opened, and those without blocking.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::parse::MAX_BYTES;
use super::trust::Trust;

/// What tells two versions of a file apart without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or_default()),
        }
    }

    /// When the content changed last.
    pub(crate) fn modified(&self) -> SystemTime {
        time(self.modified)
    }

    /// Whether whatever changes the file from `now` on gives it another stamp: its times are not of this very moment,
    /// nor of the future.
    pub(crate) fn rested(&self, now: SystemTime) -> bool {
        now.duration_since(time(self.modified.max(self.changed))).is_ok_and(|age| age >= COARSE)
    }
}

/// Longer than the steps in which file systems count time.
const COARSE: Duration = Duration::from_secs(2);

fn time((seconds, nanos): (i64, i64)) -> SystemTime {
    let nanos = Duration::from_nanos(nanos.unsigned_abs());
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = SystemTime::UNIX_EPOCH;
    let at = if seconds < 0 { base.checked_sub(whole) } else { base.checked_add(whole) };
    at.and_then(|at| at.checked_add(nanos)).unwrap_or(base)
}

/// A file's content. `None` for the stamp means that it changed while it was read.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) stamp: Option<Stamp>,
}

/// Why a file's content is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// No such name in the directory.
    #[error("the file is gone")]
    Gone,
    /// Exists, but is no regular file.
    #[error("{0} is not a manifest; only regular files are read")]
    NotRegular(&'static str),
    /// A link to `/dev/null`: the name is meant to give no pods.
    #[error("disabled by a link to /dev/null")]
    Disabled,
    /// Somebody may have written it who should not.
    #[error("{0}")]
    Untrusted(String),
    /// Exists, but cannot be read.
    #[error("cannot read the file: {0}")]
    Io(io::Error),
}

impl ReadError {
    /// The text for the file's report.
    pub(crate) fn at(&self, path: &Path) -> String {
        format!("{}: {self}", path.display())
    }
}

/// The names in a directory, sorted by their bytes.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Device and inode of a directory (symbolic links followed), to notice that it was replaced.
pub(crate) fn identity(directory: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::stat(directory)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(rustix::io::Errno::NOTDIR.into());
    }
    Ok((stat.st_dev, stat.st_ino))
}

/// What a path is; `None` when it does not exist. Symbolic links are followed.
pub(crate) fn kind(path: &Path) -> io::Result<Option<FileType>> {
    match rustix::fs::stat(path) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The stamp of a file as it stands, without opening it; `None` where only opening it tells.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let stat = rustix::fs::stat(path).ok()?;
    regular(&stat).is_ok().then(|| Stamp::of(&stat))
}

/// Reads a file; symbolic links are followed, as the kubelet follows them.
pub(crate) fn file(path: &Path, trust: &Trust) -> Result<Content, ReadError> {
    // Looked at before it is opened: opening a device can have effects.
    let own = rustix::fs::lstat(path).map_err(|error| missing(path, error))?;
    let link = FileType::from_raw_mode(own.st_mode) == FileType::Symlink;
    let stat = if link { rustix::fs::stat(path).map_err(|error| missing(path, error))? } else { own };
    if link && is_null(&stat) {
        return Err(ReadError::Disabled);
    }
    regular(&stat)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| missing(path, error))?;
    let stat = rustix::fs::fstat(&descriptor).map_err(|e| ReadError::Io(e.into()))?;
    regular(&stat)?;
    trust.judge(&descriptor, &stat, link.then_some(&own)).map_err(ReadError::Untrusted)?;
    read(descriptor, &stat)
}

fn is_null(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3)
}

fn read(descriptor: OwnedFd, stat: &Stat) -> Result<Content, ReadError> {
    let before = Stamp::of(stat);
    let mut file = File::from(descriptor);
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the parser sees that it is too large.
    io::Read::by_ref(&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    let after = rustix::fs::fstat(&file).map_err(|e| ReadError::Io(e.into()))?;
    let stamp = Some(before).filter(|before| *before == Stamp::of(&after));
    Ok(Content { bytes, stamp })
}

/// A name that does not resolve is gone only if the name itself is: a dangling symbolic link is unreadable.
fn missing(path: &Path, error: rustix::io::Errno) -> ReadError {
    if error == rustix::io::Errno::NOENT && matches!(rustix::fs::lstat(path), Err(rustix::io::Errno::NOENT)) {
        return ReadError::Gone;
    }
    ReadError::Io(error.into())
}

/// What a directory is called among manifests.
pub(crate) const DIRECTORY: &str = "a directory";

fn regular(stat: &Stat) -> Result<(), ReadError> {
    Err(ReadError::NotRegular(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => DIRECTORY,
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "this",
    }))
}

/// A name that begins with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."))
}

/// Why a name is not read: what editors and packagers leave behind. The kubelet reads these, and then runs
/// or stops the pod of a backup copy.
pub(crate) fn ignored(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.as_bytes();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|s| name.ends_with(s.as_bytes()));
    if ends(&["~", ".bak", ".orig"]) || (name.len() > 1 && name.starts_with(b"#") && name.ends_with(b"#")) {
        return Some("a backup copy");
    }
    // What `sed -i` writes beside the file before it renames it over that.
    let sed = name
        .strip_prefix(b"sed")
        .is_some_and(|rest| rest.len() == 6 && rest.iter().all(u8::is_ascii_alphanumeric));
    if sed || name == b"4913" || ends(&[".swp", ".swx", ".swo", ".tmp"]) {
        return Some("a temporary file");
    }
    let dpkg = name.windows(6).any(|w| w == b".dpkg-");
    if dpkg || ends(&[".rpmsave", ".rpmnew", ".rpmorig", ".ucf-old", ".ucf-new", ".ucf-dist"]) {
        return Some("a packager's copy");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_editors_and_packagers_leave_are_ignored() {
        for name in [
            "a.yaml~",
            "a.bak",
            "a.yaml.orig",
            "x.swp",
            "4913",
            "sedL7SbEV",
            "#a.yaml#",
            "a.tmp",
            "a.yaml.rpmsave",
            "a.yaml.rpmnew",
            "a.yaml.dpkg-old",
            "a.yaml.dpkg-new",
        ] {
            assert!(ignored(Path::new(name)).is_some(), "{name}");
        }
        for name in
            ["a.yaml", "a", "README", "4914", "#", "bak", "swp.yaml", "a.tmp.yaml", "sed", "sedan.yaml"]
        {
            assert!(ignored(Path::new(name)).is_none(), "{name}");
        }
        assert!(is_hidden(Path::new("/m/.a.yaml")) && !is_hidden(Path::new("/.m/a.yaml")));
    }
}
