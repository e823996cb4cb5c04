//! The image service.

use std::time::{Duration, Instant};

use podstead_runtime::image::{PullEvent, PullPhase};
use podstead_runtime::{Auth, Error, Image, ImageFs, ImageSpec, PullProgress, Result};

use crate::client::Inner;
use crate::sandboxes::absent_is_done;
use crate::{call, convert, proto};

/// The CRI reports no progress: that a pull still goes on is said this often.
const STILL_PULLING: Duration = Duration::from_secs(10);

impl Inner {
    pub(crate) async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: &Auth,
        progress: &PullProgress,
    ) -> Result<String> {
        let doing = || format!("pull image {}", image.image);
        let report = |phase| {
            progress.report(PullEvent { item: image.image.clone(), phase, done: 0, total: 0 });
        };
        let request = proto::PullImageRequest {
            image: Some(convert::image_spec(image)),
            auth: convert::auth(auth),
            sandbox_config: None,
        };
        report(PullPhase::Downloading);
        let mut client = self.image_service();
        // No deadline: `kubelet-static-pods.md 2.7`.
        let call = call::within(doing, None, client.pull_image(call::request(request, None)));
        let answer = with_news_of(&image.image, call).await.map_err(in_words)?;
        report(PullPhase::Done);
        tracing::info!(image = image.image, id = answer.image_ref, "pulled");
        // Before CRI 0.36 the answer may be a name with a digest instead of the id.
        let pulled = ImageSpec { image: answer.image_ref.clone(), ..image.clone() };
        if answer.image_ref.starts_with("sha256:") {
            return Ok(answer.image_ref);
        }
        Ok(self.image(&pulled).await?.map_or(answer.image_ref, |image| image.id))
    }

    pub(crate) async fn image(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let limit = Some(self.limit());
        let request = proto::ImageStatusRequest { image: Some(convert::image_spec(image)), verbose: false };
        let mut client = self.image_service();
        let call = client.image_status(call::request(request, limit));
        match call::within(|| format!("look up image {}", image.image), limit, call).await {
            Ok(answer) => Ok(answer.image.map(convert::image)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn images(&self) -> Result<Vec<Image>> {
        let limit = Some(self.limit());
        let request = call::request(proto::ListImagesRequest { filter: None }, limit);
        let mut client = self.image_service();
        let answer = call::within(|| "list images".into(), limit, client.list_images(request)).await?;
        Ok(answer.images.into_iter().map(convert::image).collect())
    }

    pub(crate) async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let limit = Some(self.limit());
        let request = proto::RemoveImageRequest { image: Some(convert::image_spec(image)) };
        let mut client = self.image_service();
        let call = client.remove_image(call::request(request, limit));
        absent_is_done(call::within(|| format!("remove image {}", image.image), limit, call).await)
    }

    pub(crate) async fn image_fs(&self) -> Result<Vec<ImageFs>> {
        let limit = Some(self.limit());
        let request = call::request(proto::ImageFsInfoRequest {}, limit);
        let mut client = self.image_service();
        let call = client.image_fs_info(request);
        let answer = call::within(|| "measure the image store".into(), limit, call).await?;
        Ok(answer.image_filesystems.into_iter().map(convert::image_fs).collect())
    }
}

/// Awaits a pull, and says every ten seconds that it goes on.
async fn with_news_of<T>(image: &str, pull: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = Instant::now();
    tokio::pin!(pull);
    loop {
        if let Ok(answer) = tokio::time::timeout(STILL_PULLING, &mut pull).await {
            return answer;
        }
        tracing::info!(image, "pulling {image}, {} s so far", begun.elapsed().as_secs());
    }
}

/// Servers hand a registry's refusal, and their own of a name, on in words only.
fn in_words(error: Error) -> Error {
    const NAME: [&str; 2] = ["failed to parse image reference", "invalid reference format"];
    const WORDS: [&str; 5] =
        ["401 Unauthorized", "403 Forbidden", "unauthorized", "denied", "authentication required"];
    match error {
        Error::Failed { doing, cause } if WORDS.iter().any(|word| cause.contains(word)) => {
            Error::Denied { doing, cause }
        }
        Error::Failed { doing, cause } if NAME.iter().any(|word| cause.contains(word)) => {
            Error::Invalid { doing, cause }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_refusal_is_told_apart_from_other_failures() {
        let refused = in_words(Error::failed("pull image x", "unexpected status: 401 Unauthorized"));
        assert!(matches!(refused, Error::Denied { .. }), "{refused:?}");
        let name = in_words(Error::failed("pull image X", "failed to parse image reference \"X\": invalid"));
        assert!(matches!(name, Error::Invalid { .. }), "{name:?}");
        let other = in_words(Error::failed("pull image x", "connection refused"));
        assert!(matches!(other, Error::Failed { .. }), "{other:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pull_is_awaited_to_its_end() {
        let pull = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(7)
        };
        assert_eq!(with_news_of("x", pull).await, Ok(7));
    }
}
