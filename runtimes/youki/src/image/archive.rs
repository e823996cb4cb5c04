//! Reads what can be imported: an OCI layout directory, or an archive of one, or what `docker save` writes.
//!
//! Archives are streamed into numbered files of the working directory; no name in an archive becomes a path.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::disk::read_bounded;
use super::error::{Error, Result};
use super::inroot::{Root, components};
use super::layer::Decoder;
use super::limits::Limits;
use super::tarstream::TarStream;
use super::unpack::stream_error;

/// An image archive holds a few files per layer.
const MAX_FILES: usize = 10_000;
/// Docker archives name a layer they have already written by a link.
const MAX_LINKS: usize = 8;

/// Named contents.
pub(crate) enum Archive {
    Directory { root: Root, path: PathBuf },
    Staged { files: HashMap<String, PathBuf>, links: HashMap<String, String>, _dir: tempfile::TempDir },
}

impl Archive {
    /// Opens a directory in place, or streams a file into `work`. Blocks.
    pub(crate) fn open(source: &Path, work: &Path, limits: &Limits) -> Result<Self> {
        let meta = std::fs::metadata(source).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::NotFound { what: source.display().to_string(), place: "on disk".to_owned() }
            }
            _ => Error::io("examining", source, e),
        })?;
        if meta.is_dir() {
            let root = Root::open(source).map_err(|e| Error::io("opening", source, e))?;
            return Ok(Self::Directory { root, path: source.to_owned() });
        }
        let file = File::open(source).map_err(|e| Error::io("opening", source, e))?;
        let dir = tempfile::Builder::new().prefix("import-").tempdir_in(work);
        let dir = dir.map_err(|e| Error::io("making a directory in", work, e))?;
        let what = source.display().to_string();
        let broken = |e: std::io::Error| stream_error(&what, source, &e);
        let decoder = Decoder::new(BufReader::with_capacity(128 * 1024, file)).map_err(broken)?;
        let compressed = !matches!(decoder, Decoder::Plain(_));
        // An archive that is itself compressed is bounded like a layer; a plain one by its own size.
        let bound = if compressed { limits.unpacked(meta.len()) } else { meta.len().max(limits.layer_bytes) };
        stage(&what, source, decoder.take(bound), dir)
    }

    /// Opens a file by its name in the archive. Its size comes with it.
    pub(crate) fn file(&self, name: &str) -> Result<(File, u64)> {
        let missing = || Error::corrupt(name, "the archive does not hold it");
        let (file, place) = match self {
            Self::Directory { root, path } => {
                let opened = root.open_file(Path::new(name)).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => missing(),
                    _ => Error::io("opening", path.join(name), e),
                })?;
                (opened, path.join(name))
            }
            Self::Staged { files, links, .. } => {
                let mut name = name;
                for _ in 0..MAX_LINKS {
                    let Some(target) = links.get(name) else { break };
                    name = target;
                }
                let path = files.get(name).ok_or_else(missing)?;
                (File::open(path).map_err(|e| Error::io("opening", path, e))?, path.clone())
            }
        };
        let meta = file.metadata().map_err(|e| Error::io("examining", place, e))?;
        if meta.is_file() {
            Ok((file, meta.len()))
        } else {
            Err(Error::corrupt(name, "it is not a regular file"))
        }
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.file(name).is_ok()
    }

    /// Reads a small file whole.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let (file, _) = self.file(name)?;
        read_bounded(name, Path::new(name), file, limit)
    }
}

fn stage(what: &str, source: &Path, reader: impl Read, dir: tempfile::TempDir) -> Result<Archive> {
    let broken = |e: std::io::Error| stream_error(what, source, &e);
    let (mut files, mut links) = (HashMap::new(), HashMap::new());
    let mut tar = TarStream::new(reader);
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        if files.len() + links.len() >= MAX_FILES {
            return Err(Error::corrupt(what, format!("it holds more than {MAX_FILES} files")));
        }
        let Some(name) = plain_name(&entry.path) else { continue };
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                let path = dir.path().join(files.len().to_string());
                copy(&mut tar, &path, what, source)?;
                links.remove(&name);
                files.insert(name, path);
            }
            EntryType::Symlink | EntryType::Link => {
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                let base = if entry.kind == EntryType::Link { "" } else { parent(&name) };
                if let Some(target) = resolve(base, &target) {
                    links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    Ok(Archive::Staged { files, links, _dir: dir })
}

fn copy(tar: &mut impl Read, path: &Path, what: &str, source: &Path) -> Result<()> {
    use std::io::Write;
    let mut file = File::create_new(path).map_err(|e| Error::io("making", path, e))?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let n = tar.read(&mut buffer).map_err(|e| stream_error(what, source, &e))?;
        if n == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..n]).map_err(|e| Error::io("writing", path, e))?;
    }
}

fn plain_name(path: &[u8]) -> Option<String> {
    let parts = components(path)?;
    String::from_utf8(parts.join(&b'/')).ok().filter(|name| !name.is_empty())
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Resolves a link's target by its text alone: it selects among names of the archive, never a path of the host.
fn resolve(base: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_select_names_of_the_archive() {
        assert_eq!(resolve("abc", "../def/layer.tar"), Some("def/layer.tar".to_owned()));
        assert_eq!(resolve("abc", "../../etc/passwd"), None);
    }
}
