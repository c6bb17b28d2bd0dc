//! `headgate._native`: the boundary between the data plane and Python.
//!
//! JSON bytes, strings and integers go in, and JSON bytes come out. No request, callback or Python object crosses the boundary. A call that
//! may wait goes through [`interpreter::detached`], which releases the interpreter lock. Read in this order: [`gateway`], [`load`],
//! [`functions`],
//! [`gates`], [`bench_functions`], [`interpreter`].

use pyo3::prelude::*;

mod bench_functions;
mod functions;
mod gates;
mod gateway;
mod interpreter;
mod load;

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<gateway::Gateway>()?;
    functions::register(module)?;
    gates::register(module)?;
    load::register(module)?;
    bench_functions::register(module)
}
