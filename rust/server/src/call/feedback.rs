//! Feedback over HTTP: reads what a client sends, and says for each line what became of it. Cold.
//!
//! Not here: what is taken and what is refused (`feedback::endpoint`), what a trial counts of it (`serving::feedback`).

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::trial::feedback_count::Counted;
use headgate_protocol::envelope::refuse_byte_order_mark;
use serde_json::{Value, json};

use crate::feedback::endpoint::{EndpointFeedback, TakenFeedback};
use crate::feedback::refusal::{Refusal, RefusedFeedback};
use crate::feedback::sent::{MAX_BYTES, SentFeedback, SentRequest};
use crate::headers::Headers;
use crate::serving::feedback as evidence;
use crate::serving::shared::LiveEndpoint;
use crate::thread::io::{self, Io};
use crate::transport::body::{BodySource, ReadBody};
use crate::transport::coding;

/// Takes feedback on answers of an endpoint. One object is taken or refused as a whole; each of several lines has a result of its own.
///
/// # Errors
/// `model_not_found`; `not_found` for an endpoint whose document declares no feedback; `invalid_argument` for a body that cannot be read;
/// `storage_failed` if the key of its receipts cannot be read. For one object, `conflict` if its receipt was used, and `invalid_argument`
/// for what else it is refused for.
pub async fn answer(name: &str, headers: Headers<'_>, body: &mut BodySource) -> Result<Value> {
    // Before the body, so that nobody sends one in vain.
    let (endpoint, receipts) = io::with(|io| find(io, name))?;
    let limit = io::with(|io| io.shared.config.max_body_bytes.min(MAX_BYTES));
    let ReadBody { bytes, memory: _memory } =
        coding::read_body(body, limit, headers, |_, _| None, None).await?;
    refuse_byte_order_mark(&bytes)?;
    let request = SentRequest::read(&bytes).map_err(|words| {
        receipts.count_refusal(Refusal::Unreadable);
        Error::invalid(words)
    })?;
    io::with(|io| match request {
        SentRequest::One(sent) => take(io, &endpoint, &receipts, &sent)
            .map(|counted| json!({"accepted": 1, "refused": 0, "evidence": said(counted)}))
            .map_err(|refused| error_of(&refused)),
        SentRequest::Lines(lines) => {
            let results: Vec<Value> = lines
                .into_iter()
                .map(|line| {
                    let taken = match line.feedback {
                        Ok(sent) => take(io, &endpoint, &receipts, &sent),
                        Err(words) => {
                            receipts.count_refusal(Refusal::Unreadable);
                            Err(RefusedFeedback { refusal: Refusal::Unreadable, words })
                        }
                    };
                    result_of(line.number, taken)
                })
                .collect();
            let refused = results.iter().filter(|result| result["status"] == "refused").count();
            Ok(json!({"accepted": results.len() - refused, "refused": refused, "results": results}))
        }
    })
}

/// The endpoint as it is served, and its receipts.
fn find(io: &Io, name: &str) -> Result<(Arc<LiveEndpoint>, Arc<EndpointFeedback>)> {
    let endpoint = io.endpoint(name)?;
    if endpoint.feedback.is_empty() {
        let words = format!("endpoint {name:?} takes no feedback: its document has no feedback:");
        return Err(Error::new(Code::NotFound, words));
    }
    let receipts = endpoint.versions.iter().find_map(|version| version.payload.receipts.as_ref());
    let Some(receipts) = receipts.map(|receipts| receipts.endpoint.clone()) else {
        let words = format!("the receipts of endpoint {name:?} cannot be read from the disk");
        return Err(Error::new(Code::StorageFailed, words));
    };
    Ok((endpoint, receipts))
}

fn take(
    io: &Io,
    endpoint: &LiveEndpoint,
    receipts: &EndpointFeedback,
    sent: &SentFeedback,
) -> std::result::Result<Option<Counted>, RefusedFeedback> {
    let now_s = io.shared.unix_ms_at(io.shared.now_ns()) / 1_000;
    let taken: TakenFeedback = receipts.take(&endpoint.feedback, sent, now_s)?;
    Ok(evidence::count(&io.shared, endpoint, &taken))
}

/// What feedback is for the trial of its answer.
fn said(counted: Option<Counted>) -> &'static str {
    match counted {
        Some(Counted::Evidence) => "counted",
        Some(Counted::Repeated) => "repeated",
        Some(Counted::Unplaced) | None => "none",
    }
}

fn result_of(number: usize, taken: std::result::Result<Option<Counted>, RefusedFeedback>) -> Value {
    match taken {
        Ok(counted) => json!({"line": number, "status": "accepted", "evidence": said(counted)}),
        Err(RefusedFeedback { refusal, words }) => {
            json!({"line": number, "status": "refused", "reason": refusal.as_str(), "error": words})
        }
    }
}

fn error_of(refused: &RefusedFeedback) -> Error {
    let code = match refused.refusal {
        Refusal::Duplicate => Code::Conflict,
        _ => Code::InvalidArgument,
    };
    Error::new(code, format!("{} ({})", refused.words, refused.refusal.as_str()))
}
