//! The state that the control plane sends becomes the spec that the data plane uses.

use serde_json::json;

use super::*;

/// A state with every field, none of them with its default.
fn full() -> Value {
    json!({
        "name": "digits",
        "revision": 7,
        "spec": {
            "versions": {
                "v1": {"digest": "sha256:1", "compatible": true, "run": {
                    "placement": "pool", "instances": 2, "threads": 3, "max_batch": 8, "max_delay": 500,
                    "buckets": [4, 8], "arena": true, "graph_optimization": "basic",
                    "device": ["cuda:1", "cpu"], "device_memory": 1024,
                }},
                "v2": {"digest": "sha256:2", "compatible": false},
                "v3": {"digest": "sha256:3", "constant": {"Y": [1, 2]}, "compatible": true},
            },
            "traffic": {
                "champion": "v1", "weights": {"v2": 500}, "sticky": "header.X-User", "keep_warm": true,
                "fallback": {"to": ["v3", "v2"], "after": 250},
                "shadow": [{"to": "v1", "share": 500, "by": "sticky", "timeout": 50}, {"to": "v3", "share": 100}],
            },
            "capture": {"share": 100, "keep": 3_600_000, "max_size": 1024, "redact": ["X.a"]},
            "columns": {"X": ["a", "b"]},
            "labels": {"Y": ["one", "two"]},
            "drift": {"baseline": "sha256:4"},
            "limits": {
                "timeout": 2000,
                "rate": {"by": "header.x-caller", "per_second": 12.5, "burst": 40},
                "breaker": {"consecutive": 7, "success_rate": 7500, "window": 20_000, "min_requests": 10},
                "priority": {"by": "header.X-Class", "classes": ["gold", "batch"], "unnamed": "gold"},
            },
            "answers": {"non_finite": "string"},
        },
        "traffic": {
            "champion": "v2", "last_good": "v1", "table": {"salt": "digits/1/1", "given": [["v3", 0, 99]]},
        },
        "load": {
            "versions": ["v1", "v2", "v3"], "artifacts": {"v1": "one.onnx", "v2": "two.onnx"},
            "baseline": "/kept", "urgent": true, "fresh": true,
        },
    })
}

fn read(state: &Value) -> Result<EndpointSpec> {
    EndpointSpec::from_json(state.to_string().as_bytes())
}

#[test]
fn every_field_is_taken_over() {
    let spec = read(&full()).unwrap();
    assert_eq!((spec.name.as_str(), spec.revision, spec.champion.as_str()), ("digits", 7, "v2"));
    assert_eq!(spec.table.given, [("v3".to_owned(), 0, 99)]);
    assert_eq!((spec.sticky.as_deref(), spec.timeout_ms), (Some("x-user"), 2000));
    assert_eq!((spec.columns["X"].len(), spec.labels["Y"].len()), (2, 2));
    assert_eq!(spec.non_finite, NonFinite::String);
    assert_eq!(spec.baseline.as_deref(), Some("/kept"));
    assert!(spec.urgent && spec.fresh);
    let rate = spec.limits.rate.unwrap();
    assert_eq!((rate.by.as_deref(), rate.per_second, rate.burst), (Some("x-caller"), 12.5, 40));
    let breaker = BreakerSpec { consecutive: 7, success_rate: 0.75, window_ms: 20_000, min_requests: 10 };
    assert_eq!(spec.limits.breaker, Some(breaker));
    let priority = spec.limits.priority.unwrap();
    assert_eq!((priority.by.as_str(), priority.unnamed.as_str()), ("x-class", "gold"));
    let fallback = spec.fallback.unwrap();
    assert_eq!((fallback.to(), fallback.after_ms()), (&["v3".to_owned(), "v2".to_owned()][..], Some(250)));
    let shadows: Vec<_> = spec.shadows.iter().map(|shadow| (shadow.to.as_str(), shadow.share)).collect();
    assert_eq!(shadows, [("v1", 500), ("v3", 100)]);
    let capture = spec.capture.unwrap();
    assert_eq!((capture.share, capture.keep_ms, capture.max_bytes), (100, 3_600_000, 1024));
    let [first, second, third] = &spec.versions[..] else { panic!("three versions") };
    assert_eq!((first.artifact.as_deref(), second.artifact.as_deref()), (Some("one.onnx"), Some("two.onnx")));
    assert!(third.artifact.is_none() && third.constant.is_some());
    assert!(first.compatible && !second.compatible);
    assert_eq!((first.run.max_delay_us, first.run.device_memory), (500, 1024));
}

#[test]
fn champion_and_last_good_stay_in_memory_if_the_document_says_so() {
    let pinned = |state: &Value| -> Vec<bool> {
        read(state).unwrap().versions.iter().map(|version| version.pinned).collect()
    };
    let mut state = full();
    assert_eq!(pinned(&state), [true, true, false]);
    state["spec"]["traffic"]["keep_warm"] = json!(false);
    assert_eq!(pinned(&state), [false; 3]);
}

#[test]
fn fields_that_a_document_leaves_open_get_defaults() {
    let mut state = full();
    let limits = &mut state["spec"]["limits"];
    limits["rate"].as_object_mut().unwrap().remove("burst");
    limits["priority"].as_object_mut().unwrap().remove("unnamed");
    let spec = read(&state).unwrap();
    assert_eq!(spec.limits.rate.unwrap().burst, 13);
    assert_eq!(spec.limits.priority.unwrap().unnamed, "batch");
    assert_eq!(spec.versions[1].run, RunSpec::default());
}

#[test]
fn a_fallback_must_be_in_memory() {
    let mut state = full();
    state["load"]["versions"] = json!(["v1", "v2"]);
    assert_eq!(read(&state).unwrap().fallback.unwrap().to(), ["v2"]);
    state["spec"]["traffic"]["fallback"]["to"] = json!(["v3"]);
    assert_eq!(read(&state).unwrap().fallback, None);
    state["spec"]["traffic"]["fallback"] = json!("none");
    assert!(read(&state).unwrap().fallback.is_some());
}

#[test]
fn a_shadow_is_another_version_that_is_loaded_and_not_switched_off() {
    let shadows = |state: &Value| -> Vec<String> {
        read(state).unwrap().shadows.into_iter().map(|shadow| shadow.to).collect()
    };
    let mut state = full();
    state["traffic"]["shadows_off"] = json!(["v3"]);
    assert_eq!(shadows(&state), ["v1"]);
    state["traffic"]["champion"] = json!("v1");
    assert!(shadows(&state).is_empty());
    let mut state = full();
    state["load"]["versions"] = json!(["v1", "v2"]);
    state["spec"]["traffic"]["fallback"] = json!({"to": ["v2"]});
    assert_eq!(shadows(&state), ["v1"]);
    let idle = |state: &Value| -> Vec<(usize, String, &'static str, String)> {
        let idle = read(state).unwrap().idle_shadows.into_iter();
        idle.map(|idle| (idle.place, idle.spec.to, idle.state.as_str(), idle.reason)).collect()
    };
    let of = |place, to: &str, state, reason: &str| vec![(place, to.to_owned(), state, reason.to_owned())];
    assert_eq!(idle(&state), of(1, "v3", "not_loaded", "its version is blocked"));
    state["load"]["omitted"] = json!({"v3": "the file is damaged"});
    assert_eq!(idle(&state), of(1, "v3", "not_loaded", "the file is damaged"));
    state["traffic"]["shadows_off"] = json!(["v3"]);
    assert_eq!(idle(&state), of(1, "v3", "off", "it is switched off"));
    state["traffic"]["shadows_off"] = json!([]);
    state["load"]["versions"] = json!(["v1", "v2", "v3"]);
    state["traffic"]["champion"] = json!("v1");
    assert_eq!(idle(&state), of(0, "v1", "champion", "it is the champion"));
    state["traffic"]["capture_off"] = json!(true);
    assert_eq!(read(&state).unwrap().capture, None);
}

#[test]
fn a_fault_is_named_with_its_path() {
    for (path, wrong, says) in [
        ("/spec/limits/rate/by", json!("x-caller"), "spec.limits.rate.by: \"x-caller\" names no header"),
        ("/spec/limits/breaker/windows", json!(1), "spec.limits.breaker"),
        ("/spec/versions/v1/run/device", json!(["gpu"]), "spec.versions.v1.run.device[0]: "),
        ("/spec/traffic/fallback", json!({"to": ["v2"], "before": 1}), "spec.traffic.fallback: must be"),
        ("/spec/traffic/champion", json!("v9"), "spec.traffic.champion: \"v9\" is not among spec.versions"),
        ("/spec/traffic/weights", json!({"v8": 1}), "spec.traffic.weights: \"v8\""),
        ("/spec/traffic/fallback", json!({"to": ["v7"]}), "spec.traffic.fallback.to: \"v7\""),
        ("/spec/traffic/shadow/0/to", json!("v6"), "spec.traffic.shadow: \"v6\""),
        ("/spec/traffic/shadow/0/by", json!("key"), "spec.traffic.shadow[0].by"),
        ("/spec/capture/size", json!(1), "spec.capture"),
        ("/load/versions", json!(["v1", "v1"]), "load.versions: \"v1\""),
        ("/load/artifacts/v9", json!("nine.onnx"), "load.artifacts: \"v9\""),
        ("/spec/drift", json!({}), "load.baseline"),
        ("/surprise", json!(1), "unknown field `surprise`"),
    ] {
        let mut state = full();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let target = state.pointer_mut(parent).unwrap();
        target.as_object_mut().unwrap().insert(key.to_owned(), wrong);
        let error = read(&state).unwrap_err();
        assert_eq!(error.code, Code::PolicyInvalid);
        assert!(error.message.contains(says), "{error}");
    }
}
