//! The last good document of a URL on disk, for a start without network. Touches `<root>/manifests/last-good-url/` only.
//!
//! One record for each URL: a line of JSON about the document, then its bytes. Mode 0600, synced, renamed into place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::last_good::write_durably;

/// Records could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the last good document of a URL, {}: {source}", path.display())]
pub(crate) struct StoreError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A good document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// As it is shown.
    pub(crate) url: String,
    /// When it was first fetched.
    pub(crate) fetched: Timestamp,
    /// A pod of it was another source's when it was saved, or that was not known yet: it was not the first to claim it.
    pub(crate) second: bool,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    url: String,
    fetched: Timestamp,
    second: bool,
    sha256: String,
}

/// What is on disk.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The URL's record, if it is whole.
    pub(crate) record: Option<Record>,
    /// There are others, or damaged ones: pods of theirs may run.
    pub(crate) others: bool,
}

/// The directory of records.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Under the agent's root directory; nothing is created yet.
    pub(crate) fn new(root: &Path) -> Self {
        Self { directory: root.join("manifests/last-good-url") }
    }

    fn path(&self, url: &str) -> PathBuf {
        self.directory.join(hex::encode(&Sha256::digest(url)[..16]))
    }

    fn names(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        }
    }

    /// Looks what there is. Damage is logged.
    pub(crate) fn load(&self, url: &str) -> Loaded {
        let own = self.path(url);
        let names = self.names().unwrap_or_else(|error| {
            tracing::warn!(directory = %self.directory.display(), %error, "cannot read last good documents");
            vec![PathBuf::new()]
        });
        let others = names.iter().any(|path| *path != own && path.extension().is_none());
        if !names.contains(&own) {
            return Loaded { record: None, others };
        }
        match fs::read(&own).map(|bytes| decode(&bytes)) {
            Ok(Some(record)) if record.url == url => Loaded { record: Some(record), others },
            Ok(_) => {
                tracing::warn!(file = %own.display(), "a damaged last good document is not used");
                Loaded { record: None, others: true }
            }
            Err(error) => {
                tracing::warn!(file = %own.display(), %error, "cannot read the last good document");
                Loaded { record: None, others: true }
            }
        }
    }

    /// Writes a record durably.
    pub(crate) fn save(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.path(&record.url);
        let error = |source| StoreError { doing: "writing", path: path.clone(), source };
        let bytes = encode(record).map_err(|e| error(io::Error::other(e)))?;
        write_durably(&self.directory, &path, &bytes).map_err(error)
    }

    /// Removes all records but that of this URL.
    pub(crate) fn forget_others(&self, url: Option<&str>) -> Result<(), StoreError> {
        let own = url.map(|url| self.path(url));
        let error = |source| StoreError { doing: "removing", path: self.directory.clone(), source };
        for path in self.names().map_err(error)? {
            if Some(&path) != own.as_ref() {
                fs::remove_file(&path).map_err(error)?;
            }
        }
        Ok(())
    }
}

fn encode(record: &Record) -> serde_json::Result<Vec<u8>> {
    let header = Header {
        version: 1,
        url: record.url.clone(),
        fetched: record.fetched,
        second: record.second,
        sha256: hex::encode(Sha256::digest(&record.bytes)),
    };
    let mut all = serde_json::to_vec(&header)?;
    all.push(b'\n');
    all.extend_from_slice(&record.bytes);
    Ok(all)
}

fn decode(all: &[u8]) -> Option<Record> {
    let end = all.iter().position(|byte| *byte == b'\n')?;
    let header: Header = serde_json::from_slice(&all[..end]).ok()?;
    let bytes = all[end + 1..].to_vec();
    let whole = header.version == 1 && header.sha256 == hex::encode(Sha256::digest(&bytes));
    whole.then_some(Record { url: header.url, fetched: header.fetched, second: header.second, bytes })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_document_survives_and_damage_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let loaded = store.load("http://a/");
        assert!(loaded.record.is_none() && !loaded.others);
        let fetched = Timestamp::from_second(1_700_000_000).unwrap();
        let record = Record { url: "http://a/".into(), fetched, second: false, bytes: b"one\ntwo".to_vec() };
        store.save(&record).unwrap();
        let loaded = store.load("http://a/");
        assert_eq!((loaded.record, loaded.others), (Some(record.clone()), false));
        let loaded = store.load("http://b/");
        assert!(loaded.record.is_none() && loaded.others);
        let path = store.path("http://a/");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let directory = fs::metadata(&store.directory).unwrap();
        assert_eq!(directory.permissions().mode() & 0o777, 0o700);

        store.save(&Record { url: "http://b/".into(), ..record }).unwrap();
        store.forget_others(Some("http://a/")).unwrap();
        assert!(store.load("http://b/").record.is_none());
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() = b'!';
        fs::write(&path, bytes).unwrap();
        let loaded = store.load("http://a/");
        assert!(loaded.record.is_none() && loaded.others, "pods of it may run");
        store.forget_others(None).unwrap();
        assert!(!store.load("http://a/").others);
    }
}
