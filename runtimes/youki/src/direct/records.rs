//! Records of sandboxes and containers: what was asked for, on disk. Reads and writes the runtime's own directories.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use podstead_runtime::{SandboxSpec, Time, labels};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Inner;
use super::pods::gone;
use crate::shim::files::{read_json, write_json};
use crate::shim::protocol::kept;

/// A sandbox's record exists when this file does; before, [`kept::MAKING`] has the same content.
pub(crate) const SANDBOX: &str = "sandbox.json";

/// A sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub id: String,
    pub spec: SandboxSpec,
    pub created_at: Time,
    #[serde(default)]
    pub ips: Vec<std::net::IpAddr>,
    /// Its network is given back and nothing runs in it.
    #[serde(default)]
    pub stopped: bool,
    /// It is being stopped: no container may be made in it any more.
    #[serde(default)]
    pub stopping: bool,
}

impl SandboxRecord {
    /// Whether containers may be made in it.
    pub(crate) fn takes_containers(&self) -> bool {
        !self.stopped && !self.stopping
    }
}

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    pub attempt: u32,
    /// As the user wrote it.
    pub image: String,
    pub image_id: String,
    /// Ids of the images that are mounted into it.
    #[serde(default)]
    pub mounted_images: Vec<String>,
    pub created_at: Time,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub log_path: PathBuf,
    pub stop_signal: i32,
    pub cgroup: String,
}

/// Labels tell whose something is.
pub(crate) fn is_owned(labels: &BTreeMap<String, String>, owner: &str) -> bool {
    labels.get(labels::OWNER).is_some_and(|mark| mark == owner)
}

/// Containers' records, which never change once they are there.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<String, Arc<ContainerRecord>>>);

/// Ids are 64 hexadecimal digits; anything else in our directories, or from a caller, is no id and no path.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A new id.
pub(crate) fn new_id() -> io::Result<String> {
    let mut bytes = [0; 32];
    let mut source = fs::File::open("/dev/urandom")?;
    io::Read::read_exact(&mut source, &mut bytes)?;
    Ok(hex::encode(bytes))
}

/// The ids that have a directory here.
pub(crate) fn ids(dir: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string()
            && is_id(&name)
        {
            ids.push(name);
        }
    }
    Ok(ids)
}

fn read<T: DeserializeOwned>(dir: &Path, file: &str) -> io::Result<Option<T>> {
    read_json(&dir.join(file))
}

impl Inner {
    /// The record of a sandbox, whole or half-made (`false`).
    pub(crate) fn sandbox(&self, id: &str) -> io::Result<Option<(SandboxRecord, bool)>> {
        if !is_id(id) {
            return Ok(None);
        }
        let dir = self.layout.sandbox(id);
        if let Some(record) = read(&dir, SANDBOX)? {
            return Ok(Some((record, true)));
        }
        Ok(read(&dir, kept::MAKING)?.map(|record| (record, false)))
    }

    /// Changes the record of a sandbox, if it is there. The caller alone changes it now.
    pub(crate) fn change_sandbox(&self, id: &str, change: impl FnOnce(&mut SandboxRecord)) -> io::Result<()> {
        let Some((mut record, whole)) = self.sandbox(id)? else { return Ok(()) };
        change(&mut record);
        let file = if whole { SANDBOX } else { kept::MAKING };
        // A removal by another process may be ahead of us.
        gone(write_json(&self.layout.sandbox(id).join(file), &record))
    }

    /// All sandboxes, also half-made ones and others'.
    pub(crate) fn sandboxes(&self) -> io::Result<Vec<(SandboxRecord, bool)>> {
        let mut all = Vec::new();
        if self.images.is_none() {
            return Ok(all);
        }
        for id in ids(&self.layout.sandboxes())? {
            all.extend(self.sandbox(&id)?);
        }
        Ok(all)
    }

    /// The record of a container that was made; `None` when there is none.
    pub(crate) fn container(&self, id: &str) -> io::Result<Option<Arc<ContainerRecord>>> {
        if !is_id(id) {
            return Ok(None);
        }
        let path = self.layout.container(id).join(kept::RECORD);
        let cache = || self.records.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.exists() {
            cache().remove(id);
            return Ok(None);
        }
        if let Some(known) = cache().get(id) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(record) = read_json::<ContainerRecord>(&path)?.map(Arc::new) else { return Ok(None) };
        cache().insert(id.to_owned(), Arc::clone(&record));
        Ok(Some(record))
    }

    /// All containers that were made, also others'.
    pub(crate) fn containers(&self) -> io::Result<Vec<Arc<ContainerRecord>>> {
        let mut all = Vec::new();
        if self.images.is_none() {
            return Ok(all);
        }
        for id in ids(&self.layout.containers())? {
            all.extend(self.container(&id)?);
        }
        Ok(all)
    }

    /// The record of a container, whole or half-made (`false`).
    pub(crate) fn any_container(&self, id: &str) -> io::Result<Option<(Arc<ContainerRecord>, bool)>> {
        if let Some(record) = self.container(id)? {
            return Ok(Some((record, true)));
        }
        Ok(self.half_made(id)?.map(|record| (Arc::new(record), false)))
    }

    /// The record of a container that is being made or was left so.
    pub(crate) fn half_made(&self, id: &str) -> io::Result<Option<ContainerRecord>> {
        read(&self.layout.container(id), kept::MAKING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_and_cannot_be_paths() {
        let (one, other) = (new_id().expect("id"), new_id().expect("id"));
        assert!(is_id(&one) && one != other);
        for bad in ["", "..", "../../etc", &format!("{}/", &one[..63]), &one[..63]] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
