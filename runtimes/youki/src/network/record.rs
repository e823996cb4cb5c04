//! The record of what was set up for each sandbox: one JSON file per sandbox in a directory of the client's own.
//! It is written before the first plugin runs, so that whatever happens later can be undone with the same
//! configuration, even when the node's has changed. Touches that directory only.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Error,
    config::{ConfList, is_identifier},
    request::Attachment,
};

const FORMAT: u32 = 1;

/// What is known of one sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    /// What the plugins were told.
    pub attachment: Attachment,
    /// The configuration in use.
    pub list: ConfList,
    /// The last plugin's result; none while ADD is under way or when it was cut off.
    pub result: Option<Value>,
}

impl Record {
    pub(super) fn new(attachment: Attachment, list: ConfList) -> Self {
        Self { format: FORMAT, attachment, list, result: None }
    }

    /// Reads the record of `sandbox`; `None` when there is none.
    pub(super) fn load(dir: &Path, sandbox: &str) -> Result<Option<Self>, Error> {
        let path = file(dir, sandbox)?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { doing: "reading", path, source }),
        };
        let broken = |reason: String| Error::Record { path: path.clone(), reason };
        let record: Self = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        if record.format != FORMAT {
            return Err(broken(format!("its format is {}, not {FORMAT}", record.format)));
        }
        if record.attachment.sandbox != sandbox {
            return Err(broken(format!("it is of sandbox {:?}", record.attachment.sandbox)));
        }
        Ok(Some(record))
    }

    /// Writes the record so that after a crash either the old or the new one is there, whole.
    pub(super) fn store(&self, dir: &Path) -> Result<(), Error> {
        let path = file(dir, &self.attachment.sandbox)?;
        self.write(dir, &path).map_err(|source| Error::File { doing: "writing", path, source })
    }

    fn write(&self, dir: &Path, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut temp =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o600)).tempfile_in(dir)?;
        temp.write_all(&serde_json::to_vec(self)?)?;
        temp.as_file().sync_all()?;
        temp.persist(path)?;
        File::open(dir)?.sync_all()
    }

    /// Removes the record of `sandbox`; nothing to do is success.
    pub(super) fn remove(dir: &Path, sandbox: &str) -> Result<(), Error> {
        let path = file(dir, sandbox)?;
        match fs::remove_file(&path).and_then(|()| File::open(dir)?.sync_all()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { doing: "removing", path, source })
            }
            _ => Ok(()),
        }
    }

    /// The sandboxes that have a record, sorted.
    pub(super) fn list(dir: &Path) -> Result<Vec<String>, Error> {
        let failed = |source| Error::File { doing: "listing", path: dir.to_owned(), source };
        let entries = match dir.read_dir() {
            Ok(entries) => entries,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut sandboxes = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let sandbox = name.to_str().and_then(|name| name.strip_suffix(".json"));
            sandboxes.extend(sandbox.filter(|id| is_identifier(id)).map(str::to_owned));
        }
        sandboxes.sort();
        Ok(sandboxes)
    }
}

fn file(dir: &Path, sandbox: &str) -> Result<PathBuf, Error> {
    if is_identifier(sandbox) && sandbox.len() <= 128 {
        return Ok(dir.join(format!("{sandbox}.json")));
    }
    Err(Error::Request { sandbox: sandbox.to_owned(), reason: "its ID is not one".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_go() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("net");
        assert_eq!(Record::load(&dir, "s1").unwrap(), None);
        assert!(Record::list(&dir).unwrap().is_empty());
        Record::remove(&dir, "s1").unwrap();
        let list = ConfList::parse(br#"{"cniVersion":"1.0.0","name":"a","type":"b"}"#).unwrap();
        let attachment = Attachment { sandbox: "s1".into(), netns: "/run/x".into(), ..Attachment::default() };
        let mut record = Record::new(attachment, list);
        record.store(&dir).unwrap();
        record.result = Some(serde_json::json!({"ips": []}));
        record.store(&dir).unwrap();
        assert_eq!(Record::load(&dir, "s1").unwrap(), Some(record));
        assert_eq!(fs::metadata(dir.join("s1.json")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(Record::list(&dir).unwrap(), ["s1"]);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a temporary file was left");

        fs::copy(dir.join("s1.json"), dir.join("s2.json")).unwrap();
        assert!(matches!(Record::load(&dir, "s2"), Err(Error::Record { .. })));
        fs::write(dir.join("s1.json"), "{").unwrap();
        assert!(Record::load(&dir, "s1").unwrap_err().to_string().contains("s1.json"));
        Record::remove(&dir, "s1").unwrap();
        Record::remove(&dir, "s1").unwrap();
        assert!(Record::load(&dir, "../s1").is_err());
    }
}
