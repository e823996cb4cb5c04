//! The world's images.

use podstead_runtime::{Image, ImageSpec};

use super::World;

impl World {
    /// Puts an image there; its id is made from its name.
    pub fn add_image(&mut self, reference: &str) -> String {
        let id = format!("sha256:{reference}");
        let tags = vec![reference.to_owned()];
        self.images.insert(
            reference.to_owned(),
            Image { id: id.clone(), repo_tags: tags, size: 10, ..Image::default() },
        );
        id
    }

    /// Says who an image that is there runs its programs as: a number or a name.
    pub fn set_image_user(&mut self, reference: &str, user: &str) {
        if let Some(image) = self.images.get_mut(reference) {
            image.uid = user.parse().ok();
            image.username = if image.uid.is_some() { String::new() } else { user.to_owned() };
        }
    }

    /// Finds an image by name or id.
    pub fn image(&self, reference: &str) -> Option<&Image> {
        self.images.get(reference).or_else(|| self.images.values().find(|i| i.id == reference))
    }

    /// All images.
    pub fn images(&self) -> Vec<Image> {
        self.images.values().cloned().collect()
    }

    /// Takes an image away, by name or id.
    pub fn remove_image(&mut self, image: &ImageSpec) {
        self.images.retain(|name, i| *name != image.image && i.id != image.image);
    }
}
