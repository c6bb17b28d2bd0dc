use super::*;

pub(crate) fn spec(json: &str) -> EndpointSpec {
    EndpointSpec::from_json(json.as_bytes()).unwrap()
}

pub(crate) const TWO: &str = r#"{"name":"digits","revision":3,
    "spec":{"versions":{"v1":{"digest":"sha256:1"},"v2":{"digest":"sha256:2"}},
        "traffic":{"champion":"v1","sticky":"header.x-user-id"},"limits":{"timeout":30000}},
    "traffic":{"champion":"v1","last_good":"v1","table":{"salt":"digits/2/1","given":[["v2",0,999]]}},
    "load":{"versions":["v1","v2"],"artifacts":{"v1":"one.onnx","v2":"two.onnx"}}}"#;

#[test]
fn the_champion_has_the_slots_that_are_not_given_away() {
    let endpoint = compile(&spec(TWO), |_| Ok(())).unwrap();
    assert!(endpoint.table[..1000].iter().all(|&version| version == 1));
    assert!(endpoint.table[1000..].iter().all(|&version| version == 0));
    assert_eq!(endpoint.version("v2").unwrap().0, 1);
}

#[test]
fn contradictions_are_named() {
    type Change = fn(&mut EndpointSpec);
    let changes: [(Change, &str); 6] = [
        (|spec| spec.champion = "v9".into(), "v9"),
        (|spec| spec.table.given[0].0 = "v3".into(), "v3"),
        (|spec| spec.versions[1].name = "v1".into(), "twice"),
        (|spec| spec.versions[1].constant = Some(BTreeMap::new()), "exactly one"),
        (|spec| spec.timeout_ms = 0, "time-out"),
        (|spec| spec.name = "di/gits".into(), "not valid"),
    ];
    for (change, words) in changes {
        let mut contradictory = spec(TWO);
        change(&mut contradictory);
        let error = compile(&contradictory, |_| Ok(())).unwrap_err();
        assert_eq!(error.code, Code::PolicyInvalid);
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn an_endpoint_that_was_never_served_is_not_ready_with_the_reason() {
    let of = |name: &str, version: &str, reason: &str| {
        Refusals::from([(name.into(), [(version.into(), reason.into())].into())])
    };
    let first = Snapshot::<()>::default().with_refusals(of("a", "v1", "no such operator"));
    let error = first.endpoint("a").unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::ModelNotReady, "endpoint \"a\" was never served: v1: no such operator")
    );
    assert_eq!(first.endpoint("b").unwrap_err().code, Code::ModelNotFound);
    let served = first.with_endpoint("a", Some(Arc::new(compile(&spec(TWO), |_| Ok(())).unwrap())));
    assert!(served.endpoint("a").is_ok());
    // The newest list stays through every other change.
    let second = served.with_endpoint("a", None).with_refusals(of("b", "", "its folder is empty"));
    assert_eq!(second.generation, served.generation + 1);
    assert_eq!(second.endpoint("a").unwrap_err().code, Code::ModelNotFound);
    let error = second.with_unavailable("c", "damaged").unwrap().endpoint("b").unwrap_err();
    assert!(error.message.ends_with("never served: its folder is empty"), "{error}");
}

#[test]
fn a_snapshot_changes_one_endpoint_and_keeps_the_others() {
    let first =
        Snapshot::default().with_endpoint("a", Some(Arc::new(compile(&spec(TWO), |_| Ok(())).unwrap())));
    let second = first.with_endpoint("b", Some(first.endpoint("a").unwrap().clone()));
    let third = second.with_endpoint("a", None);
    assert_eq!((first.generation, second.generation, third.generation), (1, 2, 3));
    assert!(second.endpoint("a").is_ok() && second.endpoint("b").is_ok());
    assert_eq!(third.endpoint("a").unwrap_err().code, Code::ModelNotFound);
}

#[test]
fn an_endpoint_says_whether_anything_looks_at_its_requests() {
    type Change = fn(&mut EndpointSpec);
    let changes: [(Change, bool); 8] = [
        (|_| {}, false),
        (|spec| spec.fallback = Some(serde_json::from_str(r#"{"to":["v2"]}"#).unwrap()), false),
        (|spec| spec.fallback = Some(serde_json::from_str(r#"{"to":["v2"],"after":9}"#).unwrap()), true),
        (|spec| spec.sticky = Some("x-user-id".into()), true),
        (
            |spec| {
                let priority = r#"{"by":"header.x-class","classes":["gold","batch"]}"#;
                spec.limits.priority = Some(serde_json::from_str(priority).unwrap());
            },
            true,
        ),
        (
            |spec| {
                let rule = r#"{"when":{"header.a":{"one_of":["b"]}},"to":"v2"}"#;
                spec.rules = vec![serde_json::from_str(rule).unwrap()];
            },
            true,
        ),
        (|spec| spec.shadows = vec![serde_json::from_str(r#"{"to":"v2","share":100}"#).unwrap()], true),
        (
            |spec| {
                let capture = r#"{"share":100,"keep":1000,"max_size":1000}"#;
                spec.capture = Some(serde_json::from_str(capture).unwrap());
            },
            true,
        ),
    ];
    for (place, (change, has_policies)) in changes.into_iter().enumerate() {
        let mut changed = EndpointSpec { sticky: None, ..spec(TWO) };
        change(&mut changed);
        assert_eq!(compile(&changed, |_| Ok(())).unwrap().has_policies, has_policies, "change {place}");
    }
}
