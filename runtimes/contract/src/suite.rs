//! The promises of [`Runtime`](crate::Runtime) as tests, generic over the runtime.
