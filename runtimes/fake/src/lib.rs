//! A container runtime in memory with faults on demand, for tests only.
//!
//! [`World`] is plain data with synchronous verbs; a simulation drives it directly. [`Fake`] is the same world behind
//! the contract's trait, with a clock that can be given, delays that honour tokio's paused time, and [`Fault`]s.
//! Keeps the promises of [`podstead_runtime::Runtime`]; touches nothing of the machine.

mod fake;
mod fault;
mod world;

pub use fake::Fake;
pub use fault::{Fault, Verb};
pub use world::{End, Event, World};
