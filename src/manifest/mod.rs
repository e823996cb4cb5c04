//! Manifests.
mod refusal;
mod scalar;
mod schema;
mod tree;
