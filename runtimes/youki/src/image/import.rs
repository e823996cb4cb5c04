//! Imports images from OCI layouts and from OCI and docker archives.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::archive::Archive;
use super::digest::Digest;
use super::error::{Error, Result};
use super::ingest::{Fetch, LayerFile, LayerRef, Planned, ingest, pair, record};
use super::limits::Limits;
use super::manifest::{self, Descriptor, Document, Platform, pick};
use super::progress::Reporter;
use super::reference::Reference;
use super::store::{Image, Inner, Store, blocking};

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
const ATTESTATION: &str = "vnd.docker.reference.type";

/// An image that an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image, with all its names.
    pub image: Image,
    /// The names that came with it; it may have had others before.
    pub names: Vec<String>,
}

/// Everything to import, with the small blobs to keep.
#[derive(Default)]
struct Plan {
    images: Vec<Planned>,
    blobs: Vec<Vec<u8>>,
}

impl Store {
    /// Imports the images of an OCI layout directory, or of an OCI or docker archive (`.tar`, also compressed).
    ///
    /// Names come from the archive (`io.containerd.image.name`, `org.opencontainers.image.ref.name`, RepoTags), each
    /// made whole as in a manifest; `name`, if given, replaces them, and then there must be only one image. An image
    /// without a name is found by its id. Of each image's names, those come with it that this archive gave.
    pub async fn import(
        &self,
        source: &Path,
        name: Option<&Reference>,
        progress: &Reporter,
    ) -> Result<Vec<Imported>> {
        let (inner, source, name) = (self.inner.clone(), source.to_owned(), name.cloned());
        let (archive, plan) = blocking("reading an archive", move || {
            let archive = Archive::open(&source, inner.disk.work()?, &inner.limits)?;
            let mut plan = read_plan(&archive, &inner.limits, &source)?;
            rename(&mut plan, name.as_ref(), &source)?;
            Ok((Arc::new(archive), plan))
        })
        .await?;
        let Plan { images, blobs } = plan;
        let keep = move |inner: &Inner| blobs.iter().try_for_each(|b| inner.disk.put_blob(b).map(drop));
        let names: Vec<_> = images.iter().map(|i| i.record.repo_tags.iter().cloned().collect()).collect();
        let images = ingest(&self.inner, images, &Files(archive), keep, progress).await?;
        Ok(images.into_iter().zip(names).map(|(image, names)| Imported { image, names }).collect())
    }
}

struct Files(Arc<Archive>);

impl Fetch for Files {
    fn fetch<'a>(&'a self, layer: &'a LayerRef) -> BoxFuture<'a, Result<LayerFile>> {
        let (archive, layer) = (self.0.clone(), layer.clone());
        let open = move || {
            let (file, size) = archive.file(&layer.source)?;
            // A docker archive tells only the diffID, which is always checked.
            let unchecked = (layer.digest != layer.diff_id).then_some((layer.digest, layer.size));
            Ok(LayerFile { file, size, unchecked, temporary: None })
        };
        blocking("opening a layer", open).boxed()
    }
}

fn read_plan(archive: &Archive, limits: &Limits, source: &Path) -> Result<Plan> {
    if archive.has("index.json") {
        oci(archive, limits)
    } else if archive.has("manifest.json") {
        docker(archive, limits)
    } else {
        let reason =
            "it has neither the index.json of an OCI image nor the manifest.json of a docker archive";
        Err(Error::corrupt(source.display().to_string(), reason))
    }
}

fn rename(plan: &mut Plan, name: Option<&Reference>, source: &Path) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let [image] = plan.images.as_mut_slice() else {
        let reason =
            format!("{} holds {} images, so one name is not enough", source.display(), plan.images.len());
        return Err(Error::InvalidName { name: name.to_string(), reason });
    };
    image.record.repo_tags = name.as_repo_tag().into_iter().collect();
    image.record.repo_digests = image.record.manifests.iter().map(|d| name.repo_digest(d)).collect();
    Ok(())
}

fn oci(archive: &Archive, limits: &Limits) -> Result<Plan> {
    let index = archive.read("index.json", limits.manifest_bytes)?;
    let Document::Index(entries) = manifest::parse("index.json", &index)? else {
        return Err(Error::corrupt("index.json", "it is not an index"));
    };
    let node = Platform::node();
    let mut plan = Plan::default();
    let mut others = 0;
    for entry in &entries {
        let attestation = entry.annotations.as_ref().is_some_and(|a| a.contains_key(ATTESTATION));
        let elsewhere =
            entry.platform.as_ref().is_some_and(|p| p.os != node.os || p.architecture != node.architecture);
        if attestation || elsewhere {
            others += 1;
            continue;
        }
        oci_image(archive, limits, entry, &node, &mut plan)?;
    }
    if plan.images.is_empty() {
        return Err(Error::NotFound {
            what: format!("an image for {}/{}", node.os, node.architecture),
            place: format!("in index.json, which lists {others} others"),
        });
    }
    Ok(plan)
}

fn blob(archive: &Archive, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
    let name = blob_name(&descriptor.digest);
    let bytes = archive.read(&name, limit)?;
    let actual = Digest::of(&bytes);
    if actual == descriptor.digest {
        Ok(bytes)
    } else {
        Err(Error::corrupt(name, format!("its content has digest {actual}")))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn oci_image(
    archive: &Archive,
    limits: &Limits,
    entry: &Descriptor,
    node: &Platform,
    plan: &mut Plan,
) -> Result<()> {
    let what = entry.digest.to_string();
    let top = blob(archive, entry, limits.manifest_bytes)?;
    let (found, documents) = match manifest::parse(&what, &top)? {
        Document::Image(found) => (found, vec![top]),
        Document::Index(entries) => {
            let bytes = blob(archive, pick(&what, &entries, node)?, limits.manifest_bytes)?;
            match manifest::parse(&what, &bytes)? {
                Document::Image(found) => (found, vec![bytes, top]),
                Document::Index(_) => return Err(Error::corrupt(what, "its index leads to another index")),
            }
        }
    };
    let config = blob(archive, &found.config, limits.config_bytes)?;
    let parsed = manifest::parse_config(&what, &config, node)?;
    let mut layers = pair(&what, &found.layers, &parsed.diff_ids)?;
    for layer in &mut layers {
        layer.source = blob_name(&layer.digest);
    }
    let digests = documents.iter().map(|bytes| Digest::of(bytes)).collect();
    let record = record(parsed, digests, annotated_name(entry).as_ref());
    plan.images.push(Planned { id: found.config.digest, record, layers });
    plan.blobs.extend(documents);
    plan.blobs.push(config);
    Ok(())
}

fn annotated_name(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations.as_ref()?;
    let text = annotations.get(CONTAINERD_NAME).or_else(|| annotations.get(OCI_NAME))?;
    readable_name(text)
}

/// A name an archive gives. One that cannot be read costs the image its name, not the import.
fn readable_name(text: &str) -> Option<Reference> {
    match Reference::parse(text) {
        Ok(name) => Some(name),
        Err(error) => {
            tracing::warn!(%error, "the archive's name for an image is left out");
            None
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker(archive: &Archive, limits: &Limits) -> Result<Plan> {
    let bytes = archive.read("manifest.json", limits.manifest_bytes)?;
    let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
        .map_err(|e| Error::corrupt("manifest.json", format!("it is not docker's: {e}")))?;
    let mut plan = Plan::default();
    for image in images {
        let config = archive.read(&image.config, limits.config_bytes)?;
        let parsed = manifest::parse_config(&image.config, &config, &Platform::node())?;
        if parsed.diff_ids.len() != image.layers.len() {
            let reason =
                format!("it names {} layers, its config {}", image.layers.len(), parsed.diff_ids.len());
            return Err(Error::corrupt("manifest.json", reason));
        }
        let layers = parsed.diff_ids.iter().zip(image.layers).map(|(diff_id, source)| LayerRef {
            digest: diff_id.clone(),
            size: 0,
            diff_id: diff_id.clone(),
            source,
        });
        let layers = layers.collect();
        let mut record = record(parsed, Vec::new(), None);
        let tags = image.repo_tags.unwrap_or_default();
        record.repo_tags = tags.iter().filter_map(|t| readable_name(t)?.as_repo_tag()).collect();
        plan.images.push(Planned { id: Digest::of(&config), record, layers });
        plan.blobs.push(config);
    }
    Ok(plan)
}
