//! The image store as its callers see it: open, query, name, remove. Pulling and importing are next door.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::digest::Digest;
use super::disk::Disk;
use super::error::{Error, Result};
use super::index::{Index, Record};
use super::limits::Limits;
use super::manifest::ImageConfig;
use super::reference::Reference;

/// Layers nobody refers to are kept this long, so that an interrupted pull can go on where it was.
const ORPHANS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its configuration, `sha256:...`.
    pub id: String,
    /// `registry/repository:tag` each.
    pub repo_tags: Vec<String>,
    /// `registry/repository@sha256:...` each. Holds the digest of the index it came from, too.
    pub repo_digests: Vec<String>,
    /// Bytes of disk its layers and metadata take, shared layers counted in full.
    pub size: u64,
    /// What it says about containers made of it.
    pub config: ImageConfig,
    /// Absolute directories of its layers, topmost first: the order of overlayfs's `lowerdir`. Layers that occur
    /// twice stand only at their topmost place, since overlayfs refuses the same directory twice. May be empty.
    pub layers: Vec<PathBuf>,
    /// Kept from garbage collection. Removing it by name still works.
    pub pinned: bool,
    /// When it was built, RFC 3339, as the image says.
    pub created: Option<String>,
    /// In Go's names, as the image says.
    pub architecture: String,
    /// In Go's names, as the image says.
    pub os: String,
}

/// What [`Store::remove`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// Only the name is gone; the image has others.
    Untagged {
        /// The image that lost the name.
        id: String,
    },
    /// The image is gone, and the layers no other image needs.
    Deleted {
        /// The image that was removed.
        id: String,
        /// Bytes of disk that became free.
        freed: u64,
    },
}

/// How much of a file system the store takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub disk: Disk,
    pub limits: Limits,
    /// One pull of a layer at a time in this process; the second finds the layer there.
    busy: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// An open image store. Clones share it; several processes may have the same directory open.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// Runs file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Cancelled { what: what.to_owned() }),
    }
}

impl Store {
    /// Opens the store at this directory, or makes one there (0700). What killed processes left is swept.
    pub async fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Limits::default()).await
    }

    /// Opens with other limits than the default ones.
    pub async fn open_with(root: &Path, limits: Limits) -> Result<Self> {
        let root = root.to_owned();
        blocking("opening the image store", move || {
            let disk = Disk::open(&root)?;
            let inner = Inner { disk, limits, busy: Mutex::default() };
            inner.prune(ORPHANS_KEPT)?;
            Ok(Self { inner: Arc::new(inner) })
        })
        .await
    }

    pub(crate) async fn with<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        blocking(what, move || work(&inner)).await
    }

    /// Whether the image with this id is still there, asked in turn with removals. Whoever wrote down before that he uses
    /// it and hears yes keeps it: every later [`Store::remove_unless`] finds him.
    pub fn hold(&self, id: &str) -> Result<()> {
        let disk = &self.inner.disk;
        let _guard = Disk::lock_index(disk.root())?;
        let found = Index::read(disk)?.find(id)?;
        found.map(drop).ok_or_else(|| Error::not_here(format!("image {id}")))
    }

    /// All images, by id.
    pub async fn list(&self) -> Result<Vec<Image>> {
        self.with("listing images", |inner| {
            let index = Index::read(&inner.disk)?;
            Ok(index.images.iter().map(|(id, record)| inner.image(id, record)).collect())
        })
        .await
    }

    /// The image with this reference, id (whole or an unambiguous start of 12 digits or more) or manifest digest.
    pub async fn get(&self, query: &str) -> Result<Image> {
        let query = query.to_owned();
        self.with("looking up an image", move |inner| {
            let index = Index::read(&inner.disk)?;
            inner.lookup(&index, &query)
        })
        .await
    }

    /// The layer directories of an image, topmost first; see [`Image::layers`].
    pub async fn layer_dirs(&self, query: &str) -> Result<Vec<PathBuf>> {
        Ok(self.get(query).await?.layers)
    }

    /// Gives an image another name, which any other image loses.
    pub async fn tag(&self, query: &str, name: &Reference) -> Result<Image> {
        let (query, name) = (query.to_owned(), name.clone());
        self.with("tagging an image", move |inner| {
            let tag = name.as_repo_tag().ok_or_else(|| Error::InvalidName {
                name: name.to_string(),
                reason: "a new name needs a tag and no digest".to_owned(),
            })?;
            Index::change(&inner.disk, |index| {
                let id = index.find(&query)?.ok_or_else(|| Error::not_here(format!("image {query}")))?;
                index.give_tag(&id, &tag);
                inner.lookup(index, id.as_str())
            })
        })
        .await
    }

    /// Keeps an image from garbage collection, or no longer.
    pub async fn set_pinned(&self, query: &str, pinned: bool) -> Result<()> {
        let query = query.to_owned();
        self.with("pinning an image", move |inner| {
            Index::change(&inner.disk, |index| {
                let id = index.find(&query)?.ok_or_else(|| Error::not_here(format!("image {query}")))?;
                if let Some(record) = index.images.get_mut(&id) {
                    record.pinned = pinned;
                }
                Ok(())
            })
        })
        .await
    }

    /// Removes a tag, or the image when it was its last tag or when it is named by id or digest. Refuses with
    /// [`Error::InUse`] to remove an image whose id is in `in_use`.
    pub async fn remove(&self, query: &str, in_use: &HashSet<String>) -> Result<Removed> {
        let in_use = in_use.clone();
        self.remove_unless(query, move || Ok(in_use)).await
    }

    /// As [`Store::remove`]; what is in use is asked while nobody can be told by [`Store::hold`] that an image is there.
    pub async fn remove_unless(
        &self,
        query: &str,
        in_use: impl FnOnce() -> std::io::Result<HashSet<String>> + Send + 'static,
    ) -> Result<Removed> {
        let query = query.to_owned();
        self.with("removing an image", move |inner| {
            let (mut removed, gone) = Index::change(&inner.disk, |index| {
                let in_use =
                    in_use().map_err(|e| Error::io("finding users of images of", inner.disk.root(), e))?;
                Inner::unlist(index, &query, &in_use)
            })?;
            if let (Removed::Deleted { freed, .. }, Some((id, record))) = (&mut removed, gone) {
                *freed = inner.collect(&record.diff_ids, std::iter::once(&id).chain(&record.manifests))?;
            }
            Ok(removed)
        })
        .await
    }

    /// Removes layers and metadata no image refers to and that are older than this. Returns the bytes freed.
    /// A pull that had counted on one of them notices and fetches it again.
    pub async fn prune(&self, older_than: Duration) -> Result<u64> {
        self.with("pruning the image store", move |inner| inner.prune(older_than)).await
    }

    /// Disk and inodes taken by layers and metadata. Cheap: sizes are noted when a layer is unpacked.
    pub async fn fs_usage(&self) -> Result<Usage> {
        self.with("measuring the image store", |inner| {
            let mut usage = Usage::default();
            for info in inner.disk.layer_ids()?.iter().filter_map(|id| inner.disk.layer_info(id)) {
                usage.bytes += info.bytes;
                usage.inodes += info.inodes;
            }
            for size in inner.disk.blob_ids()?.iter().filter_map(|id| inner.disk.blob_size(id)) {
                usage.bytes += size.next_multiple_of(4096);
                usage.inodes += 1;
            }
            Ok(usage)
        })
        .await
    }

    /// The directory of the store: the file system [`Store::fs_usage`] speaks of.
    pub fn root(&self) -> &Path {
        self.inner.disk.root()
    }
}

impl Inner {
    fn lookup(&self, index: &Index, query: &str) -> Result<Image> {
        let id = index.find(query)?.ok_or_else(|| Error::not_here(format!("image {query}")))?;
        let record = index.images.get(&id).ok_or_else(|| Error::not_here(format!("image {query}")))?;
        Ok(self.image(&id, record))
    }

    fn image(&self, id: &Digest, record: &Record) -> Image {
        let mut seen = BTreeSet::new();
        let topmost_first: Vec<&Digest> = record.diff_ids.iter().rev().filter(|d| seen.insert(*d)).collect();
        let layers: u64 = topmost_first.iter().filter_map(|d| self.disk.layer_info(d)).map(|i| i.bytes).sum();
        let blobs: u64 =
            std::iter::once(id).chain(&record.manifests).filter_map(|d| self.disk.blob_size(d)).sum();
        Image {
            id: id.to_string(),
            repo_tags: record.repo_tags.iter().cloned().collect(),
            repo_digests: record.repo_digests.iter().cloned().collect(),
            size: layers + blobs,
            config: record.config.clone(),
            layers: topmost_first.into_iter().map(|d| self.disk.layer_dir(d)).collect(),
            pinned: record.pinned,
            created: record.created.clone(),
            architecture: record.architecture.clone(),
            os: record.os.clone(),
        }
    }

    /// Enters images into the index, all or none, if all their parts are in the store. `None`: something was
    /// removed meanwhile.
    pub(crate) fn commit(&self, images: &[(Digest, Record)]) -> Result<Option<Vec<Image>>> {
        Index::change(&self.disk, |index| {
            let whole = images.iter().all(|(id, record)| {
                let mut blobs = std::iter::once(id).chain(&record.manifests);
                blobs.all(|d| self.disk.blob_size(d).is_some())
                    && record.diff_ids.iter().all(|d| self.disk.has_layer(d))
            });
            if !whole {
                return Ok(None);
            }
            for (id, record) in images {
                index.add(id, record.clone());
            }
            images.iter().map(|(id, _)| self.lookup(index, id.as_str())).collect::<Result<_>>().map(Some)
        })
    }

    /// Changes the index only. The files go afterwards: a kill in between leaves layers without an image, which
    /// are found again, and never an image without layers.
    fn unlist(
        index: &mut Index,
        query: &str,
        in_use: &HashSet<String>,
    ) -> Result<(Removed, Option<(Digest, Record)>)> {
        let id = index.find(query)?.ok_or_else(|| Error::not_here(format!("image {query}")))?;
        let tag = Reference::parse(query).ok().and_then(|r| r.as_repo_tag());
        if let (Some(tag), Some(record)) = (tag, index.images.get_mut(&id))
            && record.repo_tags.len() > 1
            && record.repo_tags.remove(&tag)
        {
            return Ok((Removed::Untagged { id: id.to_string() }, None));
        }
        if in_use.contains(id.as_str()) {
            return Err(Error::InUse { id: id.to_string() });
        }
        let record = index.images.remove(&id).ok_or_else(|| Error::not_here(format!("image {query}")))?;
        Ok((Removed::Deleted { id: id.to_string(), freed: 0 }, Some((id, record))))
    }

    /// Deletes those of the given layers and blobs that no image refers to. Returns the bytes freed.
    fn collect<'a>(
        &self,
        layers: impl IntoIterator<Item = &'a Digest>,
        blobs: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<u64> {
        let freed = Index::change(&self.disk, |index| {
            let mut freed = 0;
            let needed = index.layers_in_use();
            for diff_id in layers.into_iter().collect::<BTreeSet<_>>().difference(&needed) {
                freed += self.disk.layer_info(diff_id).map_or(0, |i| i.bytes);
                self.disk.retire_layer(diff_id);
            }
            let needed = index.blobs_in_use();
            for blob in blobs.into_iter().collect::<BTreeSet<_>>().difference(&needed) {
                freed += self.disk.blob_size(blob).unwrap_or(0);
                self.disk.remove_blob(blob);
            }
            Ok(freed)
        });
        self.disk.empty_trash();
        freed
    }

    fn prune(&self, older_than: Duration) -> Result<u64> {
        let old = |age: Option<Duration>| age.is_none_or(|age| age >= older_than);
        let mut layers = self.disk.layer_ids()?;
        layers.retain(|d| old(self.disk.layer_age(d)));
        let mut blobs = self.disk.blob_ids()?;
        blobs.retain(|d| old(self.disk.blob_age(d)));
        self.collect(&layers, &blobs)
    }

    /// The lock of one layer in this process.
    pub(crate) fn layer_lock(&self, diff_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = busy.get(diff_id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        busy.insert(diff_id.clone(), Arc::downgrade(&lock));
        lock
    }
}
