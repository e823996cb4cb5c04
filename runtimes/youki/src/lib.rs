//! podstead's direct runtime on libcontainer, without any daemon.

pub mod image;
pub mod namespace;
pub mod network;
