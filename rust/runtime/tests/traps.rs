//! Integer divisions that trap: their run fails, and the process and all other runs go on.
#![cfg(target_arch = "x86_64")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use common::{library, model};
use headgate_core::error::{Code, Result};
use headgate_core::tensor::Shape;
use headgate_runtime::{Binding, Element, Session, SessionOptions, trap};

fn session(name: &str, intra_threads: u16) -> Session {
    let options = SessionOptions { intra_threads, ..SessionOptions::default() };
    Session::load(library(), &model(name), options).unwrap()
}

fn divide<T: Element + Copy>(session: &Session, of: T, by: T, count: usize) -> Result<T> {
    let mut binding = Binding::new(library(), session.signature());
    for (index, value) in [of, by].into_iter().enumerate() {
        binding.input_mut(index).reshape(&Shape::new(&[count as i64]).unwrap()).unwrap();
        binding.input_mut(index).elements_mut::<T>().unwrap().fill(value);
    }
    binding.run(session)?;
    Ok(binding.output(0).unwrap().elements::<T>().unwrap()[count - 1])
}

#[test]
fn a_division_without_a_result_fails_its_run_and_no_other() {
    let before = trap::stepped_over();
    for _ in 0..3 {
        let error = divide(&session("divide_int64.onnx", 1), i64::MIN, -1, 1).unwrap_err();
        assert_eq!(error.code, Code::BackendFailed);
        assert!(error.message.contains("divides an integer by zero"), "{error}");
        assert_eq!(divide(&session("divide_int64.onnx", 1), 42i64, -2, 1).unwrap(), -21);
        assert!(divide(&session("divide_int32.onnx", 1), i32::MIN, -1, 1).is_err());
        assert_eq!(divide(&session("divide_int32.onnx", 1), i32::MIN, 1, 1).unwrap(), i32::MIN);
    }
    assert!(trap::stepped_over() >= before + 6);
}

#[test]
fn zero_has_no_quotient_either() {
    assert!(divide(&session("divide_int64.onnx", 1), 7i64, 0, 1).is_err());
    assert!(divide(&session("divide_int64.onnx", 1), 7i64, 0, 3).is_err());
}

#[test]
fn a_division_on_a_thread_of_the_session_fails_the_session_s_runs_alone() {
    let (bad, good) = (session("divide_int64.onnx", 4), session("divide_int64.onnx", 4));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let innocent = scope.spawn(|| {
            let mut runs = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(divide(&good, 42i64, -2, 1 << 16).unwrap(), -21);
                runs += 1;
            }
            runs
        });
        for _ in 0..20 {
            assert!(divide(&bad, i64::MIN, -1, 1 << 16).is_err());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(innocent.join().unwrap() > 0);
    });
    assert_eq!(divide(&bad, 42i64, -2, 1 << 16).unwrap(), -21);
}

#[test]
fn between_constants_it_fails_the_load() {
    let error =
        Session::load(library(), &model("divide_constants.onnx"), SessionOptions::default()).err().unwrap();
    assert_eq!(error.code, Code::ModelLoadFailed);
    assert!(error.message.contains("divides an integer by zero"), "{error}");
    assert_eq!(
        divide(&session("divide_int64.onnx", 1), 42i64, -2, 1).unwrap(),
        -21,
        "the thread is not marked"
    );
}
