//! The metrics of feedback.

use serde_json::{Value, json};

use super::endpoint::{EndpointFeedback, Removal};
use super::refusal::Refusal;
use super::registry::FeedbackRegistry;
use crate::metrics::rendering::family;

/// The families of all endpoints that issue receipts.
#[rustfmt::skip]
pub fn families(registry: &FeedbackRegistry) -> [Value; 8] {
    let endpoints = registry.list();
    let single = |name: &str, help: &str, kind: &str, read: fn(&EndpointFeedback) -> u64| {
        family(name, help, kind, endpoints.iter().map(|(endpoint, of)| json!([{"endpoint": endpoint}, read(of)])))
    };
    let mut counts = Vec::new();
    let mut sums = Vec::new();
    for (endpoint, of) in &endpoints {
        for ((version, feedback), moments) in of.sums() {
            let labels = json!({"endpoint": endpoint, "version": version, "feedback": feedback});
            counts.push(json!([labels, moments.n]));
            sums.push(json!([labels, moments.sum]));
        }
    }
    let refused = endpoints.iter().flat_map(|(endpoint, of)| {
        Refusal::ALL.map(|refusal| json!([{"endpoint": endpoint, "reason": refusal.as_str()}, of.refused(refusal)]))
    });
    let removed = endpoints.iter().flat_map(|(endpoint, of)| {
        Removal::ALL.map(|removal| json!([{"endpoint": endpoint, "reason": removal.as_str()}, of.removed(removal)]))
    });
    [
        single("headgate_receipts_issued_total", "Answers that carried a receipt (feedback: of the document).", "counter", EndpointFeedback::issued),
        family("headgate_feedback_total", "Feedback that was taken, by the version that gave the answer; other stands for versions that are not known any more, or came after 256 others.", "counter", counts.into_iter()),
        family("headgate_feedback_value_sum", "The sum of the values of feedback; a label is 1 or 0.", "gauge", sums.into_iter()),
        family("headgate_feedback_refused_total", "Feedback that was refused: unreadable, malformed (no receipt), forged, unknown_kind, bad_value, late (within), or duplicate.", "counter", refused),
        single("headgate_feedback_seen_bytes", "Memory of the receipts that have been used.", "gauge", |of| of.seen_bytes() as u64),
        family("headgate_feedback_sets_removed_total", "Sets of used receipts of feedbacks that are not declared any more, which were removed because nothing in them could be taken again (expired), or because there were more than 8 (room).", "counter", removed),
        single("headgate_feedback_key_lost", "1 if the file of the endpoint's receipts was damaged at the start, so that receipts of before are refused.", "gauge", |of| u64::from(of.was_damaged)),
        single("headgate_feedback_unsaved", "1 if the file of the endpoint's receipts could not be written the last time.", "gauge", |of| u64::from(of.is_unsaved())),
    ]
}
