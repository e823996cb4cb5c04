//! Compiles the repository's `proto/runtime/v1/api.proto` into client and server code, without protoc.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let file = root.join("runtime/v1/api.proto");
    println!("cargo:rerun-if-changed={}", file.display());
    let descriptors = protox::compile([&file], [&root])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Answers Unimplemented for what a server of ours leaves out, as older CRI servers do.
        .generate_default_stubs(true)
        // Credentials: Debug is written by hand in src/proto.rs.
        .skip_debug([".runtime.v1.AuthConfig"])
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
