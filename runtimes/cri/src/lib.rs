//! podstead's runtime over any CRI v1 server.
pub mod proto;
