//! One unary call: its answer's head, message and trailers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use crate::http1::parser::LONGEST_KEPT;
use crate::phases::Phases;

/// A call in flight.
pub(super) struct Unary {
    /// The slot of its connection.
    pub(super) slot: u32,
    response: ResponseFuture,
    request: SendStream<Bytes>,
    receiving: Option<RecvStream>,
    keep: bool,
    pub(super) answer: Answer,
}

/// What has come of an answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u8,
    pub(super) text: String,
    pub(super) phases: Option<Phases>,
    /// The message without its frame, if it is kept.
    pub(super) message: Vec<u8>,
    pub(super) whole: bool,
    frame: [u8; 5],
    bytes: usize,
}

impl Unary {
    pub(super) fn new(slot: u32, response: ResponseFuture, request: SendStream<Bytes>, keep: bool) -> Unary {
        Unary { slot, response, request, receiving: None, keep, answer: Answer::default() }
    }

    /// Gives the call up.
    pub(super) fn reset(&mut self) {
        self.request.send_reset(Reason::CANCEL);
    }

    /// Goes on; ready when the answer is complete. The error says what is wrong.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        if self.receiving.is_none() {
            let response = match ready!(Pin::new(&mut self.response).poll(context)) {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Err(words(&error))),
            };
            let (head, body) = response.into_parts();
            if head.status != http::StatusCode::OK {
                return Poll::Ready(Err(format!(
                    "HTTP status {} instead of a gRPC status",
                    head.status.as_u16()
                )));
            }
            let timing = head.headers.get("server-timing");
            self.answer.phases = timing.and_then(|value| Phases::parse(value.as_bytes()));
            if let Some(outcome) = self.answer.end(&head.headers) {
                return Poll::Ready(outcome);
            }
            self.receiving = Some(body);
        }
        let Some(receiving) = &mut self.receiving else { return Poll::Pending };
        while let Some(data) = ready!(receiving.poll_data(context)) {
            let data = match data {
                Ok(data) => data,
                Err(error) => return Poll::Ready(Err(words(&error))),
            };
            if let Err(error) = receiving.flow_control().release_capacity(data.len()) {
                return Poll::Ready(Err(words(&error)));
            }
            self.answer.take(&data, self.keep);
        }
        let trailers = match ready!(receiving.poll_trailers(context)) {
            Ok(trailers) => trailers.unwrap_or_default(),
            Err(error) => return Poll::Ready(Err(words(&error))),
        };
        Poll::Ready(self.answer.end(&trailers).unwrap_or_else(|| Err("the answer has no grpc-status".into())))
    }
}

impl Answer {
    fn take(&mut self, data: &[u8], keep: bool) {
        let of_frame = 5usize.saturating_sub(self.bytes).min(data.len());
        let (frame, message) = data.split_at(of_frame);
        self.frame[self.bytes.min(5)..][..of_frame].copy_from_slice(frame);
        self.bytes += data.len();
        if keep && self.message.len() + message.len() <= LONGEST_KEPT {
            self.message.extend_from_slice(message);
        }
    }

    /// Reads the status from trailers, or from a head without a message; `None` if it is not there.
    fn end(&mut self, fields: &HeaderMap) -> Option<Result<(), String>> {
        let (status, text) = status_of(fields)?;
        (self.status, self.text) = (status, text);
        let length =
            u32::from_be_bytes([self.frame[1], self.frame[2], self.frame[3], self.frame[4]]) as usize;
        let complete = self.bytes >= 5 && self.bytes - 5 == length;
        self.whole = complete && self.message.len() == length;
        Some(match status {
            0 if !complete => Err("status OK without a whole message".into()),
            0 if self.frame[0] != 0 => Err("a compressed message, which was not asked for".into()),
            _ => Ok(()),
        })
    }
}

/// The status and the message that fields carry.
pub(super) fn status_of(fields: &HeaderMap) -> Option<(u8, String)> {
    let status = fields.get("grpc-status")?.to_str().ok()?.parse().unwrap_or(2);
    let text = fields.get("grpc-message").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Some((status, text.unwrap_or_default()))
}

/// What went wrong, the same words for the same kind.
pub(super) fn words(error: &h2::Error) -> String {
    match error.get_io() {
        Some(error) => crate::sockets::words(error).into_owned(),
        None if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) => {
            "the server closed the connection".to_owned()
        }
        None => error.to_string(),
    }
}
