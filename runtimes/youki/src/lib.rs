//! podstead's direct runtime on libcontainer, without any daemon.

pub mod bundle;
pub mod image;
pub mod namespace;
pub mod network;
