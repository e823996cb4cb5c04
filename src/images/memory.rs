//! Which images this agent pulled, and since when nobody uses them: `<root-dir>/images-used.json`. What is in no entry is
//! never removed to make room.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use podstead_runtime::Time;
use serde::{Deserialize, Serialize};

use crate::pod::files::write_atomically;

/// The file's name below the root directory.
pub const FILE: &str = "images-used.json";

/// An image that was pulled for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The names it was pulled by.
    pub names: BTreeSet<String>,
    /// When it came.
    pub pulled_at: Time,
    /// Since when no container and no manifest has it; `None` while one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Time>,
}

/// By image id.
pub type Images = BTreeMap<String, Pulled>;

/// The file, and what is in it.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    images: Mutex<Images>,
}

impl Memory {
    /// Reads the file. One that is not there or damaged is empty: images are kept rather than removed. Blocking.
    pub fn open(root_dir: &std::path::Path) -> Self {
        let path = root_dir.join(FILE);
        let images = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(file = %path.display(), "damaged; images pulled so far are kept for ever: {error}");
                Images::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(file = %path.display(), "images pulled so far are kept for ever: {error}");
                }
                Images::default()
            }
        };
        Self { path, images: Mutex::new(images) }
    }

    /// What is known now.
    pub fn images(&self) -> Images {
        self.lock().clone()
    }

    /// An image was pulled by this name and was not there before.
    pub fn pulled(&self, id: &str, name: &str, now: Time) -> io::Result<()> {
        self.change(|images| {
            let image = images.entry(id.to_owned()).or_default();
            image.names.insert(name.to_owned());
            image.pulled_at = now;
            image.unused_since = None;
        })
    }

    /// Changes what is known, and the file if it changed. Blocking.
    pub fn change(&self, change: impl FnOnce(&mut Images)) -> io::Result<()> {
        // Held over the write, so that the file ends with the last of two changes.
        let mut images = self.lock();
        let before = images.clone();
        change(&mut images);
        if *images == before {
            return Ok(());
        }
        write_atomically(&self.path, &serde_json::to_vec(&*images).unwrap_or_default(), 0o600)
    }

    fn lock(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pulled_is_remembered_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::open(dir.path());
        assert_eq!(memory.images(), Images::default());
        memory.pulled("sha256:1", "a:1", Time(5)).unwrap();
        memory.change(|images| images.get_mut("sha256:1").unwrap().unused_since = Some(Time(6))).unwrap();
        memory.pulled("sha256:1", "b:1", Time(7)).unwrap();
        let known = Memory::open(dir.path()).images();
        let names: Vec<&str> = known["sha256:1"].names.iter().map(String::as_str).collect();
        assert_eq!(names, ["a:1", "b:1"]);
        assert_eq!((known["sha256:1"].pulled_at, known["sha256:1"].unused_since), (Time(7), None));
    }

    #[test]
    fn nothing_is_written_without_need_and_a_damaged_file_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::open(dir.path());
        memory.change(|_| {}).unwrap();
        assert!(!dir.path().join(FILE).exists());
        fs::write(dir.path().join(FILE), "{\"sha").unwrap();
        assert_eq!(Memory::open(dir.path()).images(), Images::default());
    }
}
