//! The container shim as a program of its own, for tests and for programs that use the crate as a library.

use std::process::ExitCode;

fn main() -> ExitCode {
    podstead_youki::shim::dispatch().unwrap_or_else(|| {
        eprintln!("podstead-shim: started by podstead, not by hand");
        ExitCode::from(2)
    })
}
