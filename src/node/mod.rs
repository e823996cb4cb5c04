//! The node's side of a pod that no runtime looks after: cgroup parents, log links, facts of the machine. Blocking;
//! touches `/proc` and `/sys/fs/cgroup` below `kubepods`, the directory of log links, and the node's `resolv.conf`.

pub mod cgroup;
pub mod facts;
pub mod image_gc;
pub mod links;
pub mod resolver;
