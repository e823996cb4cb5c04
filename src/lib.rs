//! podstead keeps Kubernetes static pods running on a node.
//!
//! The way of a manifest: [`manifest`] reads it, [`desired`] makes it a row of what should be, [`observe`] reads what is,
//! [`plan`] decides, [`execute`] acts through a [`podstead_runtime::Runtime`]; [`reconcile`] is the loop around them.

pub mod agent;
pub mod backend;
pub mod cli;
pub mod conditions;
pub mod config;
pub mod credentials;
pub mod desired;
pub mod events;
pub mod execute;
pub mod hooks;
pub mod images;
pub mod manifest;
pub mod node;
pub mod observe;
pub mod plan;
pub mod pod;
pub mod probe;
pub mod probing;
pub mod publish;
pub mod publish_manifests;
pub mod quantity;
pub mod reconcile;
pub mod report;
mod resize;
pub mod status;
pub mod testing;
