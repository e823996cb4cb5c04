//! The node's side of a pod that no runtime looks after: cgroup parents, log links, facts of the machine. Blocking;
//! touches `/proc` and `/sys/fs/cgroup` below `kubepods`, and the directory of log links.

pub mod cgroup;
pub mod facts;
pub mod links;
pub mod systemd;
