//! podstead keeps Kubernetes static pods running on a node.

pub mod config;
pub mod node;
pub mod plan;
pub mod pod;
