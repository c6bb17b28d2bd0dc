//! Sessions on a device with the real library, and with a stand-in for the driver.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod standin;

use std::sync::Arc;

use common::{library, model};
use headgate_core::error::Code;
use headgate_core::tensor::Shape;
use headgate_runtime::device::{DeviceSession, Driver};
use headgate_runtime::{Binding, Session, SessionOptions};
use standin::StandIn;

fn load(driver: &Arc<StandIn>, name: &str) -> DeviceSession {
    let driver: Arc<dyn Driver> = driver.clone();
    DeviceSession::load(library(), driver, &model(name), SessionOptions::default()).unwrap()
}

fn binding(driver: &Arc<StandIn>, session: &DeviceSession) -> Binding {
    let driver: Arc<dyn Driver> = driver.clone();
    Binding::with_driver(Some(&driver), library(), session.signature())
}

/// Fills the first input with `rows` rows of numbers that begin at `first`.
fn fill(binding: &mut Binding, rows: usize, first: f32) -> Vec<f32> {
    let shape = Shape::new(&[rows as i64, 4]).unwrap();
    binding.input_mut(0).reshape(&shape).unwrap();
    let values = binding.input_mut(0).elements_mut::<f32>().unwrap();
    values.iter_mut().enumerate().for_each(|(at, value)| *value = first + at as f32 / 100.0);
    values.to_vec()
}

/// The outputs of the CPU.
fn wanted(name: &str, rows: usize, values: &[f32]) -> Vec<Vec<f32>> {
    let session = Session::load(library(), &model(name), SessionOptions::default()).unwrap();
    let mut binding = Binding::new(library(), session.signature());
    binding.input_mut(0).reshape(&Shape::new(&[rows as i64, 4]).unwrap()).unwrap();
    binding.input_mut(0).elements_mut::<f32>().unwrap().copy_from_slice(values);
    binding.run(&session).unwrap();
    outputs(&binding)
}

fn outputs(binding: &Binding) -> Vec<Vec<f32>> {
    (0..binding.outputs())
        .filter_map(|index| Some(binding.output(index).unwrap().elements::<f32>()?.to_vec()))
        .collect()
}

#[test]
fn a_device_offers_no_optional_inputs_and_says_so() {
    let (signature, remark) = load(&StandIn::new(), "reshape_by_initializer.onnx").described();
    assert_eq!((signature.inputs.len(), signature.optional_inputs.len()), (1, 0));
    let said = "optional inputs that are not offered: \"unused\" (a device takes none), \"shape\" (a device takes none)";
    assert_eq!(remark.unwrap(), said);
}

#[test]
fn a_run_answers_what_the_processor_answers_and_binds_each_shape_once() {
    let driver = StandIn::new();
    let mut session = load(&driver, "mlp.onnx");
    let mut binding = binding(&driver, &session);
    fill(&mut binding, 4, 0.0);
    session.run(&mut binding).unwrap();
    let log = driver.log();
    assert!(!log.contains(&"copy_out"), "nothing is made before a run has shown that it is written: {log:?}");
    session.check_outputs(&mut binding).unwrap();
    for (rows, first) in [(4, 0.0), (4, 3.0), (1, 1.0), (9, 2.0), (4, 5.0)] {
        let values = fill(&mut binding, rows, first);
        session.run(&mut binding).unwrap();
        assert_eq!(outputs(&binding), wanted("mlp.onnx", rows, &values));
    }
    driver.log();
    let values = fill(&mut binding, 4, 7.0);
    session.run(&mut binding).unwrap();
    let outputs = session.signature().outputs.len();
    let mut log = vec!["copy_in"];
    log.extend(vec!["copy_out"; outputs]);
    log.push("synchronize");
    assert_eq!(driver.log(), log, "no memory is made for a shape that was there");
    assert_eq!(crate::outputs(&binding), wanted("mlp.onnx", 4, &values));
    drop((session, binding));
    assert_eq!(driver.held(), (0, 0, 0, 0));
}

#[test]
fn several_runs_are_in_the_air_at_a_time() {
    let driver = StandIn::new();
    let mut session = load(&driver, "mlp.onnx");
    let mut bindings: Vec<Binding> = (0..9).map(|_| binding(&driver, &session)).collect();
    let values: Vec<_> =
        bindings.iter_mut().enumerate().map(|(at, binding)| fill(binding, 2, at as f32)).collect();
    let (last, others) = bindings.split_last_mut().unwrap();
    // SAFETY: each is finished below and left alone until then.
    let mut flights: Vec<_> = others.iter_mut().map(|one| unsafe { session.begin(one).unwrap() }).collect();
    // SAFETY: as above.
    let refused = unsafe { session.begin(last) }.unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    session.finish(flights.remove(0), &mut others[0]).unwrap();
    // SAFETY: as above.
    let flight = unsafe { session.begin(last).unwrap() };
    for (flight, binding) in flights.into_iter().zip(&mut others[1..]) {
        session.finish(flight, binding).unwrap();
    }
    session.finish(flight, last).unwrap();
    for (binding, values) in bindings.iter().zip(&values) {
        assert_eq!(outputs(binding), wanted("mlp.onnx", 2, values));
    }
}

#[test]
fn what_the_host_reads_is_read_there_by_every_run() {
    let driver = StandIn::new();
    driver.reads_on_host(1);
    let mut session = load(&driver, "two_inputs.onnx");
    let mut binding = binding(&driver, &session);
    let sum = |session: &mut DeviceSession, binding: &mut Binding, addends: [f64; 2]| {
        for (index, value) in addends.into_iter().enumerate() {
            let input = binding.input_mut(index);
            input.reshape(&Shape::new(&[3, 2]).unwrap()).unwrap();
            input.elements_mut::<f64>().unwrap().fill(value);
        }
        session.run(binding).unwrap();
        binding.output(0).unwrap().elements::<f64>().unwrap().to_vec()
    };
    assert_eq!(sum(&mut session, &mut binding, [1.0, 10.0]), [11.0; 6]);
    let log = driver.log();
    assert_eq!(log.iter().filter(|call| **call == "copy_in").count(), 1, "{log:?}");
    // Each run reads the input again.
    assert_eq!(sum(&mut session, &mut binding, [2.0, 10.0]), [12.0; 6]);
    assert_eq!(sum(&mut session, &mut binding, [2.0, 30.0]), [32.0; 6]);
    let mut other = self::binding(&driver, &session);
    assert_eq!(sum(&mut session, &mut other, [3.0, 50.0]), [53.0; 6]);
    let driver = StandIn::new();
    driver.reads_on_host(0);
    let whole: Arc<dyn Driver> = driver.clone();
    let refused = DeviceSession::load(library(), whole, &model("mlp.onnx"), SessionOptions::default());
    assert!(refused.err().unwrap().message.contains("leave run.device out"));
}

#[test]
fn after_a_failure_nothing_is_in_the_air_and_the_next_run_works() {
    for call in ["allocate", "copy_in", "copy_out", "synchronize"] {
        let driver = StandIn::new();
        let mut session = load(&driver, "mlp.onnx");
        let mut binding = binding(&driver, &session);
        fill(&mut binding, 1, 1.0);
        session.check_outputs(&mut binding).unwrap();
        for _ in 0..3 {
            fill(&mut binding, 300, 1.0);
            driver.fail(Some(call));
            let error = session.run(&mut binding).unwrap_err();
            assert_eq!((error.code, &*error.message), (Code::BackendFailed, &*format!("{call} failed")));
            driver.fail(None);
            if call == "allocate" {
                break;
            }
        }
        let values = fill(&mut binding, 300, 4.0);
        session.run(&mut binding).unwrap();
        assert_eq!(outputs(&binding), wanted("mlp.onnx", 300, &values));
        drop((session, binding));
        assert_eq!(driver.held(), (0, 0, 0, 0));
    }
}

#[test]
fn outputs_whose_size_nobody_knows_before_are_the_runtimes() {
    let driver = StandIn::new();
    let mut session = load(&driver, "shape_liar.onnx");
    let mut binding = binding(&driver, &session);
    let shape = Shape::new(&[3]).unwrap();
    let plain = Session::load(library(), &model("shape_liar.onnx"), SessionOptions::default()).unwrap();
    let mut other = Binding::new(library(), plain.signature());
    // The model declares that the output has all elements. At first that is right, then some are left out.
    for (at, keep) in [[1u8; 3], [1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0]].into_iter().enumerate() {
        for binding in [&mut binding, &mut other] {
            binding.input_mut(0).reshape(&shape).unwrap();
            binding.input_mut(0).elements_mut::<f32>().unwrap().copy_from_slice(&[1.0, 2.0, 3.0]);
            binding.input_mut(1).reshape(&shape).unwrap();
            binding.input_mut(1).bytes_mut().unwrap().copy_from_slice(&keep);
        }
        if at == 0 {
            session.check_outputs(&mut binding).unwrap();
        }
        session.run(&mut binding).unwrap();
        other.run(&plain).unwrap();
        let (got, wanted) = (binding.output(0).unwrap(), other.output(0).unwrap());
        assert_eq!((got.shape, got.elements::<f32>()), (wanted.shape, wanted.elements::<f32>()), "{keep:?}");
    }
}

#[test]
fn an_input_without_a_shape_is_no_reason_to_read_memory() {
    let driver = StandIn::new();
    let mut session = load(&driver, "shape_liar.onnx");
    let mut binding = binding(&driver, &session);
    assert_eq!(session.run(&mut binding).unwrap_err().code, Code::Internal);
}

#[test]
fn strings_and_a_missing_provider_are_refused_with_what_to_do() {
    let driver: Arc<dyn Driver> = StandIn::new();
    let path = model("identity_bytes.onnx");
    let error = DeviceSession::load(library(), driver, &path, SessionOptions::default()).err().unwrap();
    assert!(error.message.contains("leave run.device out"), "{error}");
    if !library().providers().unwrap().contains(&"CUDAExecutionProvider".to_owned()) {
        let error = headgate_runtime::device::provider::check_available(library()).unwrap_err();
        assert!(error.message.contains("pip install \"headgate[gpu]\""), "{error}");
    }
}
