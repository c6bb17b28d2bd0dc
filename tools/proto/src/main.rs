//! Generates the messages and services of `proto/*.proto`: `headgate-proto PROJECT_ROOT`.
//!
//! Messages go to the protocol crate, services to the server. The two calls of inference are left out of the services: the
//! server answers them without tonic.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

/// The calls that are not tonic's.
const OWN_CALLS: [&str; 2] = ["ModelInfer", "ModelStreamInfer"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::args().nth(1).ok_or("usage: headgate-proto PROJECT_ROOT")?);
    let descriptors = protox::compile(["inference.proto", "health.proto"], [root.join("proto")])?;
    let protocol = root.join("rust/protocol/src/generated");
    let server = root.join("rust/server/src/call/grpc/generated");
    for folder in [&protocol, &server] {
        std::fs::create_dir_all(folder)?;
    }
    let messages = tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .out_dir(&protocol);
    messages.compile_fds(descriptors.clone())?;
    let services = tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .extern_path(".inference", "::headgate_protocol::pb::inference")
        .extern_path(".grpc.health.v1", "::headgate_protocol::pb::health")
        .out_dir(&server);
    services.compile_fds(without_own_calls(descriptors.clone()))?;
    write(&server.join("descriptors.bin"), &described(descriptors).encode_to_vec())
}

fn without_own_calls(mut descriptors: prost_types::FileDescriptorSet) -> prost_types::FileDescriptorSet {
    for service in descriptors.file.iter_mut().flat_map(|file| &mut file.service) {
        service.method.retain(|method| !OWN_CALLS.contains(&method.name()));
    }
    descriptors
}

/// What reflection tells: everything but the places in the source.
fn described(mut descriptors: prost_types::FileDescriptorSet) -> prost_types::FileDescriptorSet {
    descriptors.file.iter_mut().for_each(|file| file.source_code_info = None);
    descriptors
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    Ok(std::fs::write(path, bytes)?)
}
