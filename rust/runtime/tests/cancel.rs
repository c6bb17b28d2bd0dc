//! A cancelled run or load ends, and later ones are not cancelled.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod common;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{library, model};
use headgate_core::error::{Code, Result};
use headgate_core::tensor::Shape;
use headgate_runtime::cancel::{CancelScope, ThreadHandle};
use headgate_runtime::{Binding, Session, SessionOptions};

/// So many turns of a loop that it does not end within a test.
const ENDLESS: i64 = i64::MAX;
/// Ten times the time that a cancelled run takes to end on a busy machine.
const HANGS: Duration = Duration::from_secs(30);

fn session() -> Session {
    Session::load(library(), &model("count.onnx"), SessionOptions::default()).unwrap()
}

fn count(session: &Session, times: i64) -> Result<f32> {
    let mut binding = Binding::new(library(), session.signature());
    for index in 0..2 {
        binding.input_mut(index).reshape(&Shape::new(&[1]).unwrap()).unwrap();
    }
    binding.input_mut(0).elements_mut::<f32>().unwrap()[0] = 0.5;
    binding.input_mut(1).elements_mut::<i64>().unwrap()[0] = times;
    binding.run(session)?;
    Ok(binding.output(0).unwrap().elements::<f32>().unwrap()[0])
}

#[test]
fn an_endless_run_ends_when_it_is_cancelled_and_the_next_one_on_its_thread_does_not() {
    let session = session();
    for _ in 0..20 {
        let (begun, begins) = channel();
        std::thread::scope(|threads| {
            let thread = threads.spawn(|| {
                let scope = CancelScope::begin();
                begun.send(scope.token()).unwrap();
                let ended = count(&session, ENDLESS);
                assert!(scope.is_cancelled());
                let refused = count(&session, 1);
                drop(scope);
                (ended, refused, count(&session, 3), CancelScope::begin().is_cancelled())
            });
            let token = begins.recv().unwrap();
            assert!(token.cancel());
            let start = Instant::now();
            let (ended, refused, after, cancelled) = thread.join().unwrap();
            assert!(start.elapsed() < HANGS);
            assert_eq!(ended.unwrap_err().code, Code::Cancelled);
            assert_eq!(refused.unwrap_err().code, Code::Cancelled, "nothing more in the same scope");
            assert_eq!((after.unwrap(), cancelled), (3.5, false));
            assert!(!token.cancel(), "it is over");
        });
    }
}

#[test]
fn one_thread_s_run_is_cancelled_and_no_other_of_the_session() {
    let session = session();
    std::thread::scope(|threads| {
        let (begun, begins) = channel();
        let theirs = &session;
        let endless = threads.spawn(move || {
            let _scope = CancelScope::begin();
            begun.send(ThreadHandle::here()).unwrap();
            count(theirs, ENDLESS)
        });
        let worker = begins.recv().unwrap();
        let other = threads.spawn(|| {
            let scope = CancelScope::begin();
            (0..2_000).map(|_| count(&session, 10)).all(|sum| sum == Ok(10.5)) && !scope.is_cancelled()
        });
        assert!(worker.current().unwrap().cancel());
        assert_eq!(endless.join().unwrap().unwrap_err().code, Code::Cancelled);
        assert!(other.join().unwrap());
        assert!(worker.current().is_none());
    });
}

#[test]
fn a_load_is_cancelled_and_the_next_one_is_not() {
    let scope = CancelScope::begin();
    assert!(scope.token().cancel());
    let load = || Session::load(library(), &model("count.onnx"), SessionOptions::default());
    assert_eq!(load().err().unwrap().code, Code::Cancelled);
    drop(scope);
    let _scope = CancelScope::begin();
    assert_eq!(count(&load().unwrap(), 1).unwrap(), 1.5);
}
