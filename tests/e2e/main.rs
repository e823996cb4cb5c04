//! End to end: a manifest appears in a directory, a container runs. Real agent, real files, real containers, on
//! libcontainer and on a private containerd. Root.

mod cli;
mod configuration;
mod describe;
mod equal;
mod field;
mod images;
mod library;
mod life;
mod names;
mod offline;
mod plan;
mod pods;
mod probes;
mod pulls;
mod random;
mod resize;
mod room;
mod rotation;
mod security;
mod settings;
mod slices;
mod sources;
mod storm;
mod support;
mod users;
mod volumes;
mod walk;
#[path = "../manifest/web.rs"]
mod web;
