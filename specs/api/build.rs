//! Compiles the protocol without protoc: protox parses, prost and tonic write.

const FILES: [&str; 6] = [
    "hull/v1/types.proto",
    "hull/v1/images.proto",
    "hull/v1/networks.proto",
    "hull/v1/containers.proto",
    "hull/v1/volumes.proto",
    "hull/v1/system.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let set = std::path::Path::new(&std::env::var("OUT_DIR")?).join("hull.v1.bin");
    std::fs::write(set, prost::Message::encode_to_vec(&descriptors))?;
    // What holds secrets is printed by hand (lib.rs).
    tonic_prost_build::configure()
        // `connect` of the transport would have the name of one of our own calls.
        .build_transport(false)
        .skip_debug([".hull.v1.Credentials", ".hull.v1.CheckCredentialsResponse"])
        .compile_fds(descriptors)?;
    Ok(())
}
