//! A bidirectional stream on which requests and answers are messages. Answers come in the order of the requests.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};

use super::unary::{status_of, words};
use crate::desk::NOWHERE;
use crate::records::Outcome;
use crate::reply::Status;

/// The longest message that is taken.
const LONGEST_MESSAGE: usize = 1 << 30;

/// A stream that is open.
pub(super) struct Channel {
    request: SendStream<Bytes>,
    response: ResponseFuture,
    receiving: Option<RecvStream>,
    /// The calls that wait for their answers; [`NOWHERE`] for one that was given up, whose answer still comes.
    order: VecDeque<u32>,
    partial: Vec<u8>,
}

/// What a stream has for the pool.
#[derive(Debug)]
pub(super) enum Arrived {
    /// The message that answers a call.
    Message(u32, Vec<u8>),
    /// The stream is over.
    End(Ended),
    /// Nothing yet.
    Nothing,
}

/// Why a stream or its connection is over, and what becomes of the calls that have no answer.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) what: String,
    pub(super) outcome: Outcome,
}

impl From<String> for Ended {
    fn from(what: String) -> Ended {
        Ended { what, outcome: Outcome::Failed }
    }
}

impl Ended {
    fn with_status(code: u8, text: &str) -> Ended {
        let outcome = match Status::Grpc(code, text).outcome() {
            Outcome::Shed => Outcome::Shed,
            // An end without a failure fails the calls that it leaves without answers.
            _ => Outcome::Failed,
        };
        let what = format!("the stream ended with status {code}: {text}");
        Ended { what: what.trim_end_matches([' ', ':']).to_owned(), outcome }
    }
}

impl Channel {
    pub(super) fn new(response: ResponseFuture, request: SendStream<Bytes>) -> Channel {
        Channel { request, response, receiving: None, order: VecDeque::new(), partial: Vec::new() }
    }

    /// The number of answers that are awaited.
    pub(super) fn awaited(&self) -> usize {
        self.order.len()
    }

    /// Sends the pieces of a message with its frame.
    pub(super) fn send(&mut self, call: u32, pieces: &[Bytes]) -> Result<(), String> {
        self.order.push_back(call);
        let mut send = |piece: &Bytes| self.request.send_data(piece.clone(), false);
        pieces.iter().try_for_each(|piece| send(piece).map_err(|error| words(&error)))
    }

    /// Gives a call up: its answer will be thrown away.
    pub(super) fn give_up(&mut self, call: u32) {
        if let Some(entry) = self.order.iter_mut().find(|entry| **entry == call) {
            *entry = NOWHERE;
        }
    }

    /// The calls that wait for answers.
    pub(super) fn calls(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied().filter(|&call| call != NOWHERE)
    }

    /// The next message, or the end.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Arrived {
        loop {
            match self.take_message() {
                Ok(Some((NOWHERE, _))) => continue,
                Ok(Some((call, message))) => return Arrived::Message(call, message),
                Ok(None) => {}
                Err(what) => return Arrived::End(what.to_owned().into()),
            }
            match self.receive(context) {
                Poll::Pending => return Arrived::Nothing,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ended)) => return Arrived::End(ended),
            }
        }
    }

    /// Takes more bytes; the error says why there are none.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let Some(receiving) = &mut self.receiving else {
            return Pin::new(&mut self.response).poll(context).map(|response| {
                let (head, body) = response.map_err(|error| words(&error))?.into_parts();
                if head.status != http::StatusCode::OK {
                    let what = format!("HTTP status {} instead of a gRPC status", head.status.as_u16());
                    return Err(what.into());
                }
                if let Some((status, text)) = status_of(&head.headers) {
                    return Err(Ended::with_status(status, &text));
                }
                self.receiving = Some(body);
                Ok(())
            });
        };
        let data = std::task::ready!(receiving.poll_data(context));
        let Some(data) = data else {
            return receiving.poll_trailers(context).map(|trailers| {
                let trailers = trailers.map_err(|error| words(&error))?.unwrap_or_default();
                let status = status_of(&trailers);
                Err(match status {
                    Some((status, text)) => Ended::with_status(status, &text),
                    None => "the stream ended".to_owned().into(),
                })
            });
        };
        let taken = data.and_then(|data| {
            receiving.flow_control().release_capacity(data.len())?;
            self.partial.extend_from_slice(&data);
            Ok(())
        });
        Poll::Ready(taken.map_err(|error| words(&error).into()))
    }

    /// A message that is there whole, and the call that it answers.
    fn take_message(&mut self) -> Result<Option<(u32, Vec<u8>)>, &'static str> {
        let Some((&[compressed, a, b, c, d], rest)) = self.partial.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if compressed != 0 || length > LONGEST_MESSAGE {
            return Err("a message that is compressed or too long");
        }
        if rest.len() < length {
            return Ok(None);
        }
        let call = self.order.pop_front().ok_or("an answer without a request")?;
        let message = rest[..length].to_vec();
        self.partial.drain(..5 + length);
        Ok(Some((call, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_stream_says_what_becomes_of_calls_without_an_answer() {
        for (code, text, what, outcome) in [
            (14, "draining", "the stream ended with status 14: draining", Outcome::Shed),
            (8, "", "the stream ended with status 8", Outcome::Shed),
            (13, "a defect", "the stream ended with status 13: a defect", Outcome::Failed),
            (0, "", "the stream ended with status 0", Outcome::Failed),
        ] {
            let ended = Ended::with_status(code, text);
            assert_eq!((&*ended.what, ended.outcome), (what, outcome));
        }
    }
}
