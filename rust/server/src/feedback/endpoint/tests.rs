use std::sync::Arc;

use headgate_core::feedback::declared::{FeedbackKind, FeedbackSpec, Good, Range};
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_767_261_600;

fn declared() -> Feedbacks {
    let label = FeedbackSpec {
        kind: FeedbackKind::Label,
        range: Range::LABEL,
        good: Good::High,
        within_ms: 60_000,
        coverage: None,
    };
    let count = FeedbackSpec { kind: FeedbackKind::Count, range: Range(0.0, 9.0), ..label };
    Feedbacks::from([("sale".to_owned(), label), ("items".to_owned(), count)])
}

fn receipts(endpoint: &Arc<EndpointFeedback>) -> VersionReceipts {
    endpoint.know("v1", "sha256:1");
    VersionReceipts {
        endpoint: endpoint.clone(),
        revision: 3,
        version: version_tag("v1", "sha256:1"),
        arm: Some(ReceiptArm { trial: 5, arm: 1, split: 2 }),
    }
}

fn issue(endpoint: &Arc<EndpointFeedback>) -> String {
    let decision = Some(SlotDecision { slot: 7, unit: Some(701) });
    receipts(endpoint).issue(decision, NOW_S).unwrap().to_str().unwrap().to_owned()
}

fn sent(receipt: &str, value: Value, kind: &str) -> SentFeedback {
    SentFeedback { receipt: receipt.to_owned(), value, kind: Some(kind.to_owned()) }
}

fn in_memory() -> Arc<EndpointFeedback> {
    Arc::new(EndpointFeedback::open("digits", None, NOW_S).unwrap())
}

#[test]
fn a_receipt_counts_once_for_each_feedback() {
    let endpoint = in_memory();
    let receipt = issue(&endpoint);
    let taken = endpoint.take(&declared(), &sent(&receipt, json!(true), "sale"), NOW_S + 60).unwrap();
    assert_eq!((taken.name.as_str(), taken.value), ("sale", 1.0));
    assert_eq!(taken.receipt.arm, Some(ReceiptArm { trial: 5, arm: 1, split: 2 }));
    assert_eq!((taken.receipt.slot, taken.receipt.unit, taken.receipt.revision), (Some(7), Some(701), 3));
    let again = endpoint.take(&declared(), &sent(&receipt, json!(false), "sale"), NOW_S).unwrap_err();
    assert_eq!(again.refusal, Refusal::Duplicate);
    assert!(endpoint.take(&declared(), &sent(&receipt, json!(4), "items"), NOW_S).is_ok());
    let wanted = Moments { n: 1, sum: 1.0, squares: 1.0 };
    assert!(endpoint.sums().contains(&(("v1".to_owned(), "sale".to_owned()), wanted)));
    assert_eq!((endpoint.refused(Refusal::Duplicate), endpoint.issued()), (1, 1));
}

#[test]
fn each_fault_has_a_word_of_its_own_and_is_counted() {
    let (endpoint, other) = (in_memory(), in_memory());
    let (receipt, foreign) = (issue(&endpoint), issue(&other));
    for (sent, now_s, refusal, words) in [
        (sent("x", json!(true), "sale"), NOW_S, Refusal::Malformed, "x-headgate-receipt"),
        (sent(&foreign, json!(true), "sale"), NOW_S, Refusal::Forged, "not issued by this gateway"),
        (sent(&receipt, json!(true), "sales"), NOW_S, Refusal::UnknownKind, "it has items, sale"),
        (
            SentFeedback { kind: None, ..sent(&receipt, json!(1), "") },
            NOW_S,
            Refusal::UnknownKind,
            "kind is missing",
        ),
        (sent(&receipt, json!(1), "sale"), NOW_S, Refusal::BadValue, "true or false"),
        (sent(&receipt, json!(10), "items"), NOW_S, Refusal::BadValue, "outside"),
        (sent(&receipt, json!(true), "sale"), NOW_S + 61, Refusal::Late, "older"),
    ] {
        let before = endpoint.refused(refusal);
        let found = endpoint.take(&declared(), &sent, now_s).unwrap_err();
        assert_eq!(found.refusal, refusal, "{sent:?}");
        assert!(found.words.contains(words), "{}", found.words);
        assert_eq!(endpoint.refused(refusal), before + 1);
    }
    // None of these has used the receipt.
    assert!(endpoint.take(&declared(), &sent(&receipt, json!(true), "sale"), NOW_S).is_ok());
    let one = Feedbacks::from([("items".to_owned(), declared()["items"])]);
    assert!(endpoint.take(&one, &SentFeedback { kind: None, ..sent(&receipt, json!(1), "") }, NOW_S).is_ok());
}

#[test]
fn receipts_outlive_a_restart_and_no_serial_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.receipts");
    let open = || Arc::new(EndpointFeedback::open("digits", Some(file.clone()), NOW_S).unwrap());
    let first = open();
    let (used, unused) = (issue(&first), issue(&first));
    first.take(&declared(), &sent(&used, json!(true), "sale"), NOW_S).unwrap();
    first.save().unwrap();
    // What was used after the last write is forgotten with what it counted.
    let lost = issue(&first);
    first.take(&declared(), &sent(&lost, json!(true), "sale"), NOW_S).unwrap();
    let second = open();
    let take = |receipt: &str| {
        let taken = second.take(&declared(), &sent(receipt, json!(true), "sale"), NOW_S);
        taken.map(|taken| taken.receipt.serial).map_err(|refused| refused.refusal)
    };
    assert_eq!(take(&used), Err(Refusal::Duplicate));
    let (unused, lost) = (take(&unused).unwrap(), take(&lost).unwrap());
    let fresh = take(&issue(&second)).unwrap();
    assert!(unused < lost && lost < fresh, "{unused} {lost} {fresh}");
}

#[test]
fn a_damaged_file_makes_a_new_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.receipts");
    let open = || Arc::new(EndpointFeedback::open("digits", Some(file.clone()), NOW_S).unwrap());
    let receipt = issue(&open());
    std::fs::write(&file, b"damaged").unwrap();
    let after = open();
    assert!(after.was_damaged && !open().was_damaged);
    let refused = after.take(&declared(), &sent(&receipt, json!(true), "sale"), NOW_S).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Forged);
}

#[test]
fn nothing_is_issued_before_the_start_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.receipts");
    let blocked = folder.path().join("digits.receipts.new");
    std::fs::create_dir(&blocked).unwrap();
    let endpoint = Arc::new(EndpointFeedback::open("digits", Some(file), NOW_S).unwrap());
    assert!(receipts(&endpoint).issue(None, NOW_S).is_none());
    assert!(endpoint.save().is_err());
    std::fs::remove_dir(&blocked).unwrap();
    endpoint.save().unwrap();
    assert!(receipts(&endpoint).issue(None, NOW_S).is_some());
}

#[test]
fn an_answer_that_no_slot_decided_is_no_evidence() {
    let endpoint = in_memory();
    let receipt = receipts(&endpoint).issue(None, NOW_S).unwrap();
    let taken =
        endpoint.take(&declared(), &sent(receipt.to_str().unwrap(), json!(true), "sale"), NOW_S).unwrap();
    assert_eq!((taken.receipt.arm, taken.receipt.slot, taken.receipt.unit), (None, None, None));
}

/// A serial of the key that was issued at a time.
fn issue_at(endpoint: &Arc<EndpointFeedback>, now_s: u64) -> String {
    receipts(endpoint).issue(None, now_s).unwrap().to_str().unwrap().to_owned()
}

fn take(endpoint: &EndpointFeedback, receipt: &str, name: &str, now_s: u64) -> Result<(), Refusal> {
    let long = FeedbackSpec { within_ms: MAX_WITHIN_MS, ..declared()["sale"] };
    let kinds = Feedbacks::from([(name.to_owned(), long)]);
    let taken = endpoint.take(&kinds, &sent(receipt, json!(true), name), now_s);
    taken.map(drop).map_err(|refused| refused.refusal)
}

/// Serials of another chunk than those before.
fn begin_chunk(endpoint: &EndpointFeedback) {
    endpoint.next_serial.fetch_add(1 << 16, Relaxed);
}

#[test]
fn a_set_is_walked_once_a_minute() {
    let endpoint = in_memory();
    let take = |issued_s: u64, now_s: u64| {
        begin_chunk(&endpoint);
        let receipt = issue_at(&endpoint, issued_s);
        endpoint.take(&declared(), &sent(&receipt, json!(true), "sale"), now_s).unwrap();
        endpoint.book().seen["sale"].len()
    };
    // A receipt is late after 60 seconds. The first two feedbacks walk the set, in which nothing is late.
    assert_eq!((take(NOW_S, NOW_S), take(NOW_S + 1, NOW_S + 60)), (1, 2));
    // Both are late, and the set is not walked yet.
    assert_eq!(take(NOW_S + 119, NOW_S + 119), 3);
    assert_eq!(take(NOW_S + 120, NOW_S + 120), 2);
    assert_eq!(endpoint.book().seen["sale"].forgotten_s(), (NOW_S + 1) as u32);
}

#[test]
fn a_start_from_a_file_of_before_gives_no_serial_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.receipts");
    let open = |now_s| Arc::new(EndpointFeedback::open("digits", Some(file.clone()), now_s).unwrap());
    let first = issue(&open(NOW_S));
    let backup = std::fs::read(&file).unwrap();
    let second = issue(&open(NOW_S + 3_600));
    std::fs::write(&file, backup).unwrap();
    let restored = open(NOW_S + 7_200);
    let third = issue(&restored);
    for receipt in [&first, &second, &third] {
        assert!(restored.take(&declared(), &sent(receipt, json!(true), "sale"), NOW_S).is_ok());
    }
    // A clock that is set back, and starts within one second, count on from the file.
    let serial = |now_s| open(now_s).next_serial.load(Relaxed) >> COUNT_BITS;
    let newest = serial(NOW_S + 7_200);
    assert_eq!((serial(NOW_S), serial(0)), (newest + 1, newest + 2));
}

#[test]
fn the_set_of_a_feedback_that_is_not_declared_any_more_goes_once_it_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.receipts");
    let endpoint = Arc::new(EndpointFeedback::open("digits", Some(file.clone()), NOW_S).unwrap());
    let receipt = issue_at(&endpoint, NOW_S);
    for name in ["sale", "old"] {
        take(&endpoint, &receipt, name, NOW_S).unwrap();
    }
    let over_s = NOW_S + MAX_WITHIN_MS / 1_000;
    for (declared, now_s) in [(Some(declared()), over_s), (None, over_s)] {
        endpoint.remove_undeclared(declared.as_ref(), now_s);
        assert_eq!(take(&endpoint, &receipt, "old", NOW_S), Err(Refusal::Duplicate));
    }
    endpoint.remove_undeclared(Some(&declared()), over_s + 1);
    assert_eq!(endpoint.book().seen.keys().collect::<Vec<_>>(), ["sale"]);
    assert_eq!((endpoint.removed(Removal::Expired), endpoint.removed(Removal::Room)), (1, 0));
    assert!(endpoint.sums().iter().all(|((_, name), _)| name == "sale"));
    // However the clock is set, and after a restart, no receipt of then counts again.
    endpoint.save().unwrap();
    let again = EndpointFeedback::open("digits", Some(file), over_s).unwrap();
    for endpoint in [&*endpoint, &again] {
        assert_eq!(take(endpoint, &receipt, "old", NOW_S), Err(Refusal::Late));
        assert_eq!(take(endpoint, &receipt, "sale", NOW_S), Err(Refusal::Duplicate));
    }
    // Of an endpoint that is not served everything goes that says nothing.
    again.remove_undeclared(None, over_s + 1);
    assert_eq!(again.seen_bytes(), 0);
}

#[test]
fn sets_of_feedbacks_that_are_not_declared_any_more_are_few() {
    let endpoint = in_memory();
    let receipts: Vec<String> = (0..12).map(|at| issue_at(&endpoint, NOW_S + at)).collect();
    for (number, receipt) in receipts.iter().enumerate() {
        let name = if number == 0 { "sale".to_owned() } else { format!("f{number:02}") };
        take(&endpoint, receipt, &name, NOW_S + 20).unwrap();
    }
    // Not known to be undeclared: the endpoint may be loading.
    endpoint.remove_undeclared(None, NOW_S + 20);
    assert_eq!(endpoint.book().seen.len(), 12);
    endpoint.remove_undeclared(Some(&declared()), NOW_S + 20);
    let left: Vec<String> = endpoint.book().seen.keys().cloned().collect();
    assert_eq!((left.len(), left[0].as_str(), left[8].as_str()), (1 + MAX_REMOVED, "f04", "sale"));
    assert_eq!((endpoint.removed(Removal::Expired), endpoint.removed(Removal::Room)), (0, 3));
    // What was used for one that went counts for it no more, and neither does what is older. The others take what they took.
    for receipt in &receipts[..4] {
        assert_eq!(take(&endpoint, receipt, "f03", NOW_S + 20), Err(Refusal::Late));
    }
    assert_eq!(take(&endpoint, &receipts[4], "f03", NOW_S + 20), Ok(()));
    assert_eq!(take(&endpoint, &receipts[1], "f04", NOW_S + 20), Ok(()));
}
