//! Image references as a container's `image` field spells them, made whole. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, is_hex64};
use super::error::Error;
use super::grammar;

/// What a reference with neither tag nor digest means.
const DEFAULT_TAG: &str = "latest";

/// A normalised reference: registry, repository, and a tag, a digest or both.
///
/// `nginx` becomes `docker.io/library/nginx:latest` (kubelet-static-pods.md 2.7: tagless means `:latest`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(oci_client::Reference);

impl Reference {
    /// Parses the text of an `image` field.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidName { name: text.escape_debug().to_string(), reason };
        if is_hex64(text) {
            return Err(invalid("64 hex digits are an image id, not a name".to_owned()));
        }
        let parts = grammar::split(text).map_err(|reason| invalid(reason.to_owned()))?;
        let bad = |_| invalid("a digest must be sha256: and 64 lower-case hex digits".to_owned());
        let digest = parts.digest.map(|d| d.parse::<Digest>().map_err(bad)).transpose()?;
        let (registry, repository) = (parts.registry.to_owned(), parts.repository);
        Ok(Self(match (parts.tag.map(str::to_owned), digest.map(String::from)) {
            (Some(tag), Some(digest)) => {
                oci_client::Reference::with_tag_and_digest(registry, repository, tag, digest)
            }
            (None, Some(digest)) => oci_client::Reference::with_digest(registry, repository, digest),
            (tag, None) => {
                let tag = tag.unwrap_or_else(|| DEFAULT_TAG.to_owned());
                oci_client::Reference::with_tag(registry, repository, tag)
            }
        }))
    }

    /// Host and port of the registry, `docker.io` if none was written.
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// The path in the registry, `library/nginx`.
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry(), self.repository())
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// The digest, if there is one. When both are present, the digest decides which image it is.
    pub fn digest(&self) -> Option<Digest> {
        // Checked when parsed.
        self.0.digest().and_then(|d| d.parse().ok())
    }

    /// `name:tag`, if this reference names its image by tag only.
    pub fn as_repo_tag(&self) -> Option<String> {
        match (self.tag(), self.0.digest()) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }

    /// `name@digest` for a digest of this repository.
    pub fn repo_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// The reference as the registry client wants it.
    pub(crate) fn as_client(&self) -> &oci_client::Reference {
        &self.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ErrorKind;

    #[test]
    fn short_names_are_made_whole() {
        let d = format!("sha256:{}", "a".repeat(64));
        for (text, whole) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("bitnami/redis", "docker.io/bitnami/redis:latest".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("localhost/x:1", "localhost/x:1".to_owned()),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest".to_owned()),
            ("host:5000/a/b:t", "host:5000/a/b:t".to_owned()),
            (&format!("nginx@{d}"), format!("docker.io/library/nginx@{d}")),
            (&format!("nginx:1@{d}"), format!("docker.io/library/nginx:1@{d}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), whole);
        }
    }

    #[test]
    fn a_bad_name_is_an_invalid_name() {
        let upper = format!("nginx@sha256:{}", "A".repeat(64));
        for text in [
            "",
            "Nginx",
            "a b",
            "nginx:",
            "nginx@sha256:12",
            "../x",
            "nginx:..",
            "x\n",
            &"a".repeat(64),
            &upper,
        ] {
            let error = Reference::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{text}");
        }
    }
}
