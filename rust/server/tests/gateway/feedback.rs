//! Receipts and feedback over real sockets, with a restart in the middle: each receipt counts once, for the version that gave the answer.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::common;
use crate::common::{connect, free, gateway_with, metric, request, spec, whole_answer};
use headgate_core::gates::report::judge_json;
use headgate_core::trial::report::Detail;
use headgate_engine::Model;
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// A gateway with an endpoint whose slots are shared by two versions.
struct Served {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    _models: Vec<Arc<Model>>,
}

impl Served {
    fn new(folder: Option<&Path>, changes: &Value) -> Served {
        let served = Served::idle(folder);
        served.apply(changes);
        served
    }

    /// Without the endpoint.
    fn idle(folder: Option<&Path>) -> Served {
        let (gateway, address) = gateway_with(&json!({"feedback_folder": folder}));
        let adopt =
            |digest: &str| gateway.engine().adopt(digest, Box::new(free()), &Default::default()).unwrap();
        let models = vec![adopt("one"), adopt("two")];
        Served { gateway, address, _models: models }
    }

    fn apply(&self, changes: &Value) {
        let version = |name, digest| json!({"name": name, "digest": digest, "artifact": "adopted"});
        let mut state = json!({
            "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 60_000,
            "versions": [version("v1", "one"), version("v2", "two")],
            "table": {"salt": "model/two/1", "given": [["v2", 0, 4999]]},
            "feedback": {
                "sale": {"kind": "label", "good": "high", "within": 3_600_000},
                "rating": {"kind": "value", "range": [1.0, 5.0], "good": "high", "within": 3_600_000},
            },
        });
        state.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.gateway.apply(spec(&state)).unwrap();
    }

    /// The version and the receipt of an answer; the receipt is empty if it has none.
    fn infer(&self) -> (String, String) {
        self.send(&request("model", 2.0))
    }

    fn send(&self, request: &str) -> (String, String) {
        let mut stream = connect(self.address);
        stream.write_all(request.as_bytes()).unwrap();
        let (status, head, body) = whole_answer(&mut stream);
        assert_eq!(status, 200, "{body}");
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        (field("x-headgate-version: "), field("x-headgate-receipt: "))
    }

    fn post(&self, body: &str) -> (u16, Value) {
        self.post_to("model", body)
    }

    fn post_to(&self, endpoint: &str, body: &str) -> (u16, Value) {
        let mut stream = connect(self.address);
        let head = format!(
            "POST /v2/models/{endpoint}/feedback HTTP/1.1\r\nhost: t\r\ncontent-length: {}",
            body.len()
        );
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let (status, _, answer) = whole_answer(&mut stream);
        (status, answer)
    }

    fn feedback(&self) -> Value {
        self.gateway.trial("model", Detail::Whole).unwrap()["trial"]["feedback"].clone()
    }

    fn refused(&self, reason: &str) -> u64 {
        let labels = json!({"endpoint": "model", "reason": reason});
        metric(&self.gateway, "headgate_feedback_refused_total", &labels)
    }
}

fn sale(receipt: &str, value: bool) -> String {
    json!({"receipt": receipt, "value": value, "kind": "sale"}).to_string()
}

#[test]
fn feedback_counts_once_for_the_version_that_gave_the_answer() {
    let served = Served::new(None, &json!({}));
    let answers: Vec<_> = (0..40).map(|_| served.infer()).collect();
    let lines: Vec<String> =
        answers.iter().map(|(version, receipt)| sale(receipt, version == "v2")).collect();
    let (status, answer) = served.post(&lines.join("\n"));
    assert_eq!((status, &answer["accepted"], &answer["refused"]), (200, &json!(40), &json!(0)), "{answer}");
    assert_eq!(answer["results"][0], json!({"line": 1, "status": "accepted", "evidence": "counted"}));
    let of_v2 = answers.iter().filter(|(version, _)| version == "v2").count() as u64;
    let told = served.feedback();
    for (version, n, sum) in [("v1", 40 - of_v2, 0.0), ("v2", of_v2, of_v2 as f64)] {
        assert_eq!(told[0]["arms"][version], json!({"n": n, "sum": sum, "squares": sum, "repeated": 0}));
        let labels = json!({"endpoint": "model", "version": version, "feedback": "sale"});
        assert_eq!(metric(&served.gateway, "headgate_feedback_total", &labels), n);
    }
    assert_eq!(metric(&served.gateway, "headgate_receipts_issued_total", &json!({"endpoint": "model"})), 40);
    // Again, and for another feedback.
    let (status, answer) = served.post(&lines.join("\n"));
    assert_eq!((status, &answer["refused"]), (200, &json!(40)));
    assert_eq!(answer["results"][7]["reason"], "duplicate");
    let rating = json!({"receipt": answers[0].1, "value": 4.5, "kind": "rating"}).to_string();
    assert_eq!(served.post(&rating), (200, json!({"accepted": 1, "refused": 0, "evidence": "counted"})));
    assert_eq!((served.post(&rating).0, served.refused("duplicate")), (409, 41));
}

#[test]
fn what_is_refused_is_said_in_words_and_fails_no_version() {
    let served = Served::new(None, &json!({}));
    let (_, receipt) = served.infer();
    let other = Served::new(None, &json!({}));
    let (_, foreign) = other.infer();
    let mut changed = receipt.clone().into_bytes();
    changed[40] = if changed[40] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for (body, reason, words) in [
        (sale(&foreign, true), "forged", "not issued by this gateway"),
        (sale(&changed, true), "forged", "not issued by this gateway"),
        (sale("nonsense", true), "malformed", "x-headgate-receipt"),
        (json!({"receipt": receipt, "value": 2, "kind": "sale"}).to_string(), "bad_value", "true or false"),
        (
            json!({"receipt": receipt, "value": 6, "kind": "rating"}).to_string(),
            "bad_value",
            "outside of the range",
        ),
        (
            json!({"receipt": receipt, "value": 6, "kind": "stars"}).to_string(),
            "unknown_kind",
            "rating, sale",
        ),
        (json!({"receipt": receipt, "value": true}).to_string(), "unknown_kind", "kind is missing"),
        ("{".to_owned(), "unreadable", "JSON"),
    ] {
        let before = served.refused(reason);
        let (status, answer) = served.post(&body);
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_argument")), "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
        assert_eq!(served.refused(reason), before + 1, "{body}");
    }
    let (status, answer) =
        served.post(&format!("{}\nnonsense\n{}", sale(&receipt, true), sale(&foreign, true)));
    assert_eq!((status, &answer["accepted"], &answer["refused"]), (200, &json!(1), &json!(2)), "{answer}");
    assert_eq!(
        (&answer["results"][1]["reason"], &answer["results"][2]["reason"]),
        (&json!("unreadable"), &json!("forged"))
    );
    let trial = served.gateway.trial("model", Detail::Summary).unwrap();
    assert!(trial["trial"]["arms"].as_array().unwrap().iter().all(|arm| arm["errors"] == 0), "{trial}");
    // Too much at once.
    let (status, answer) = served.post(&"{}\n".repeat(1_001));
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("more than 1000 lines"), "{answer}");
    assert_eq!(served.post(&" ".repeat(600 << 10)).0, 413);
}

#[test]
fn without_feedback_in_its_document_an_endpoint_issues_no_receipts() {
    let served = Served::new(None, &json!({"feedback": {}}));
    assert_eq!(served.infer().1, "");
    let (status, answer) = served.post(&sale("r", true));
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
    assert!(answer["error"].as_str().unwrap().contains("takes no feedback"), "{answer}");
    assert_eq!(served.post_to("none", "{}").0, 404);
    // Switched on, and off again: receipts of before are taken when it is on.
    served.apply(&json!({"revision": 2}));
    let (_, receipt) = served.infer();
    served.apply(&json!({"revision": 3, "feedback": {}}));
    assert_eq!((served.infer().1.as_str(), served.post(&sale(&receipt, true)).0), ("", 404));
    served.apply(&json!({"revision": 4}));
    assert_eq!(served.post(&sale(&receipt, true)).0, 200);
}

#[test]
fn late_feedback_is_refused() {
    let sale_within =
        |within: u64| json!({"feedback": {"sale": {"kind": "label", "good": "high", "within": within}}});
    let served = Served::new(None, &sale_within(3_600_000));
    let (_, receipt) = served.infer();
    // Receipts tell whole seconds: the shortest time is over with the next second.
    served.apply(&sale_within(1));
    common::eventually("a late receipt", || {
        let (status, answer) = served.post(&sale(&receipt, true));
        status == 400 && answer["error"].as_str().unwrap().contains("within")
    });
    assert!(served.refused("late") > 0);
}

#[test]
fn answers_that_no_slot_decided_are_no_evidence() {
    let served = Served::new(None, &json!({"fallback": {"to": ["v1"]}}));
    let direct =
        request("model", 2.0).replace("/v2/models/model/infer", "/v2/models/model/versions/v2/infer");
    let (version, receipt) = served.send(&direct);
    assert_eq!(version, "v2");
    assert_eq!(
        served.post(&sale(&receipt, true)),
        (200, json!({"accepted": 1, "refused": 0, "evidence": "none"}))
    );
    assert_eq!(served.feedback(), json!([]));
    let labels = json!({"endpoint": "model", "version": "v2", "feedback": "sale"});
    assert_eq!(metric(&served.gateway, "headgate_feedback_total", &labels), 1);
}

#[test]
fn a_gate_waits_for_the_share_of_answers_that_its_feedback_asks_for() {
    let asking = json!({"kind": "label", "good": "high", "within": 3_600_000, "coverage": 8_000});
    let served = Served::new(None, &json!({"feedback": {"sale": asking}}));
    let receipts: Vec<String> = (0..60).map(|_| served.infer().1).collect();
    let give = |receipts: &[String]| {
        let lines: Vec<String> = receipts.iter().map(|receipt| sale(receipt, true)).collect();
        assert_eq!(served.post(&lines.join("\n")).1["refused"], 0);
        let told = served.gateway.trial("model", Detail::Whole).unwrap()["trial"].to_string();
        let question = json!({
            "challenger": "v2", "false_rollbacks": 0.01, "gates": [{"gate": "feedback.sale", "above": 0}],
        });
        let answer: Value = serde_json::from_str(&judge_json(&told, &question.to_string()).unwrap()).unwrap();
        answer["gates"][0].clone()
    };
    let gate = give(&receipts[..30]);
    assert_eq!((&gate["verdict"], &gate["coverage"]), (&json!("undecided"), &json!(0.8)), "{gate}");
    assert!(gate["reason"].as_str().unwrap().ends_with("its coverage asks for 80 %"), "{gate}");
    let gate = give(&receipts[30..]);
    assert_eq!((&gate["verdict"], &gate["champion"]["coverage"]), (&json!("pass"), &json!(1.0)), "{gate}");
}

#[test]
fn a_key_counts_once_at_one_split() {
    let served = Served::new(None, &json!({"sticky": "header.host"}));
    let receipts: Vec<_> = (0..2).map(|_| served.infer().1).collect();
    let evidence = |receipt: &str| served.post(&sale(receipt, true)).1["evidence"].clone();
    assert_eq!((evidence(&receipts[0]), evidence(&receipts[1])), (json!("counted"), json!("repeated")));
}

#[test]
fn receipts_and_what_they_counted_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Served::new(Some(folder.path()), &json!({}));
    let answers: Vec<_> = (0..6).map(|_| first.infer()).collect();
    let used: Vec<String> = answers[..3].iter().map(|(_, receipt)| sale(receipt, true)).collect();
    assert_eq!(first.post(&used.join("\n")).1["accepted"], 3);
    let begun_ms = first.gateway.trials()[0]["begun_ms"].as_u64().unwrap();
    let stored = first.gateway.stored_trial("model", begun_ms).unwrap();
    let told = first.feedback();
    // What follows is not in the store: the process is killed, in effect, because nothing is written after this.
    let file = folder.path().join("model.receipts");
    let written = std::fs::read(&file).unwrap();
    let lost = sale(&answers[3].1, true);
    assert_eq!(first.post(&lost).0, 200);
    drop(first);
    std::fs::write(&file, written).unwrap();

    let second = Served::idle(Some(folder.path()));
    second.gateway.restore_trial("model", &stored).unwrap();
    second.apply(&json!({}));
    assert_eq!(second.feedback(), told);
    let again = second.post(&used.join("\n")).1;
    assert_eq!((&again["refused"], &again["results"][0]["reason"]), (&json!(3), &json!("duplicate")));
    // It counts now, once, and so does one that was never used.
    for receipt in [&answers[3].1, &answers[4].1] {
        assert_eq!(second.post(&sale(receipt, true)).1["evidence"], "counted");
        assert_eq!(second.post(&sale(receipt, true)).0, 409);
    }
    let n = |version: &str| second.feedback()[0]["arms"][version]["n"].as_u64().unwrap();
    assert_eq!(n("v1") + n("v2"), 5);
    // A new answer has a serial of its own.
    assert_eq!(second.post(&sale(&second.infer().1, true)).0, 200);
}

#[test]
fn a_trial_is_not_stored_without_the_receipts_that_were_used_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::new(Some(folder.path()), &json!({}));
    let (_, receipt) = served.infer();
    let begun_ms = served.gateway.trials()[0]["begun_ms"].as_u64().unwrap();
    let blocked = folder.path().join("model.receipts.new");
    std::fs::create_dir(&blocked).unwrap();
    assert_eq!(served.post(&sale(&receipt, true)).0, 200);
    assert!(served.gateway.stored_trial("model", begun_ms).is_none());
    std::fs::remove_dir(&blocked).unwrap();
    assert!(served.gateway.stored_trial("model", begun_ms).is_some());
}
