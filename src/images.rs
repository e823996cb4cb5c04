//! Has an image present, by its container's pull policy (`kubelet-static-pods.md 2.7`): asks for it with the credentials
//! found, in turn with others, and remembers what it pulled.

pub mod limits;
pub mod memory;
pub mod name;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use podstead_runtime::image::PullPhase;
use podstead_runtime::{Auth, Error, ImageSpec, PullProgress, Retry, Runtime, Time};

use crate::credentials::{Credentials, Sources};
use crate::events::from_steps::Image;
use limits::{Limits, Rates};
use memory::Memory;
use name::Name;

/// What pulls must know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The root directory, where the memory of pulls is.
    pub root_dir: PathBuf,
    /// How many at once and in a time.
    pub rates: Rates,
    /// Where credentials come from.
    pub credentials: Sources,
}

/// All pulls of an agent.
#[derive(Debug)]
pub struct Images {
    limits: Limits,
    credentials: Credentials,
    memory: Arc<Memory>,
}

/// An image could not be had.
#[derive(Debug)]
pub struct ImageProblem {
    /// As the kubelet names it: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`,
    /// `RegistryUnavailable`, `SignatureValidationFailed`.
    pub reason: &'static str,
    /// When to try again.
    pub retry: Retry,
    /// For people.
    pub message: String,
}

impl Images {
    /// Reads what earlier agents pulled. Blocking.
    pub fn open(settings: &Settings) -> Self {
        Self {
            limits: Limits::new(settings.rates),
            credentials: Credentials::new(&settings.credentials),
            memory: Arc::new(Memory::open(&settings.root_dir)),
        }
    }

    /// Changes how many are pulled at once and in a time, from the next pull on.
    pub fn set_rates(&self, rates: Rates) {
        self.limits.set(rates);
    }

    /// What was pulled.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Makes sure that the image is here and answers its id; says through `tell` what it does for that. Dropped, it stops.
    pub async fn ensure<R: Runtime>(
        &self,
        runtime: &R,
        image: &ImageSpec,
        policy: &str,
        tell: &(impl Fn(Image) + Sync),
    ) -> Result<String, ImageProblem> {
        let name = Name::parse(&image.image).map_err(|why| invalid(&image.image, &why))?;
        if policy != "Always" {
            if let Some(found) = present(runtime, image).await? {
                tell(Image::Present);
                return Ok(found.id);
            }
            if policy == "Never" {
                return Err(never(&image.image));
            }
        }
        let waiting = Instant::now();
        let _turn = self.limits.turn().await;
        // Another may have pulled it meanwhile; and what was there before is not ours to remove.
        let before = match present(runtime, image).await {
            Ok(Some(found)) if policy != "Always" => {
                tell(Image::Present);
                return Ok(found.id);
            }
            Err(problem) if policy != "Always" => return Err(problem),
            before => before,
        };
        let begun = Instant::now();
        tracing::info!(image = image.image, "pulling");
        tell(Image::Pulling);
        let auths = self.credentials.find(&name).await;
        let pulled = pull(runtime, image, &auths, || logged(&image.image)).await;
        let id = pulled.map_err(|failures| not_pulled(&failures))?;
        tracing::info!(image = image.image, seconds = begun.elapsed().as_secs_f32(), "pulled");
        // The runtime's answer to a pull may be a name; the id is what containers are made from.
        let (took, with_waiting) = (begun.elapsed(), waiting.elapsed());
        let found = present(runtime, image).await?;
        tell(Image::Pulled { took, with_waiting, size: found.as_ref().map_or(0, |found| found.size) });
        let id = found.map_or(id, |found| found.id);
        if before.is_ok_and(|before| before.is_none_or(|before| before.id != id)) {
            self.remember(id.clone(), image.image.clone()).await;
        }
        Ok(id)
    }

    async fn remember(&self, id: String, name: String) {
        let memory = Arc::clone(&self.memory);
        let write = tokio::task::spawn_blocking(move || memory.pulled(&id, &name, Time::now()));
        if let Ok(Err(error)) = write.await {
            tracing::warn!("cannot write down which image was pulled, it will never be collected: {error}");
        }
    }
}

/// Pulls with one credential after another, with none as anybody may. The error: why each of them failed.
pub async fn pull<R: Runtime>(
    runtime: &R,
    image: &ImageSpec,
    auths: &[Auth],
    progress: impl Fn() -> PullProgress,
) -> Result<String, Vec<Error>> {
    let auths = if auths.is_empty() { &[Auth::Anonymous] } else { auths };
    let mut failures: Vec<Error> = Vec::new();
    for auth in auths {
        match runtime.pull_image(image, auth, progress()).await {
            Ok(id) => return Ok(id),
            Err(error) => {
                // Others would be told the same.
                let final_ = matches!(error, Error::Invalid { .. } | Error::Unavailable { .. });
                failures.push(error);
                if final_ {
                    break;
                }
            }
        }
    }
    Err(failures)
}

async fn present<R: Runtime>(
    runtime: &R,
    image: &ImageSpec,
) -> Result<Option<podstead_runtime::Image>, ImageProblem> {
    runtime.image(image).await.map_err(|error| problem("ImageInspectError", &error))
}

fn never(image: &str) -> ImageProblem {
    ImageProblem {
        reason: "ErrImageNeverPull",
        retry: Retry::Backoff,
        message: format!(
            "image {image:?} is not present with pull policy Never: import it with `podstead images import`, or change \
             imagePullPolicy"
        ),
    }
}

fn invalid(image: &str, why: &str) -> ImageProblem {
    let message = format!("couldn't parse image name {image:?}: {why}");
    ImageProblem { reason: "InvalidImageName", retry: Retry::Never, message }
}

/// The last failure decides when to try again; each different one is told.
fn not_pulled(failures: &[Error]) -> ImageProblem {
    let mut messages: Vec<String> = failures.iter().map(ToString::to_string).collect();
    messages.dedup();
    let message = messages.join("; ");
    match failures.last() {
        Some(last) => ImageProblem { message, ..problem("ErrImagePull", last) },
        None => ImageProblem { reason: "ErrImagePull", retry: Retry::Backoff, message },
    }
}

fn problem(reason: &'static str, error: &Error) -> ImageProblem {
    let reason = match error {
        Error::Invalid { .. } => "InvalidImageName",
        // The words with which CRI servers begin such an answer.
        Error::Failed { cause, .. } if cause.starts_with("RegistryUnavailable") => "RegistryUnavailable",
        Error::Failed { cause, .. } if cause.starts_with("SignatureValidationFailed") => {
            "SignatureValidationFailed"
        }
        _ => reason,
    };
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

#[cfg(test)]
mod tests {
    use podstead_fake::{Fake, Fault, Verb};

    use super::*;

    fn images(dir: &std::path::Path) -> Images {
        Images::open(&Settings { root_dir: dir.to_owned(), ..Settings::default() })
    }

    fn spec(image: &str) -> ImageSpec {
        ImageSpec::from(image)
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_told_whatever_the_policy_is() {
        let dir = tempfile::tempdir().unwrap();
        for policy in ["Always", "IfNotPresent", "Never"] {
            let ensured =
                images(dir.path()).ensure(&Fake::new(), &spec("r.example/UPPER:1"), policy, &|_| ()).await;
            let problem = ensured.unwrap_err();
            assert_eq!((problem.reason, problem.retry), ("InvalidImageName", Retry::Never));
            assert!(problem.message.contains("r.example/UPPER:1"), "{}", problem.message);
        }
    }

    #[tokio::test]
    async fn only_what_was_not_there_is_remembered_as_pulled() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, images) = (Fake::new(), images(dir.path()));
        let imported = fake.world(|w| w.add_image("r.example/imported:1"));
        assert_eq!(
            images.ensure(&fake, &spec("r.example/imported:1"), "Always", &|_| ()).await.unwrap(),
            imported
        );
        assert!(images.memory().images().is_empty());
        let pulled =
            images.ensure(&fake, &spec("r.example/pulled:1"), "IfNotPresent", &|_| ()).await.unwrap();
        assert_eq!(images.memory().images().into_keys().collect::<Vec<_>>(), [pulled]);
    }

    #[tokio::test]
    async fn reasons_are_the_kubelets() {
        let dir = tempfile::tempdir().unwrap();
        let image = spec("r.example/web:1");
        for (verb, policy, cause, reason) in [
            (Verb::Image, "IfNotPresent", "x", "ImageInspectError"),
            (Verb::PullImage, "IfNotPresent", "x", "ErrImagePull"),
            (Verb::PullImage, "Always", "RegistryUnavailable: x", "RegistryUnavailable"),
            (Verb::PullImage, "Always", "SignatureValidationFailed: x", "SignatureValidationFailed"),
        ] {
            let fake = Fake::new();
            fake.fault(verb, Fault::Before(Error::failed("pull", cause)));
            let problem = images(dir.path()).ensure(&fake, &image, policy, &|_| ()).await.unwrap_err();
            assert_eq!(problem.reason, reason);
        }
        let never = images(dir.path()).ensure(&Fake::new(), &image, "Never", &|_| ()).await.unwrap_err();
        assert_eq!(never.reason, "ErrImageNeverPull");
    }

    #[test]
    fn every_different_refusal_is_told_once() {
        let denied = |cause: &str| Error::Denied { doing: "pull".into(), cause: cause.into() };
        let problem = not_pulled(&[denied("a"), denied("a"), denied("b")]);
        assert_eq!(problem.message, "pull: access denied: a; pull: access denied: b");
    }
}
