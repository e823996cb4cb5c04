//! Has an image present, by its container's pull policy (`kubelet-static-pods.md 2.7`).

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use podstead_runtime::image::PullPhase;
use podstead_runtime::{Auth, Error, ImageSpec, PullProgress, Retry, Runtime};

use crate::events::from_steps::Image;

/// An image could not be had.
#[derive(Debug)]
pub struct ImageProblem {
    /// As the kubelet names it: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`.
    pub reason: &'static str,
    /// When to try again.
    pub retry: Retry,
    /// For people.
    pub message: String,
}

/// Makes sure that the image is here and answers its id; says through `tell` what it does for that.
pub async fn ensure<R: Runtime>(
    runtime: &R,
    image: &ImageSpec,
    policy: &str,
    tell: &(impl Fn(Image) + Sync),
) -> Result<String, ImageProblem> {
    if policy != "Always" {
        let found = runtime.image(image).await.map_err(|error| problem("ImageInspectError", &error))?;
        if let Some(found) = found {
            tell(Image::Present);
            return Ok(found.id);
        }
        if policy == "Never" {
            return Err(ImageProblem {
                reason: "ErrImageNeverPull",
                retry: Retry::Backoff,
                message: format!(
                    "image {:?} is not present with pull policy Never: import it with `podstead images import`, or \
                     change imagePullPolicy",
                    image.image
                ),
            });
        }
    }
    let begun = Instant::now();
    tracing::info!(image = image.image, "pulling");
    tell(Image::Pulling);
    let pulled = runtime.pull_image(image, &Auth::Anonymous, logged(&image.image)).await;
    let id = pulled.map_err(|error| problem("ErrImagePull", &error))?;
    tracing::info!(image = image.image, seconds = begun.elapsed().as_secs_f32(), "pulled");
    let took = begun.elapsed();
    // The runtime's answer to a pull may be a name; the id is what containers are made from.
    let found = runtime.image(image).await.map_err(|error| problem("ImageInspectError", &error))?;
    tell(Image::Pulled { took, size: found.as_ref().map_or(0, |image| image.size) });
    Ok(found.map_or(id, |image| image.id))
}

fn problem(reason: &'static str, error: &Error) -> ImageProblem {
    let reason = if matches!(error, Error::Invalid { .. }) { "InvalidImageName" } else { reason };
    ImageProblem { reason, retry: error.retry(), message: error.to_string() }
}

/// Progress in the log: each finished layer, and what loads every ten seconds.
fn logged(image: &str) -> PullProgress {
    const PERIOD: Duration = Duration::from_secs(10);
    let image = image.to_owned();
    let last = Mutex::new(Instant::now());
    PullProgress::new(move |event| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if event.phase == PullPhase::Done || last.elapsed() >= PERIOD {
            *last = Instant::now();
            tracing::info!(image, layer = event.item, phase = ?event.phase, done = event.done, total = event.total);
        }
    })
}
