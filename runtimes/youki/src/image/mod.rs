//! The image store of the direct runtime: pulls and imports container images, keeps each layer unpacked once, and
//! names the directories overlayfs is to mount. Touches its own directory and the registry, nothing else.
//!
//! Everything that comes in is hostile until its digest is verified; see [`Limits`] for the bounds, and `unpack`
//! for what a layer may do (nothing outside its own directory). Several processes may use one store; any of them may
//! be killed at any moment. Only sha256 digests are supported. Needs root, and Linux 5.6 for openat2.

mod archive;
mod digest;
mod disk;
mod error;
mod grammar;
mod import;
mod index;
mod ingest;
pub(crate) mod inroot;
mod layer;
mod limits;
mod manifest;
mod progress;
mod pull;
mod reference;
mod registry;
mod spare;
mod store;
mod tarstream;
mod unpack;
#[cfg(test)]
mod unpack_tests;
pub mod user;

pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use import::Imported;
pub use limits::Limits;
pub use manifest::ImageConfig;
pub use progress::{Phase, Progress, Reporter};
pub use pull::PullOptions;
pub use reference::Reference;
pub use registry::Credentials;
pub use store::{Image, Removed, Store, Usage};
