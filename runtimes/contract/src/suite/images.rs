//! Promises about images.

use super::*;
use crate::{Auth, PullProgress, Retry};

/// A reference and an id mean the same image.
pub async fn a_present_image_is_found_by_name_and_id<W: World>(w: &W) {
    let image = w.runtime().image(&ImageSpec::from(w.image())).await.expect("image").expect("present");
    assert!(image.repo_tags.iter().any(|t| t == w.image()), "{image:?}");
    let by_id = w.runtime().image(&ImageSpec::from(image.id.as_str())).await.expect("image by id");
    assert_eq!(by_id.map(|i| i.id), Some(image.id.clone()));
    let all = w.runtime().images().await.expect("images");
    assert!(all.iter().any(|i| i.id == image.id));
}

/// Absent is an answer, not an error; removing it is a success.
pub async fn an_absent_image_is_none<W: World>(w: &W) {
    let absent = ImageSpec::from("localhost/no/such/image:1");
    assert_eq!(w.runtime().image(&absent).await.expect("image"), None);
    w.runtime().remove_image(&absent).await.expect("remove_image");
}

/// A reference that can never mean an image is not worth a second try.
pub async fn a_bad_reference_is_refused_for_ever<W: World>(w: &W) {
    let bad = ImageSpec::from("UPPER CASE/and spaces");
    let error =
        w.runtime().pull_image(&bad, &Auth::Anonymous, PullProgress::none()).await.expect_err("no such name");
    assert!(!error.to_string().is_empty());
    assert_ne!(error.retry(), Retry::Soon, "{error:?}");
}

/// Where images are.
pub async fn the_image_file_system_is_told<W: World>(w: &W) {
    let fs = w.runtime().image_fs().await.expect("image_fs");
    assert!(!w.real() || !fs.is_empty());
}
