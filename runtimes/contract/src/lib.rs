//! The contract between podstead's agent and a container runtime.
