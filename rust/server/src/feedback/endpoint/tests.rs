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
    Arc::new(EndpointFeedback::open("digits", None).unwrap())
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
    let open = || Arc::new(EndpointFeedback::open("digits", Some(file.clone())).unwrap());
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
    let open = || Arc::new(EndpointFeedback::open("digits", Some(file.clone())).unwrap());
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
    let endpoint = Arc::new(EndpointFeedback::open("digits", Some(file)).unwrap());
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
