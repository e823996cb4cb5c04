//! The node's side of a pod that no runtime looks after: cgroup parents, log links and rotation, image collection, facts of
//! the machine, ids for user namespaces. Touches `/proc`, `/sys/fs/cgroup` below `kubepods`, the pods' logs and the links to
//! them, the file `userns` of pods, and the node's `resolv.conf`; `image_gc` and `log_rotation` also ask the runtime.

pub mod capacity;
pub mod cgroup;
pub mod facts;
pub mod image_gc;
pub mod levels;
pub mod links;
pub mod log_rotation;
pub mod resolver;
pub mod systemd;
pub mod userns;
