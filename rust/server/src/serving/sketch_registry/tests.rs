//! A report and a slow file keep no other call waiting.

use std::sync::mpsc::channel;
use std::time::Duration;

use headgate_core::tensor::DataType;
use serde_json::json;

use super::*;

/// After this long a test is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

fn sketches() -> Arc<SketchRegistry> {
    Arc::new(SketchRegistry::new(&Config::from_json(br#"{"http": "127.0.0.1:0"}"#).unwrap()))
}

fn spec(name: &str, baseline: Option<&str>) -> EndpointSpec {
    let drift = baseline.map_or(json!({}), |_| json!({"baseline": "sha256:11"}));
    let state = json!({
        "name": name,
        "revision": 1,
        "spec": {
            "versions": {"1": {"digest": "sha256:00"}},
            "traffic": {"champion": "1"},
            "limits": {"timeout": 1000},
            "drift": drift,
        },
        "traffic": {"champion": "1", "last_good": "1"},
        "load": {"versions": ["1"], "artifacts": {"1": "/nowhere"}, "baseline": baseline},
    });
    EndpointSpec::from_json(state.to_string().as_bytes()).unwrap()
}

fn signature() -> Signature {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: vec![-1, 4],
        symbols: vec![],
        any_rank: false,
        labels: Vec::new(),
    };
    Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")], ..Signature::default() }
}

fn publish(sketches: &SketchRegistry, name: &str) -> Arc<VersionSketch> {
    let spec = spec(name, None);
    sketches.version(&spec, &spec.versions[0], &signature(), None).unwrap().unwrap()
}

/// Runs `task` on a thread of its own, so that a task that never ends fails the test instead of hanging it.
fn within_patience<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = channel();
    std::thread::spawn(move || done.send(task()));
    finished.recv_timeout(PATIENCE).expect("the task waits for something that does not end")
}

#[test]
fn publishing_and_collecting_go_on_while_a_report_is_made() {
    let sketches = sketches();
    let reported = publish(&sketches, "reported");
    let entry = sketches.versions().get(&reported.id).unwrap().clone();
    // The lock that a report holds while it copies.
    let _report = entry.counts.lock().unwrap();
    let shared = sketches.clone();
    let (same, other) = within_patience(move || {
        shared.collect(unix_now());
        (publish(&shared, "reported"), publish(&shared, "other"))
    });
    assert_eq!(same.id, reported.id);
    assert_ne!(other.id, reported.id);
    within_patience(move || sketches.report("other", &[other.id], 3600)).unwrap();
}

#[test]
fn a_slow_read_of_a_baseline_delays_no_other_call() {
    let folder = std::env::temp_dir().join(format!("headgate-drift-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let pipe = folder.join("slow");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let sketches = sketches();
    let slow = spec("slow", pipe.to_str());
    let (begun, opened) = channel();
    let reader = std::thread::spawn({
        let sketches = sketches.clone();
        move || sketches.baseline(&slow).map(|_| ())
    });
    // Opening the pipe for writing succeeds once the reader has opened its end.
    std::thread::spawn(move || begun.send(std::fs::File::options().write(true).open(pipe)));
    let writer = opened.recv_timeout(PATIENCE).unwrap().unwrap();
    let missing = spec("other", folder.join("missing").to_str());
    let refused = within_patience({
        let sketches = sketches.clone();
        move || sketches.baseline(&missing).unwrap_err()
    });
    assert_eq!(refused.code, Code::PolicyInvalid);
    drop(writer);
    assert_eq!(reader.join().unwrap().unwrap_err().code, Code::PolicyInvalid, "an empty file is no baseline");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn versions_that_are_not_served_are_dropped() {
    let sketches = sketches();
    assert_eq!(sketches.bytes(), 0);
    let kept = publish(&sketches, "kept");
    let one = sketches.bytes();
    assert!(one > 0, "a plan takes memory");
    let gone = publish(&sketches, "gone");
    let writer = gone.opener.open().unwrap();
    assert!(sketches.bytes() >= 2 * one + writer.bytes());
    drop((gone, writer));
    sketches.collect(unix_now());
    assert_eq!(sketches.versions().keys().collect::<Vec<_>>(), [&kept.id]);
    assert_eq!(sketches.bytes(), one, "everything is given back");
}
