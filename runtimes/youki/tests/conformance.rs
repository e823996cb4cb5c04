//! The contract's promises, kept with real containers on libcontainer.

mod direct_world;

use direct_world::world;

podstead_runtime::conformance!(world());
