//! Runs of real models: which outputs get our buffers, and how long the value of an optional input holds.

use std::path::{Path, PathBuf};

use super::*;
use crate::session::SessionOptions;
use crate::shape_rule::OutputRules;

fn session(name: &str) -> Session {
    let path = std::env::var_os("HEADGATE_ORT_LIBRARY").expect("`make test` names the library");
    let library = Library::open(&PathBuf::from(path)).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name);
    Session::load(library, &model, SessionOptions::default()).unwrap()
}

/// A session with wrong rules: they do not know that an output is an input.
fn fooled(name: &str) -> Session {
    let mut session = session(name);
    let mut signature = session.signature().clone();
    signature.inputs.iter_mut().for_each(|input| input.name.push('_'));
    session.rules = Arc::new(OutputRules::derive(&signature, &[]));
    session
}

fn shape(session: &Session, index: usize, which: Preallocation) -> Option<Shape> {
    let rows = Shape::new(&[3]).unwrap();
    session.rules.shape(index, which, |_| &rows)
}

fn proven(session: &Session) -> Vec<bool> {
    let outputs = 0..session.signature().outputs.len();
    outputs.map(|index| shape(session, index, Preallocation::Proven).is_some()).collect()
}

fn run(session: &Session, binding: &mut Binding, values: [f32; 3]) -> Vec<Vec<f32>> {
    fill(binding, values);
    binding.run(session).unwrap();
    let outputs = 0..binding.outputs();
    outputs.map(|index| binding.output(index).unwrap().elements::<f32>().unwrap().to_vec()).collect()
}

fn fill(binding: &mut Binding, values: [f32; 3]) {
    let input = binding.input_mut(0);
    input.reshape(&Shape::new(&[3]).unwrap()).unwrap();
    input.elements_mut::<f32>().unwrap().copy_from_slice(&values);
}

#[test]
fn an_output_that_is_left_alone_gets_no_buffer_once_it_was_checked() {
    let session = fooled("negative_and_input.onnx");
    let mut binding = Binding::new(session.library, session.signature());
    assert_eq!(proven(&session), [false, false], "nothing before a run");
    fill(&mut binding, [1.0, 2.0, 3.0]);
    binding.check_outputs(&session).unwrap();
    assert_eq!(proven(&session), [true, false]);
    for first in [5.0, 6.0] {
        let values = [first, 8.0, 9.0];
        assert_eq!(run(&session, &mut binding, values), [values.map(|value| -value), values]);
    }
    assert!(binding.outputs[0].allocated.is_none() && binding.outputs[1].allocated.is_some());
    assert!(binding.has_allocated_outputs());
    binding.forget();
    assert!(!binding.has_allocated_outputs());
}

#[test]
fn an_output_that_is_left_alone_later_is_noticed_and_right() {
    let session = fooled("negative_and_input.onnx");
    let mut binding = Binding::new(session.library, session.signature());
    (0..2).for_each(|index| session.rules.mark_proven(index));
    let values = [7.0, 8.0, 9.0];
    assert_eq!(run(&session, &mut binding, values), [values.map(|value| -value), values]);
    assert_eq!(proven(&session), [true, false]);
}

#[test]
fn a_mark_is_seen_in_every_size_until_it_is_overwritten() {
    let session = fooled("negative_and_input.onnx");
    let mut tensor = Tensor::new(session.library, DataType::Uint8);
    for size in 0..40 {
        tensor.reshape(&Shape::new(&[size]).unwrap()).unwrap();
        tensor.write_sentinel();
        assert_eq!(tensor.has_sentinel(), size > 0, "{size}");
        tensor.bytes_mut().unwrap().fill(0);
        assert!(!tensor.has_sentinel(), "{size}");
    }
}

#[test]
fn a_size_that_was_not_declared_is_noticed_without_a_look_at_words() {
    let session = fooled("shape_liar.onnx");
    let mut binding = Binding::new(session.library, session.signature());
    session.rules.mark_proven(0);
    binding.input_mut(1).reshape(&Shape::new(&[3]).unwrap()).unwrap();
    binding.input_mut(1).elements_mut::<u8>().unwrap().copy_from_slice(&[1, 0, 1]);
    assert_eq!(run(&session, &mut binding, [1.0, 2.0, 3.0]), [[1.0, 3.0]]);
    assert_eq!(proven(&session), [false]);
}

/// Runs the model with `x`, which it reshapes to `given` or to its own `[2, 3]`.
fn reshaped(session: &Session, binding: &mut Binding, given: Option<[i64; 2]>) -> (Vec<i64>, bool) {
    let shape = Shape::new(&[6]).unwrap();
    binding.input_mut(0).reshape(&shape).unwrap();
    binding.input_mut(0).elements_mut::<f32>().unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    if let Some(dims) = given {
        let tensor = binding.optional_input_mut(1);
        tensor.reshape(&Shape::new(&[2]).unwrap()).unwrap();
        tensor.elements_mut::<i64>().unwrap().copy_from_slice(&dims);
    }
    binding.run(session).unwrap();
    let view = binding.output(0).unwrap();
    assert_eq!(view.elements::<f32>().unwrap()[5], -6.0);
    let found = view.shape.dims().collect::<Vec<_>>();
    let is_ours = binding.outputs[0].allocated.is_none();
    binding.forget();
    (found, is_ours)
}

#[test]
fn a_value_in_place_of_an_initialiser_holds_for_one_run_and_gets_no_buffer() {
    let session = session("reshape_by_initializer.onnx");
    let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&session.signature().inputs), ["x"]);
    assert_eq!(names(&session.signature().optional_inputs), ["unused", "shape"]);
    let mut binding = Binding::new(session.library, session.signature());
    session.rules.mark_proven(0);
    let own = (vec![2, 3], true);
    for given in [[3, 2], [6, 1], [2, 3]] {
        assert_eq!(reshaped(&session, &mut binding, None), own);
        assert_eq!(reshaped(&session, &mut binding, Some(given)), (given.to_vec(), false));
        assert_eq!(reshaped(&session, &mut binding, None), own);
    }
}

#[test]
fn runs_with_optional_inputs_prove_no_rule() {
    let session = session("reshape_by_initializer.onnx");
    let mut binding = Binding::new(session.library, session.signature());
    for (given, rule) in [(true, false), (false, true)] {
        let input = binding.input_mut(0);
        input.reshape(&Shape::new(&[6]).unwrap()).unwrap();
        if given {
            let tensor = binding.optional_input_mut(1);
            tensor.reshape(&Shape::new(&[2]).unwrap()).unwrap();
            tensor.elements_mut::<i64>().unwrap().copy_from_slice(&[3, 2]);
        }
        binding.check_outputs(&session).unwrap();
        assert_eq!(proven(&session), [rule]);
        binding.forget();
    }
}

#[test]
fn a_request_that_fails_is_no_reason_to_distrust_a_rule() {
    let session = fooled("gather.onnx");
    let mut binding = Binding::new(session.library, session.signature());
    session.rules.mark_proven(0);
    let index = binding.input_mut(0);
    index.reshape(&Shape::new(&[1]).unwrap()).unwrap();
    index.elements_mut::<i64>().unwrap()[0] = 99;
    assert_eq!(binding.run(&session).unwrap_err().code, Code::BackendFailed);
    assert_eq!(proven(&session), [true]);
}

#[test]
fn adopted_bytes_of_an_optional_input_count_with_their_body_for_one_run() {
    let session = session("reshape_by_initializer.onnx");
    let mut binding = Binding::new(session.library, session.signature());
    let body = bytes::Bytes::from(vec![0u8; 1 << 16]);
    let start = (body.as_ptr() as usize).wrapping_neg() % 8;
    let tensor = binding.optional_input_mut(1);
    let (shape, bytes) = (Shape::new(&[2]).unwrap(), body.slice(start..start + 16));
    tensor.adopt(&shape, bytes, body.len()).unwrap();
    assert!(binding.held_bytes() >= body.len());
    binding.copy_small_adopted(16).unwrap();
    assert!(binding.held_bytes() < body.len() && body.is_unique());
    binding.forget();
    assert!(binding.held_bytes() < body.len());
}
