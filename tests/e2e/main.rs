//! End to end: a manifest appears in a directory, a container runs. Real agent, real files, real containers, on
//! libcontainer and on a private containerd. Root.

mod cli;
mod describe;
mod images;
mod library;
mod life;
mod names;
mod offline;
mod plan;
mod pods;
mod probes;
mod pulls;
mod rotation;
mod security;
mod slices;
mod sources;
mod storm;
mod support;
mod volumes;
mod walk;
#[path = "../manifest/web.rs"]
mod web;
