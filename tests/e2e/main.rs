//! End to end: a manifest appears in a directory, a container runs. Real agent, real files, real containers, on
//! libcontainer and on a private containerd. Root.

mod cli;
mod describe;
mod equal;
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
mod rotation;
mod security;
mod slices;
mod storm;
mod support;
mod volumes;
mod walk;
