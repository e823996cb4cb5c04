//! Pulls an image from a registry into the store.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::digest::Digest;
use super::error::{Error, Result};
use super::ingest::{Fetch, LayerFile, LayerRef, Planned, ingest, pair, record};
use super::manifest::{self, Document, Manifest, Platform};
use super::progress::{Phase, Reporter};
use super::reference::Reference;
use super::registry::{Credentials, Registry};
use super::store::{Image, Store};

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Whom to log in as.
    pub credentials: Credentials,
    /// Hosts (`host` or `host:port`) that are spoken to in plain http. All others only in https.
    pub insecure: Vec<String>,
    /// Certificates to trust beside the system's, PEM.
    pub extra_roots: Vec<Vec<u8>>,
    /// Who is told how far it is.
    pub progress: Reporter,
}

struct Layers<'a> {
    store: &'a Store,
    registry: &'a Registry,
    progress: &'a Reporter,
}

impl Store {
    /// Pulls an image and gives it this name. What is in the store already is not fetched again; the tag is always
    /// asked for. Dropping the future stops the pull and leaves nothing half.
    pub async fn pull(&self, reference: &Reference, options: &PullOptions) -> Result<Image> {
        let registry =
            Registry::new(reference, options.credentials.clone(), &options.insecure, &options.extra_roots)?;
        let (manifest, documents) = self.documents(reference, &registry).await?;
        let config = self.config(&registry, &manifest).await?;
        let what = reference.to_string();
        let blob = manifest::parse_config(&what, &config, &Platform::node())?;
        let layers = pair(&what, &manifest.layers, &blob.diff_ids)?;
        let digests = documents.iter().map(|bytes| Digest::of(bytes)).collect();
        let planned = Planned {
            id: manifest.config.digest.clone(),
            record: record(blob, digests, Some(reference)),
            layers,
        };
        let source = Layers { store: self, registry: &registry, progress: &options.progress };
        let keep = move |inner: &super::store::Inner| {
            for bytes in documents.iter().chain([&config]) {
                inner.disk.put_blob(bytes)?;
            }
            Ok(())
        };
        let images = ingest(&self.inner, vec![planned], &source, keep, &options.progress).await?;
        images.into_iter().next().ok_or_else(|| Error::not_here(what))
    }

    /// The image's manifest, and the bytes of all documents on the way to it, its own first.
    async fn documents(
        &self,
        reference: &Reference,
        registry: &Registry,
    ) -> Result<(Manifest, Vec<Vec<u8>>)> {
        let limit = self.inner.limits.manifest_bytes;
        let what = reference.to_string();
        let (top, _) = registry.manifest(None, limit).await?;
        match manifest::parse(&what, &top)? {
            Document::Image(manifest) => Ok((manifest, vec![top])),
            Document::Index(entries) => {
                let entry = manifest::pick(&what, &entries, &Platform::node())?;
                let (bytes, _) = registry.manifest(Some(&entry.digest), limit).await?;
                match manifest::parse(&what, &bytes)? {
                    Document::Image(manifest) => Ok((manifest, vec![bytes, top])),
                    Document::Index(_) => Err(Error::corrupt(what, "its index leads to another index")),
                }
            }
        }
    }

    async fn config(&self, registry: &Registry, manifest: &Manifest) -> Result<Vec<u8>> {
        let digest = manifest.config.digest.clone();
        let known =
            self.with("reading a configuration", move |inner| Ok(inner.disk.read_blob(&digest))).await?;
        match known {
            Some(bytes) => Ok(bytes),
            None => registry.small_blob(&manifest.config.digest, self.inner.limits.config_bytes).await,
        }
    }
}

impl Fetch for Layers<'_> {
    fn fetch<'a>(&'a self, layer: &'a LayerRef) -> BoxFuture<'a, Result<LayerFile>> {
        self.download(layer).boxed()
    }
}

impl Layers<'_> {
    /// Streams a layer into a temporary file. Digest and size are right when this returns a file.
    async fn download(&self, layer: &LayerRef) -> Result<LayerFile> {
        let what = format!("layer {}", layer.digest);
        let made = self.store.with("making a file", |inner| inner.disk.temporary_file()).await?;
        let (file, path) = made.into_parts();
        let failed = |e: std::io::Error| Error::io(format!("downloading {what} to"), path.to_path_buf(), e);
        let mut file = tokio::fs::File::from_std(file);
        let mut response = self.registry.blob(&layer.digest).await?;
        let mut meter = self.progress.meter(&layer.digest, Phase::Downloading, layer.size);
        let (mut hasher, mut size) = (Sha256::new(), 0u64);
        while let Some(chunk) = self.registry.chunk(&what, &mut response).await? {
            let chunk = chunk.as_ref();
            size += chunk.len() as u64;
            if size > layer.size {
                return Err(Error::corrupt(
                    what,
                    format!("the registry sends more than its {} bytes", layer.size),
                ));
            }
            hasher.update(chunk);
            file.write_all(chunk).await.map_err(failed)?;
            meter.add(chunk.len());
        }
        file.flush().await.map_err(failed)?;
        let actual = format!("sha256:{}", hex::encode(hasher.finalize()));
        if actual != layer.digest.as_str() {
            return Err(Error::corrupt(what, format!("the registry sent bytes with digest {actual}")));
        }
        let mut file = file.into_std().await;
        std::io::Seek::rewind(&mut file).map_err(failed)?;
        Ok(LayerFile { file, size, unchecked: None, temporary: Some(path) })
    }
}
