//! podstead keeps Kubernetes static pods running on a node.

pub mod config;
pub mod manifest;
pub mod node;
pub mod plan;
pub mod pod;
