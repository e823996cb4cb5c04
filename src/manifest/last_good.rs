//! Keeps the last accepted bytes of every manifest on disk. Touches `<root>/manifests/last-good/` only.
//!
//! A file that is broken while the agent is down must not cost its pod, so what was accepted survives the agent.
//! One record per manifest, named by the hash of the manifest's path; written to a temporary file, synced, renamed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const MAGIC: &str = "podstead-last-good-1";

/// Records could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the last good version of manifests, {}: {source}", path.display())]
pub(crate) struct LastGoodError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The directory of records.
#[derive(Debug)]
pub(crate) struct LastGood {
    directory: PathBuf,
    /// What a crash left may be taken away.
    tidy: bool,
}

impl LastGood {
    /// Under the agent's root directory; nothing is created yet.
    pub(crate) fn new(root: &Path) -> Self {
        Self { directory: root.join("manifests/last-good"), tidy: true }
    }

    /// The same for somebody who only looks: an agent may be writing.
    pub(crate) fn to_look_at(root: &Path) -> Self {
        Self { tidy: false, ..Self::new(root) }
    }

    /// All intact records: the manifest's path and its last good bytes. Damaged ones are logged and left out.
    pub(crate) fn load(&self) -> Result<Vec<(PathBuf, Vec<u8>)>, LastGoodError> {
        let mut records = Vec::new();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            Err(source) => return Err(self.error("reading", source)),
        };
        for entry in entries {
            let path = entry.map_err(|e| self.error("reading", e))?.path();
            if path.extension().is_some_and(|e| e == "tmp") {
                // Left by a crash in the middle of a write; never a record.
                if self.tidy {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            match fs::read(&path).map(|bytes| decode(&bytes)) {
                Ok(Some(record)) if self.record(&record.0) == path => records.push(record),
                Ok(_) => {
                    tracing::warn!(file = %path.display(), "a damaged record of a last good manifest is not used");
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "cannot read a last good manifest");
                }
            }
        }
        records.sort();
        Ok(records)
    }

    /// Writes a record durably.
    pub(crate) fn save(&self, manifest: &Path, bytes: &[u8]) -> Result<(), LastGoodError> {
        self.write(manifest, bytes).map_err(|e| self.error("writing", e))
    }

    fn write(&self, manifest: &Path, bytes: &[u8]) -> io::Result<()> {
        write_durably(&self.directory, &self.record(manifest), &encode(manifest, bytes))
    }

    /// Removes the record of a manifest that is gone.
    pub(crate) fn remove(&self, manifest: &Path) -> Result<(), LastGoodError> {
        match fs::remove_file(self.record(manifest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("removing", error)),
            _ => Ok(()),
        }
    }

    fn record(&self, manifest: &Path) -> PathBuf {
        let hash = Sha256::digest(manifest.as_os_str().as_bytes());
        self.directory.join(hex::encode(&hash[..16]))
    }

    fn error(&self, doing: &'static str, source: io::Error) -> LastGoodError {
        LastGoodError { doing, path: self.directory.clone(), source }
    }
}

/// Writes a file of mode 0600 so that after a crash it is the old or the new one, in a directory that is made if it has
/// to be.
pub(crate) fn write_durably(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// One header line (magic, path in hex, digest of the bytes), then the bytes as they were.
fn encode(manifest: &Path, bytes: &[u8]) -> Vec<u8> {
    let path = hex::encode(manifest.as_os_str().as_bytes());
    let mut out = format!("{MAGIC} {path} {}\n", hex::encode(Sha256::digest(bytes))).into_bytes();
    out.extend_from_slice(bytes);
    out
}

fn decode(record: &[u8]) -> Option<(PathBuf, Vec<u8>)> {
    let end = record.iter().position(|b| *b == b'\n')?;
    let header = std::str::from_utf8(&record[..end]).ok()?;
    let bytes = &record[end + 1..];
    let mut words = header.split(' ');
    if words.next()? != MAGIC {
        return None;
    }
    let path = hex::decode(words.next()?).ok()?;
    let intact = words.next()? == hex::encode(Sha256::digest(bytes));
    intact.then(|| (PathBuf::from(std::ffi::OsString::from_vec(path)), bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn records_survive_and_damage_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let store = LastGood::new(root.path());
        assert!(store.load().unwrap().is_empty());
        let (a, b) = (Path::new("/m/a b.yaml"), Path::new("/m/b.yaml"));
        store.save(a, b"one").unwrap();
        store.save(a, b"two\n").unwrap();
        store.save(b, b"").unwrap();
        assert_eq!(store.load().unwrap(), [(a.into(), b"two\n".to_vec()), (b.into(), Vec::new())]);
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.record(a)), mode(&store.directory)), (0o600, 0o700));

        let mut bytes = fs::read(store.record(a)).unwrap();
        *bytes.last_mut().unwrap() = b'!';
        fs::write(store.record(a), bytes).unwrap();
        fs::write(store.directory.join("half.tmp"), b"x").unwrap();
        assert_eq!(store.load().unwrap(), [(b.into(), Vec::new())]);
        store.remove(b).unwrap();
        store.remove(b).unwrap();
        assert!(store.load().unwrap().is_empty());
    }
}
