//! A container runtime in memory with faults on demand, for tests only.
