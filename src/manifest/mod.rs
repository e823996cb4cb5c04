//! Manifests: from files in a directory to the table of pods that should run.
//!
//! `watch` and `read` touch the file system; everything else here is pure. An unreadable file or directory is
//! never an empty one: it keeps its last good pods and shows why.

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
pub(crate) mod names;
mod parse;
mod read;
mod refusal;
mod scalar;
mod schema;
mod source;
pub mod support;
mod tracked;
mod tree;
mod watch;

pub(crate) use check::nearest;
pub use desired::{Desired, FileReport, FileState, SourceError};
pub use examine::{Examination, Finding};
pub use identity::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, node_name};
pub(crate) use identity::{canonical_container, canonical_security_context};
pub use parse::{Judged, MAX_BYTES, ManifestPod, judge, validate};
pub(crate) use refusal::Refusals;
pub use refusal::{Position, Refusal};
pub(crate) use scalar::Scalar;
pub(crate) use tree::{Node, Value, documents};
pub use watch::{FileSource, FileSourceConfig, SpawnError, spawn};
