//! The index: which images exist and by which names. One JSON file, read and changed under one lock.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::digest::{Digest, is_hex, is_hex64};
use super::disk::{Disk, read_bounded};
use super::error::{Error, Result};
use super::manifest::ImageConfig;
use super::reference::Reference;

const VERSION: u32 = 1;
/// Far beyond any real index; a larger one is not ours.
const MAX_BYTES: u64 = 256 << 20;
/// Shorter prefixes of an id are not looked up.
const SHORTEST_ID: usize = 12;

/// All images of a store, by id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub images: BTreeMap<Digest, Record>,
}

/// One image. Its id is the digest of its configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub repo_tags: BTreeSet<String>,
    pub repo_digests: BTreeSet<String>,
    /// Manifests and indexes that led here; the first is the image's own manifest, if it had one.
    pub manifests: Vec<Digest>,
    /// Bottom first, as in the configuration.
    pub diff_ids: Vec<Digest>,
    pub architecture: String,
    pub os: String,
    pub created: Option<String>,
    pub pinned: bool,
    pub config: ImageConfig,
}

impl Default for Index {
    fn default() -> Self {
        Self { version: VERSION, images: BTreeMap::new() }
    }
}

impl Index {
    fn load(disk: &Disk) -> Result<Self> {
        let path = disk.index_path();
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::io("opening", path, e)),
        };
        let what = format!("the image index {}", path.display());
        let bytes = read_bounded(&what, &path, file, MAX_BYTES)?;
        // An unreadable index is not an empty one: overwriting it would lose every image.
        let index: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Error::corrupt(&what, format!("{e}; move it away to start with an empty store")))?;
        if index.version != VERSION {
            let reason = format!("its version is {}, this program knows {VERSION}", index.version);
            return Err(Error::corrupt(&what, reason));
        }
        Ok(index)
    }

    /// Reads the index. Renaming makes a read without the lock consistent in itself.
    pub(crate) fn read(disk: &Disk) -> Result<Self> {
        Self::load(disk)
    }

    /// Reads, changes and writes the index under its lock. Nothing is written after an error.
    pub(crate) fn change<T>(disk: &Disk, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let _guard = Disk::lock_index(disk.root())?;
        let mut index = Self::load(disk)?;
        let before = serde_json::to_vec(&index).ok();
        let result = change(&mut index)?;
        let path = disk.index_path();
        let after = serde_json::to_vec(&index).map_err(|e| Error::io("encoding", &path, e))?;
        if before.as_ref() != Some(&after) {
            match disk.replace(&path, &after) {
                // One that became smaller: an image goes, which makes room.
                Err(Error::NoSpace { .. }) if before.is_some_and(|before| after.len() < before.len()) => {
                    disk.replace_by_spare(&path, &after)?;
                }
                replaced => {
                    replaced?;
                    disk.keep_spare(after.len());
                }
            }
        }
        Ok(result)
    }

    /// Finds an image by id (`sha256:...`, 64 hex digits, or an unambiguous start of at least 12), by the digest of
    /// its manifest, or by any reference.
    pub(crate) fn find(&self, query: &str) -> Result<Option<Digest>> {
        if let Ok(digest) = query.parse::<Digest>() {
            let by_manifest =
                || self.images.iter().find(|(_, r)| r.manifests.contains(&digest)).map(|(id, _)| id);
            return Ok(self.images.get_key_value(&digest).map(|(id, _)| id).or_else(by_manifest).cloned());
        }
        if is_hex64(query) {
            return Ok(self.images.keys().find(|id| id.hex() == query).cloned());
        }
        let reference = Reference::parse(query)?;
        let wanted = |record: &Record| match (reference.digest(), reference.as_repo_tag()) {
            (Some(digest), _) => record.repo_digests.contains(&reference.repo_digest(&digest)),
            (None, Some(tag)) => record.repo_tags.contains(&tag),
            (None, None) => false,
        };
        if let Some((id, _)) = self.images.iter().find(|(_, record)| wanted(record)) {
            return Ok(Some(id.clone()));
        }
        let short = query.strip_prefix("sha256:").unwrap_or(query);
        if short.len() >= SHORTEST_ID && is_hex(short) {
            let mut matches = self.images.keys().filter(|id| id.hex().starts_with(short));
            if let (Some(id), None) = (matches.next(), matches.next()) {
                return Ok(Some(id.clone()));
            }
        }
        Ok(None)
    }

    /// Gives a tag to one image and takes it from every other.
    pub(crate) fn give_tag(&mut self, id: &Digest, tag: &str) {
        for (other, record) in &mut self.images {
            if other == id {
                record.repo_tags.insert(tag.to_owned());
            } else {
                record.repo_tags.remove(tag);
            }
        }
    }

    /// Adds an image, or what is new about one that exists.
    pub(crate) fn add(&mut self, id: &Digest, record: Record) {
        let tags = record.repo_tags.clone();
        let entry = self.images.entry(id.clone()).or_insert_with(|| record.clone());
        entry.repo_digests.extend(record.repo_digests);
        for manifest in record.manifests {
            if !entry.manifests.contains(&manifest) {
                entry.manifests.push(manifest);
            }
        }
        for tag in tags {
            self.give_tag(id, &tag);
        }
    }

    /// Every layer an image needs.
    pub(crate) fn layers_in_use(&self) -> BTreeSet<&Digest> {
        self.images.values().flat_map(|r| &r.diff_ids).collect()
    }

    /// Every blob an image needs: its configuration and manifests.
    pub(crate) fn blobs_in_use(&self) -> BTreeSet<&Digest> {
        self.images.iter().flat_map(|(id, r)| std::iter::once(id).chain(&r.manifests)).collect()
    }
}
