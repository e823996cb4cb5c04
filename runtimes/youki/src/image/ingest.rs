//! The way of an image into the store, the same for pulls and imports: blobs, then layers, then the index.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, TryStreamExt};
use tokio::sync::Semaphore;

use super::digest::Digest;
use super::error::{Error, Result};
use super::index::Record;
use super::layer::{self, Cancel, LayerSource};
use super::manifest::{ConfigBlob, Descriptor};
use super::progress::{Phase, Reporter, exists};
use super::reference::Reference;
use super::store::{Image, Inner, blocking};

/// A layer an image needs.
#[derive(Debug, Clone)]
pub(crate) struct LayerRef {
    /// How the manifest names it; the diffID where there is no manifest.
    pub digest: Digest,
    /// Its size as the manifest tells, 0 where there is none.
    pub size: u64,
    pub diff_id: Digest,
    /// The file of an archive it is in; empty for a registry.
    pub source: String,
}

/// The bytes of a layer, fetched.
pub(crate) struct LayerFile {
    pub file: File,
    pub size: u64,
    /// Digest and size the bytes must turn out to have, if that was not checked yet.
    pub unchecked: Option<(Digest, u64)>,
    /// Deletes the file when done with.
    pub temporary: Option<tempfile::TempPath>,
}

/// An image whose manifest and configuration are in the store and whose layers are not, perhaps.
#[derive(Debug)]
pub(crate) struct Planned {
    pub id: Digest,
    pub record: Record,
    pub layers: Vec<LayerRef>,
}

/// Where layers come from.
pub(crate) trait Fetch: Send + Sync {
    /// Fetches one layer into a file.
    fn fetch<'a>(&'a self, layer: &'a LayerRef) -> BoxFuture<'a, Result<LayerFile>>;
}

/// Tells blocking threads that the future they work for is gone.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Something removed what a commit had counted on; that can happen again, but not forever.
const ATTEMPTS: usize = 5;

/// Brings the layers of the images into the store and enters the images into the index.
///
/// Dropping the future at any moment leaves whole layers, or nothing; the index changes at the very end.
pub(crate) async fn ingest(
    inner: &Arc<Inner>,
    images: Vec<Planned>,
    fetch: &dyn Fetch,
    keep_blobs: impl Fn(&Inner) -> Result<()> + Send + Sync + Clone + 'static,
    reporter: &Reporter,
) -> Result<Vec<Image>> {
    let cancel = CancelOnDrop(Cancel::new(AtomicBool::new(false)));
    let mut seen = HashSet::new();
    let layers: Vec<&LayerRef> =
        images.iter().flat_map(|i| &i.layers).filter(|l| seen.insert(&l.diff_id)).collect();
    let records: Arc<Vec<(Digest, Record)>> =
        Arc::new(images.iter().map(|i| (i.id.clone(), i.record.clone())).collect());
    let fetching = Semaphore::new(inner.limits.parallel.max(1));
    // Unpacking is work for the processor; one more than half of the fetches keeps two cores busy.
    let unpacking = Semaphore::new(inner.limits.parallel / 2 + 1);
    for _ in 0..ATTEMPTS {
        let keep = keep_blobs.clone();
        let kept = inner.clone();
        blocking("keeping metadata", move || keep(&kept)).await?;
        let work: FuturesUnordered<_> = layers
            .iter()
            .map(|layer| one_layer(inner, layer, fetch, reporter, (&fetching, &unpacking), &cancel.0))
            .collect();
        work.try_collect::<()>().await?;
        let (committing, records) = (inner.clone(), records.clone());
        if let Some(images) = blocking("entering images", move || committing.commit(&records)).await? {
            return Ok(images);
        }
    }
    let what = "the image store".to_owned();
    Err(Error::corrupt(what, "layers are removed as quickly as they are added; stop the other program"))
}

async fn one_layer(
    inner: &Arc<Inner>,
    layer: &LayerRef,
    fetch: &dyn Fetch,
    reporter: &Reporter,
    (fetching, unpacking): (&Semaphore, &Semaphore),
    cancel: &Cancel,
) -> Result<()> {
    let closed = |_| Error::Cancelled { what: format!("layer {}", layer.digest) };
    let lock = inner.layer_lock(&layer.diff_id);
    let _busy = lock.lock().await;
    let (looking, diff_id) = (inner.clone(), layer.diff_id.clone());
    if blocking("looking for a layer", move || Ok(looking.disk.has_layer(&diff_id))).await? {
        exists(reporter, &layer.digest, layer.size);
        return Ok(());
    }
    let slot = fetching.acquire().await.map_err(closed)?;
    let fetched = fetch.fetch(layer).await?;
    drop(slot);
    let _slot = unpacking.acquire().await.map_err(closed)?;
    let meter = reporter.meter(&layer.digest, Phase::Extracting, fetched.size);
    let (inner, diff_id, cancel) = (inner.clone(), layer.diff_id.clone(), cancel.clone());
    let size = fetched.size;
    blocking("unpacking a layer", move || {
        let LayerFile { file, size, unchecked, temporary } = fetched;
        let source = LayerSource { reader: file, blob: unchecked, compressed: size, diff_id };
        let placed = layer::place(&inner.disk, &inner.limits, source, meter, &cancel);
        drop(temporary);
        placed
    })
    .await?;
    exists(reporter, &layer.digest, size);
    Ok(())
}

/// Makes the index entry of an image.
pub(crate) fn record(blob: ConfigBlob, manifests: Vec<Digest>, name: Option<&Reference>) -> Record {
    let repo_tags = name.and_then(Reference::as_repo_tag).into_iter().collect();
    let repo_digests = name.map(|n| manifests.iter().map(|d| n.repo_digest(d)).collect()).unwrap_or_default();
    Record {
        repo_tags,
        repo_digests,
        manifests,
        diff_ids: blob.diff_ids,
        architecture: blob.platform.architecture,
        os: blob.platform.os,
        created: blob.created,
        pinned: false,
        config: blob.config,
    }
}

/// Pairs the layers of a manifest with the diffIDs of its configuration.
pub(crate) fn pair(what: &str, layers: &[Descriptor], diff_ids: &[Digest]) -> Result<Vec<LayerRef>> {
    if layers.len() != diff_ids.len() {
        let reason =
            format!("its manifest has {} layers, its configuration {}", layers.len(), diff_ids.len());
        return Err(Error::corrupt(what, reason));
    }
    let pairs = layers.iter().zip(diff_ids).map(|(layer, diff_id)| LayerRef {
        digest: layer.digest.clone(),
        size: layer.size,
        diff_id: diff_id.clone(),
        source: String::new(),
    });
    Ok(pairs.collect())
}
