//! Compiles the protocol files, without `protoc`.

use std::error::Error;

const FILES: [&str; 2] = ["proto/ingester.proto", "proto/frontend.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let files = protox::compile(FILES, ["proto"])?;
    // Chunks, columns and bodies are handed on as they are.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
