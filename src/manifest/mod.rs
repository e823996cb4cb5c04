//! Manifests: from files in directories and a document behind a URL to the table of pods that should run.
//!
//! `watch`, `place` and `read` touch the file system, `url` the network; everything else here is pure. An unreadable file,
//! directory or URL is never an empty one: it keeps its last good pods and shows why.

mod admit;
mod admit_env;
mod admit_life;
mod admit_names;
mod admit_node;
mod admit_parts;
mod admit_probes;
mod admit_security;
mod admit_volumes;
mod advice;
mod check;
mod claims;
mod default_probes;
mod default_resources;
mod defaults;
mod desired;
mod events;
mod examine;
mod identity;
mod last_good;
mod merge;
pub(crate) mod names;
mod origin;
mod parse;
mod place;
mod read;
mod refusal;
mod scalar;
mod schema;
mod seen;
mod source;
mod sources;
pub mod support;
mod tracked;
mod tree;
mod trust;
mod url;
mod watch;

pub(crate) use check::nearest;
pub use desired::{Desired, DocumentReport, FileReport, FileState, SourceError, SourceKind, SourceReport};
pub use examine::{Examination, Finding};
pub use identity::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, node_name};
pub(crate) use identity::{canonical_container, canonical_security_context};
pub use parse::{Judged, MAX_BYTES, ManifestPod, judge, validate};
pub(crate) use refusal::Refusals;
pub use refusal::{Position, Refusal};
pub(crate) use scalar::Scalar;
pub use sources::{Sources, SourcesConfig, SpawnError, look, spawn};
pub(crate) use tree::{Node, Value, documents};
pub use trust::Waivers;
pub use url::UrlConfig;
