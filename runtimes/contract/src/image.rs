//! Images: what is asked for, what is present, how a pull goes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An image as the user names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSpec {
    /// Reference or id, as written.
    pub image: String,
    /// Annotations of the pod, for the runtime's eyes.
    pub annotations: BTreeMap<String, String>,
    /// Runtime class handler; empty for the default.
    pub runtime_handler: String,
}

impl From<&str> for ImageSpec {
    fn from(image: &str) -> Self {
        Self { image: image.to_owned(), ..Self::default() }
    }
}

/// An image that is present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// The id: digest of its configuration.
    pub id: String,
    /// Names with a tag.
    pub repo_tags: Vec<String>,
    /// Names with a digest.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// Numeric user of the configuration.
    pub uid: Option<i64>,
    /// User name of the configuration; empty for none or a numeric one.
    pub username: String,
    /// Never removed to make room.
    pub pinned: bool,
}

/// Credentials for a registry. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// None.
    #[default]
    Anonymous,
    /// User and password.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// A token.
    Bearer(String),
    /// An identity token, exchanged for an access token.
    Identity(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(..)",
            Self::Bearer(_) => "Bearer(..)",
            Self::Identity(_) => "Identity(..)",
        })
    }
}

/// One report of a pull or import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullEvent {
    /// The layer (digest), or the whole image.
    pub item: String,
    /// What is happening to it.
    pub phase: PullPhase,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0 when unknown.
    pub total: u64,
}

/// What is happening to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPhase {
    /// It is here already.
    Exists,
    /// Its bytes arrive.
    Downloading,
    /// It is unpacked.
    Extracting,
    /// It is ready.
    Done,
}

/// Where reports of a pull go; called often, must not block.
#[derive(Clone)]
pub struct PullProgress(Arc<dyn Fn(PullEvent) + Send + Sync>);

impl PullProgress {
    /// Reports go to `report`.
    pub fn new(report: impl Fn(PullEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    /// Nobody listens.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Reports one event.
    pub fn report(&self, event: PullEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for PullProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullProgress")
    }
}

/// A file system that holds images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFs {
    /// Mount point or directory.
    pub path: PathBuf,
    /// Bytes used by images.
    pub used_bytes: u64,
    /// Inodes used by images.
    pub used_inodes: u64,
}
