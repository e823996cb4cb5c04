//! One configured path: a directory with manifests, or a single one. Reads the directory, and the links on the way there.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use super::desired::{SourceError, SourceKind, SourceReport};
use super::read;
use super::tracked::Now;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Directory,
    SingleFile,
}

/// What a reading of the path found.
#[derive(Debug)]
pub(crate) enum Listing {
    /// These files, sorted by their names' bytes.
    Files(Vec<PathBuf>),
    /// Nothing is there, and nothing is known that could be missed.
    Absent,
    /// It cannot be told; the error is noted.
    Unreadable,
}

/// A place to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) directory: PathBuf,
    /// Just this name within it.
    pub(crate) only: Option<OsString>,
    /// The name is a step of the way to manifests: when it moves, everything is watched anew.
    pub(crate) way: bool,
    /// Device and inode.
    identity: (u64, u64),
}

/// A configured path and what is known of it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    shape: Option<Shape>,
    /// What the path was in an earlier life; used only while it cannot be looked at.
    pub(crate) remembered: Option<Shape>,
    /// The file system on which files were seen last.
    device: Option<u64>,
    error: Option<SourceError>,
    /// Read as a whole at least once, or known to be absent.
    pub(crate) read: bool,
    absent: bool,
}

impl Place {
    /// `path` absolute.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, shape: None, remembered: None, device: None, error: None, read: false, absent: false }
    }

    /// Whether a file is one of this place's.
    pub(crate) fn owns(&self, file: &Path) -> bool {
        match self.shape.or(self.remembered) {
            Some(Shape::Directory) => file.parent() == Some(&self.path),
            Some(Shape::SingleFile) => file == self.path,
            None => false,
        }
    }

    /// Whether it is a directory, so that names that nobody means for manifests are left out.
    pub(crate) fn is_directory(&self) -> bool {
        self.shape.or(self.remembered) == Some(Shape::Directory)
    }

    /// What the path is; once known it stays, so that a directory that turns into something else is an error.
    fn shape(&mut self) -> io::Result<Shape> {
        if let Some(shape) = self.shape {
            return Ok(shape);
        }
        let shape = match (read::kind(&self.path)?, self.remembered) {
            (Some(FileType::Directory), _) => Shape::Directory,
            (Some(FileType::RegularFile), _) => Shape::SingleFile,
            (Some(_), _) => return Err(io::Error::other("neither a directory nor a regular file")),
            // A single file may have been removed while no agent ran.
            (None, Some(Shape::SingleFile)) => return Ok(Shape::SingleFile),
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        self.shape = Some(shape);
        Ok(shape)
    }

    /// Lists it. `known`: pods of files of this place are known. `optional`: there are other sources, so that it may be
    /// absent.
    pub(crate) fn list(&mut self, known: bool, optional: bool, now: Now) -> Listing {
        self.absent = false;
        match self.names(known) {
            Ok(files) => {
                self.error = None;
                self.read = true;
                Listing::Files(files)
            }
            Err(error) if optional && !known && error.kind() == io::ErrorKind::NotFound => {
                self.error = None;
                (self.read, self.absent) = (true, true);
                Listing::Absent
            }
            Err(error) => {
                let since = self.error.as_ref().map_or(now.stamp, |e| e.since);
                self.error = Some(SourceError { path: self.path.clone(), message: error.to_string(), since });
                Listing::Unreadable
            }
        }
    }

    fn names(&mut self, known: bool) -> io::Result<Vec<PathBuf>> {
        match self.shape()? {
            Shape::Directory => {
                let (device, _) = read::identity(&self.path)?;
                let names = read::list(&self.path)?;
                if !names.is_empty() || !known {
                    self.device = Some(device);
                } else if self.device.is_some_and(|before| before != device) {
                    return Err(io::Error::other(
                        "it is empty, and on another file system than the manifests were, as if something were not \
                         mounted; put a file there, even a hidden one, if it is meant to be empty",
                    ));
                }
                Ok(names)
            }
            Shape::SingleFile => {
                // Only if its directory can be read is an absent file really gone.
                let parent = self.path.parent().unwrap_or(Path::new("/"));
                let present = read::list(parent)?.contains(&self.path);
                Ok(if present { vec![self.path.clone()] } else { Vec::new() })
            }
        }
    }

    /// Where something must be noticed: the directory, and every link or missing step on the way to it.
    pub(crate) fn spots(&mut self) -> Vec<Spot> {
        let single = matches!(self.shape(), Ok(Shape::SingleFile));
        let parent = self.path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let directory = if single { &parent } else { &self.path };
        let mut spots: Vec<Spot> = way(directory)
            .into_iter()
            .filter_map(|(directory, name)| Spot::new(directory, Some(name), true))
            .collect();
        let only = if single { self.path.file_name().map(ToOwned::to_owned) } else { None };
        spots.extend(Spot::new(directory.clone(), only, false));
        spots
    }

    /// Makes it seem that files were seen on another file system.
    #[cfg(test)]
    pub(crate) fn on_another_device(&mut self) {
        self.device = Some(u64::MAX);
    }

    pub(crate) fn report(&self) -> SourceReport {
        let kind = match self.shape.or(self.remembered) {
            _ if self.absent => SourceKind::Missing,
            Some(Shape::Directory) => SourceKind::Directory,
            Some(Shape::SingleFile) => SourceKind::File,
            None => SourceKind::Unknown,
        };
        SourceReport { name: self.path.clone(), kind, error: self.error.clone(), document: None }
    }
}

impl Spot {
    /// `None` when the directory is none now.
    fn new(directory: PathBuf, only: Option<OsString>, way: bool) -> Option<Self> {
        let identity = read::identity(&directory).ok()?;
        Some(Self { directory, only, way, identity })
    }
}

/// More links than the kernel follows.
const LINKS: u32 = 40;

/// The links on the way to a path, and the first step that is missing, each with the directory it lies in.
fn way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut found = Vec::new();
    let mut links = 0;
    let mut here = PathBuf::from("/");
    let mut todo = steps(path);
    while let Some(step) = todo.pop() {
        if step == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&step);
        match rustix::fs::lstat(&next).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Symlink) => {
                found.push((here.clone(), step));
                links += 1;
                let Ok(target) = std::fs::read_link(&next) else { break };
                if links > LINKS {
                    break;
                }
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                todo.extend(steps(&target));
            }
            Ok(_) => here = next,
            Err(rustix::io::Errno::NOENT) => {
                found.push((here, step));
                break;
            }
            Err(_) => break,
        }
    }
    found
}

/// The names of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_the_first_missing_step_are_on_the_way() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("gen-1/sub")).unwrap();
        symlink("gen-1", base.join("now")).unwrap();
        symlink("../now/sub", base.join("gen-1/other")).unwrap();
        assert_eq!(way(&base.join("gen-1/sub")), []);
        assert_eq!(way(&base.join("now/sub")), [(base.clone(), "now".into())]);
        let through = [(base.join("gen-1"), "other".into()), (base.clone(), "now".into())];
        assert_eq!(way(&base.join("gen-1/other")), through);
        assert_eq!(way(&base.join("now/no/further"))[1], (base.join("gen-1"), "no".into()));
        symlink("loop", base.join("loop")).unwrap();
        assert!(way(&base.join("loop")).len() > 40);
    }
}
