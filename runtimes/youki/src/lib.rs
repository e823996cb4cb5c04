//! podstead's direct runtime on libcontainer, without any daemon.

pub mod image;
