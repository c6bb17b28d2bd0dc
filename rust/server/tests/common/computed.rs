//! Models that compute something of each value, under the digest of a version.

use std::sync::{Arc, Mutex};

use headgate_core::error::Result;
use headgate_core::spec::RunSpec;
use headgate_core::tensor::{Shape, Signature};
use headgate_engine::runtime::Binding;
use headgate_engine::{Executable, Model};
use headgate_server::gateway::Gateway;

use super::signature;

/// Makes an output of each value of the input.
pub struct Computed<F> {
    pub signature: Signature,
    pub compute: F,
}

impl<F: Fn(f32) -> Result<f32> + Send + Sync + 'static> Executable for Computed<F> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let values: Vec<f32> = binding.input(0).view()?.elements::<f32>().unwrap().to_vec();
        let computed = values.into_iter().map(&self.compute).collect::<Result<Vec<_>>>()?;
        let shape: Shape = *binding.input(0).shape();
        let output = binding.output_mut(0);
        output.reshape(&shape)?;
        output.elements_mut::<f32>().unwrap().copy_from_slice(&computed);
        Ok(())
    }
}

/// Keeps adopted models, which the engine knows for as long as something has them.
pub static ADOPTED: Mutex<Vec<Arc<Model>>> = Mutex::new(Vec::new());

pub fn adopt(gateway: &Gateway, version: &str, compute: impl Fn(f32) -> Result<f32> + Send + Sync + 'static) {
    adopt_as(gateway, version, &RunSpec::default(), compute);
}

pub fn adopt_as(
    gateway: &Gateway,
    version: &str,
    run: &RunSpec,
    compute: impl Fn(f32) -> Result<f32> + Send + Sync + 'static,
) {
    let executable = Computed { signature: signature(), compute };
    let model = gateway.engine().adopt(&format!("sha256:{version}"), Box::new(executable), run).unwrap();
    ADOPTED.lock().unwrap().push(model);
}
