//! Manifests: from files in a directory to the table of pods that should run.
//!
//! `watch` and `read` touch the file system; everything else here is pure. An unreadable file or directory is
//! never an empty one: it keeps its last good pods and shows why.

mod admit;
mod admit_env;
mod admit_life;
mod admit_names;
mod admit_parts;
mod admit_probes;
mod admit_security;
mod admit_volumes;
mod advice;
mod check;
mod claims;
mod default_probes;
mod defaults;
mod desired;
mod events;
mod examine;
mod identity;
mod last_good;
mod names;
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

pub use desired::{Desired, FileReport, FileState, SourceError};
pub use examine::{Examination, Finding};
pub(crate) use identity::canonical_container;
pub use identity::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, node_name};
pub use parse::{Judged, MAX_BYTES, ManifestPod, judge, validate};
pub use refusal::{Position, Refusal};
pub use watch::{FileSource, FileSourceConfig, SpawnError, spawn};
