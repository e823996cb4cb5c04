//! End to end: a manifest appears in a directory, a container runs. Real agent, real files, real containers, on
//! libcontainer and on a private containerd. Root.

mod cli;
mod images;
mod library;
mod names;
mod offline;
mod pods;
mod pulls;
mod rotation;
mod storm;
mod support;
mod walk;
