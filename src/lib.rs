//! podstead keeps Kubernetes static pods running on a node.

pub mod manifest;
