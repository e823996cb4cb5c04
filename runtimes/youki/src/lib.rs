//! podstead's direct runtime on libcontainer, without any daemon.
//!
//! `unsafe` is allowed in `launch/system.rs` and `shim/signals.rs` only.

pub mod bundle;
mod cgroup;
pub mod direct;
pub mod image;
mod launch;
pub mod namespace;
pub mod network;
mod selinux;
pub mod shim;

pub use direct::{Direct, DirectOptions};
