//! Updates that are withdrawn while they load: never served, reported once, and no other update is affected.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

use crate::common;
use crate::common::{PATIENCE, at_last, free, gateway, gateway_with, metric, other_end, pipe};
use headgate_core::spec::RunSpec;
use headgate_engine::Executable;
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name)
}

/// A new state of the endpoint "model" with one version.
fn apply(gateway: &Gateway, revision: u64, urgent: bool, path: &Path, digest: &str) -> u64 {
    let spec = json!({
        "name": "model", "revision": revision, "champion": "v1", "timeout_ms": 1000, "urgent": urgent,
        "versions": [{"name": "v1", "digest": digest, "artifact": path}],
    });
    gateway.apply(common::spec(&spec)).unwrap()
}

/// Serves "model" from memory at revision 1.
fn served(gateway: &Gateway) {
    common::serve(gateway, "model", free(), true);
}

fn revision(gateway: &Gateway) -> Value {
    gateway.status()["endpoints"]["model"]["revision"].clone()
}

/// The kinds of the events that have come, by ticket.
fn told(gateway: &Gateway) -> Vec<(Value, Value)> {
    gateway.events().into_iter().map(|event| (event["ticket"].clone(), event["event"].clone())).collect()
}

fn event(ticket: u64, kind: &str) -> (Value, Value) {
    (json!(ticket), json!(kind))
}

/// Writes a model into a pipe and closes it, so that the load that reads it goes on.
fn fill(mut end: File, with: &Path) {
    end.write_all(&std::fs::read(with).unwrap()).unwrap();
}

#[test]
fn an_update_that_is_withdrawn_while_it_loads_is_never_served_and_reported_once() {
    let (gateway, _) = gateway();
    served(&gateway);
    let folder = tempfile::tempdir().unwrap();
    let path = pipe(&folder);
    let ticket = apply(&gateway, 2, true, &path, "sha256:cold");
    let end = other_end(&path);
    assert!(gateway.withdraw(ticket));
    // Its event is there before the call returns, whatever its load does.
    assert_eq!(told(&gateway), [event(ticket, "superseded")]);
    assert!(!gateway.withdraw(ticket), "once");
    fill(end, &model("identity_fp32.onnx"));
    at_last("the end of the load", || {
        gateway.engine().find_loaded("sha256:cold", &RunSpec::default()).is_none()
    });
    // The loader thread is free again, and what is decided anew is served.
    let again = apply(&gateway, 3, true, &model("identity_fp32.onnx"), "sha256:other");
    let mut events = Vec::new();
    at_last("the outcome", || {
        events.extend(told(&gateway));
        !events.is_empty()
    });
    assert_eq!((events, revision(&gateway)), (vec![event(again, "applied")], json!(3)));
}

#[test]
fn it_is_too_late_for_what_is_served_or_failed_and_nothing_changes() {
    let (gateway, _) = gateway();
    served(&gateway);
    assert!(!gateway.withdraw(1) && !gateway.withdraw(999) && told(&gateway).is_empty());
    let ticket = apply(&gateway, 2, true, Path::new("nowhere.onnx"), "sha256:missing");
    let mut events = Vec::new();
    at_last("the outcome", || {
        events.extend(told(&gateway));
        !events.is_empty()
    });
    assert!(!gateway.withdraw(ticket));
    assert_eq!((events, told(&gateway)), (vec![event(ticket, "failed")], Vec::new()));
    assert_eq!(revision(&gateway), json!(1));
}

#[test]
fn a_newer_update_is_served_at_once_and_an_ordinary_load_keeps_its_rules() {
    let (gateway, _) = gateway();
    served(&gateway);
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [slow, hangs] = [pipe(&folders[0]), pipe(&folders[1])];
    let ordinary = apply(&gateway, 2, false, &slow, "sha256:slow");
    let end = other_end(&slow);
    let urgent = json!({
        "name": "model", "revision": 3, "champion": "v1", "timeout_ms": 1000, "urgent": true,
        "versions": [
            {"name": "v0", "digest": "sha256:hangs", "artifact": hangs},
            {"name": "v1", "digest": "sha256:slow", "artifact": slow},
        ],
    });
    let urgent = gateway.apply(common::spec(&urgent)).unwrap();
    let hung = other_end(&hangs);
    assert!(gateway.withdraw(urgent));
    assert_eq!(told(&gateway), [event(urgent, "superseded")]);
    // While an urgent update is in progress the ordinary one would be superseded; it is not any more.
    fill(end, &model("identity_fp32.onnx"));
    let mut events = Vec::new();
    at_last("the outcome", || {
        events.extend(told(&gateway));
        !events.is_empty()
    });
    assert_eq!((events, revision(&gateway)), (vec![event(ordinary, "applied")], json!(2)));
    let newer = apply(&gateway, 4, true, Path::new("adopted"), "sha256:slow");
    assert_eq!((told(&gateway), revision(&gateway)), (vec![event(newer, "applied")], json!(4)));
    drop(hung);
}

#[test]
fn a_withdrawn_load_that_hangs_is_abandoned_without_a_second_report() {
    let (gateway, _) = gateway_with(&json!({"load_timeout_ms": 100}));
    served(&gateway);
    let folder = tempfile::tempdir().unwrap();
    let path = pipe(&folder);
    let ticket = apply(&gateway, 2, true, &path, "sha256:cold");
    let end = other_end(&path);
    assert!(gateway.withdraw(ticket));
    assert_eq!(told(&gateway), [event(ticket, "superseded")]);
    let stuck = || metric(&gateway, "headgate_loads_stuck", &json!({"kind": "apply"}));
    at_last("that it is abandoned", || stuck() == 1);
    drop(end);
    at_last("its end", || stuck() == 0);
    assert!(told(&gateway).is_empty());
}

#[test]
fn a_withdrawal_beside_the_swap_is_true_exactly_if_the_update_is_not_served() {
    let (gateway, _) = gateway();
    served(&gateway);
    let mut withdrawn = 0;
    for round in 0..60_u64 {
        let ticket =
            apply(&gateway, round + 2, true, &model("identity_fp32.onnx"), &format!("sha256:{round}"));
        let together = Arc::new(Barrier::new(2));
        let (other, side) = (gateway.clone(), together.clone());
        let withdrawal = std::thread::spawn(move || {
            side.wait();
            other.withdraw(ticket)
        });
        // The first one is withdrawn at once; the later, the nearer to the end of its load, and the last after it.
        let mut events = Vec::new();
        let wait = std::time::Instant::now();
        while events.is_empty() && (round == 59 || wait.elapsed().as_micros() < u128::from(round) * 100) {
            events.extend(told(&gateway));
        }
        together.wait();
        let is_withdrawn = withdrawal.join().unwrap();
        at_last("the outcome", || {
            events.extend(told(&gateway));
            !events.is_empty()
        });
        let (kind, is_served) = (events[0].1.clone(), revision(&gateway) == json!(round + 2));
        assert_eq!(
            (&kind == "superseded", events.len(), is_served),
            (is_withdrawn, 1, !is_withdrawn),
            "{events:?}"
        );
        assert_eq!(events[0].0, json!(ticket));
        withdrawn += u64::from(is_withdrawn);
        assert!(round < 59 || !is_withdrawn, "it was served before");
    }
    assert!(withdrawn > 0, "none was withdrawn");
    at_last("the end of all loads", || {
        metric(&gateway, "headgate_loads_stuck", &json!({"kind": "apply"})) == 0
    });
    assert!(told(&gateway).is_empty(), "each was reported once");
}

/// A model of 4 MiB that can be evicted. Its loads are counted; each after the first waits for `go`.
fn evictable(
    gateway: &Gateway,
    folder: &Path,
    digest: &str,
) -> (Arc<AtomicUsize>, std::sync::mpsc::Sender<()>) {
    let path = folder.join(format!("{digest}.onnx"));
    File::create(&path).unwrap().set_len(4 << 20).unwrap();
    let (go, waits) = channel::<()>();
    let (count, waits) = (Arc::<AtomicUsize>::default(), Mutex::new(waits));
    let counted = count.clone();
    let make = move || -> headgate_core::error::Result<Arc<dyn Executable>> {
        if counted.fetch_add(1, SeqCst) > 0 {
            waits.lock().unwrap().recv_timeout(PATIENCE).expect("the test lets the load go on");
        }
        Ok(Arc::new(free()))
    };
    let model = gateway.engine().adopt_reloadable(digest, &path, make, &RunSpec::default()).unwrap();
    let adopted = json!({
        "name": digest, "revision": 1, "champion": "v1", "timeout_ms": 1000,
        "versions": [{"name": "v1", "digest": digest, "artifact": "adopted"}],
    });
    gateway.apply(common::spec(&adopted)).unwrap();
    drop(model);
    (count, go)
}

#[test]
fn the_load_of_a_model_that_was_evicted_goes_on_and_is_joined() {
    let (gateway, _) = gateway_with(&json!({"memory_budget_bytes": 11 << 20}));
    let folder = tempfile::tempdir().unwrap();
    let (loads, go) = evictable(&gateway, folder.path(), "good");
    let (_, _kept) = evictable(&gateway, folder.path(), "bad");
    let state = |revision: u64, champion: &str| {
        let spec = json!({
            "name": "model", "revision": revision, "champion": champion, "timeout_ms": 1000, "urgent": true,
            "versions": [
                {"name": "v1", "digest": "good", "artifact": "adopted"},
                {"name": "v2", "digest": "bad", "artifact": "adopted", "pinned": true},
            ],
        });
        gateway.apply(common::spec(&spec)).unwrap()
    };
    let first = state(1, "v2");
    // Makes room for itself: the model that was not used for the longest time leaves.
    let _other = evictable(&gateway, folder.path(), "other");
    let memory = || gateway.status()["endpoints"]["model"]["versions"]["v1"]["memory"]["state"].clone();
    assert_eq!(memory(), "cold");
    assert_eq!(told(&gateway).into_iter().filter(|one| one.0 == json!(first)).count(), 1);
    let rollback = state(2, "v1");
    at_last("the load", || loads.load(SeqCst) == 2);
    assert!(gateway.withdraw(rollback));
    let freeze = state(3, "v2");
    assert_eq!(told(&gateway), [event(rollback, "superseded"), event(freeze, "applied")]);
    let again = state(4, "v1");
    go.send(()).unwrap();
    let mut events = Vec::new();
    at_last("the outcome", || {
        events.extend(told(&gateway));
        !events.is_empty()
    });
    assert_eq!((events, revision(&gateway)), (vec![event(again, "applied")], json!(4)));
    assert_eq!(loads.load(SeqCst), 2, "loaded once more, not twice");
}
