//! The image store in the contract's words.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use podstead_runtime::image::{PullEvent, PullPhase};
use podstead_runtime::{Auth, Error, Image, ImageFs, ImageSpec, PullProgress, Result};

use super::Inner;
use super::errors::{blocking, image as failed};
use crate::image::{
    self, Credentials, ErrorKind, Imported, Phase, PullOptions, Reference, Removed, Reporter, Store,
};

impl Inner {
    /// The store, which must be there.
    pub(super) fn store(&self, doing: &str) -> Result<&Store> {
        let cause = || format!("there is no image store at {}", self.layout.images().display());
        self.images.as_ref().ok_or_else(|| Error::State { doing: doing.to_owned(), cause: cause() })
    }

    pub(super) async fn pull_image(
        &self,
        spec: &ImageSpec,
        auth: &Auth,
        progress: PullProgress,
    ) -> Result<String> {
        let doing = format!("pull image {}", spec.image);
        let reference = Reference::parse(&spec.image).map_err(|e| failed(&doing, &e))?;
        let credentials = match auth {
            Auth::Anonymous => Credentials::Anonymous,
            Auth::Basic { username, password } => {
                Credentials::Basic { username: username.clone(), password: password.clone() }
            }
            Auth::Bearer(token) => Credentials::Bearer(token.clone()),
            Auth::Identity(_) => {
                return Err(Error::Unsupported {
                    doing,
                    what: "identity tokens; use user and password".into(),
                });
            }
        };
        let options = PullOptions {
            credentials,
            insecure: self.options.insecure_registries.clone(),
            progress: reporter(progress),
            ..PullOptions::default()
        };
        Ok(self.store(&doing)?.pull(&reference, &options).await.map_err(|e| failed(&doing, &e))?.id)
    }

    pub(super) async fn import_image(
        &self,
        path: &Path,
        name: Option<&str>,
        progress: PullProgress,
    ) -> Result<Vec<String>> {
        let doing = format!("import {}", path.display());
        let name = name.map(Reference::parse).transpose().map_err(|e| failed(&doing, &e))?;
        let imported = self.store(&doing)?.import(path, name.as_ref(), &reporter(progress)).await;
        let imported = imported.map_err(|e| failed(&doing, &e))?;
        let names = |one: Imported| if one.names.is_empty() { vec![one.image.id] } else { one.names };
        Ok(imported.into_iter().flat_map(names).collect())
    }

    pub(super) async fn find_image(&self, spec: &ImageSpec) -> Result<Option<Image>> {
        let Some(store) = &self.images else { return Ok(None) };
        match store.get(&spec.image).await {
            Ok(image) => Ok(Some(told(image))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("look for image {}", spec.image), &error)),
        }
    }

    pub(super) async fn list_images(&self) -> Result<Vec<Image>> {
        let Some(store) = &self.images else { return Ok(Vec::new()) };
        let all = store.list().await.map_err(|e| failed("list images", &e))?;
        Ok(all.into_iter().map(told).collect())
    }

    pub(super) async fn remove_image(this: &Arc<Self>, spec: &ImageSpec) -> Result<()> {
        let doing = format!("remove image {}", spec.image);
        let inner = Arc::clone(this);
        let Some(store) = &this.images else { return Ok(()) };
        match store.remove_unless(&spec.image, move || inner.images_in_use()).await {
            Ok(Removed::Untagged { id }) => tracing::info!(image = spec.image, id, "name removed"),
            Ok(Removed::Deleted { id, freed }) => {
                tracing::info!(image = spec.image, id, freed, "image removed");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(doing, &error)),
        }
        Ok(())
    }

    /// Images of all containers, half-made ones too, whoever's they are: the store is shared.
    fn images_in_use(&self) -> std::io::Result<HashSet<String>> {
        let mut ids = HashSet::new();
        for id in super::records::ids(&self.layout.containers())? {
            if let Some((record, _)) = self.any_container(&id)? {
                ids.insert(record.image_id.clone());
                ids.extend(record.mounted_images.iter().cloned());
            }
        }
        Ok(ids)
    }

    pub(super) async fn image_fs(&self) -> Result<Vec<ImageFs>> {
        let doing = "measure the image store";
        let store = self.store(doing)?;
        let usage = store.fs_usage().await.map_err(|e| failed(doing, &e))?;
        let path = blocking("find the image store", {
            let root = store.root().to_owned();
            move || root.canonicalize()
        })
        .await?;
        Ok(vec![ImageFs { path, used_bytes: usage.bytes, used_inodes: usage.inodes }])
    }
}

fn reporter(progress: PullProgress) -> Reporter {
    Reporter::new(move |event| {
        let phase = match event.phase {
            Phase::Downloading => PullPhase::Downloading,
            Phase::Extracting if event.total > 0 && event.done >= event.total => PullPhase::Done,
            Phase::Extracting => PullPhase::Extracting,
            Phase::Exists => PullPhase::Exists,
        };
        progress.report(PullEvent {
            item: event.layer.to_string(),
            phase,
            done: event.done,
            total: event.total,
        });
    })
}

fn told(image: image::Image) -> Image {
    let user = image.config.user.as_deref().unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default();
    let uid = user.parse().ok();
    Image {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size,
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        uid,
        pinned: image.pinned,
    }
}
