//! `ModelInfer`: one message in, one out, through the same phases as a REST request.
//!
//! Framed here and not by tonic, so that the response is the phases' own buffer and its record is booked after the flush.
//! Next: `request::infer`.

use std::rc::Rc;

use bytes::Bytes;
use headgate_core::error::Result;
use headgate_engine::Instant;
use headgate_protocol::envelope::Envelope;
use headgate_protocol::protobuf::{self, NameRanges};

use super::message;
use super::status::{self, error_trailers, ok_trailers, refusal};
use super::timeout::deadline;
use crate::after::access_log::Protocol;
use crate::headers::Headers;
use crate::reply_fields::ReplyFields;
use crate::request::infer::{self, InferWire};
use crate::request::inference::{InferCall, InferResponse, Target};
use crate::request::large_request;
use crate::request_context::{RequestContext, UNTIMED};
use crate::thread::io::{self, Io};
use crate::thread::request_memory::{BodyMemory, RequestMemory};
use crate::transport::body::{self, Alignment, ReadBody};
use crate::transport::call_reply::{CallBody, CallReply};
use crate::transport::coding::DecodeBounds;
use crate::transport::connection_state::{ConnectionState, OpenRequest, PendingBody};
use crate::transport::http2::head::Http2Head;
use crate::transport::streamed_body::StreamedBody;

/// Answers one call.
pub async fn handle(
    io: &Io,
    conn: &Rc<ConnectionState>,
    head: &Http2Head,
    mut body: StreamedBody,
    received: Instant,
    open: OpenRequest,
) -> CallReply {
    let headers = head.headers();
    let context = RequestContext::read(headers, || io.draw());
    let by_header = deadline(headers, received);
    let call = InferCall {
        headers,
        received,
        deadline: by_header.as_ref().ok().copied().flatten(),
        wire_format: message::ONE,
        protocol: Protocol::Grpc,
        context: &context,
    };
    let answer = match by_header {
        Ok(_) => {
            let receiving = Some(open.receiving());
            let mut wire =
                UnaryInfer { headers, body: &mut body, receiving, message: Bytes::new(), names: None };
            infer::infer(io, &call, &mut wire).await
        }
        Err(error) => Err(error).inspect_err(|error| call.book_refusal(io, "", error)),
    };
    body::discard(body, &open);
    match answer {
        Ok(answer) => answered(io, answer, &context, conn, open),
        Err(error) => {
            let mut reply = refusal(io, &error, conn, open);
            context.add_to(&mut reply.fields, UNTIMED);
            reply
        }
    }
}

/// An inference request that is one message of a call.
struct UnaryInfer<'a> {
    headers: Headers<'a>,
    body: &'a mut StreamedBody,
    /// Dropped once the body is read.
    receiving: Option<PendingBody>,
    message: Bytes,
    /// Where the names stand in the message, if they can be found.
    names: Option<NameRanges>,
}

impl UnaryInfer<'_> {
    fn set_message(&mut self, message: Bytes) {
        self.names = protobuf::model_name(&message).ok().map(|names| names.ranges(&message));
        self.message = message;
    }
}

impl InferWire for UnaryInfer<'_> {
    const NAMED_BY_PATH: bool = false;

    fn target(&self) -> Result<Target<'_>> {
        match &self.names {
            Some(names) => Ok(message::target_of(names.names(&self.message))),
            None => message::target(&self.message),
        }
    }

    fn take_body(&mut self, io: &Io) -> Option<RequestMemory> {
        let receiving = self.receiving.as_ref()?;
        let body = self.body.take_if_whole()?;
        let mut memory = BodyMemory::of_connection(&receiving.connection_memory());
        let message = message::if_plain(&body, io.shared.config.max_body_bytes);
        // What is refused is read again by `read_body`, which says why.
        let Some(message) = message.filter(|_| memory.count_to(io, body.len()).is_ok()) else {
            self.body.put_back(body);
            return None;
        };
        self.set_message(message);
        self.receiving = None;
        Some(memory.finish())
    }

    async fn read_body(&mut self, until: Option<Instant>) -> Result<RequestMemory> {
        let Some(receiving) = self.receiving.take() else { return Ok(RequestMemory::default()) };
        let limit = io::with(|io| io.shared.config.max_body_bytes);
        let most = limit.saturating_add(message::PREFIX);
        let alignment = Alignment { headers: Headers::NONE, find: tensor_offset };
        let read = body::read_aligned(self.body, &receiving.connection_memory(), most, alignment).await;
        let ReadBody { bytes, mut memory } = read.map_err(|error| message::of_message(error, limit))?;
        let bounds = DecodeBounds { limit, until };
        let message = message::take(self.headers, bytes, bounds, &mut memory).await?;
        self.set_message(message);
        Ok(memory)
    }

    fn body(&self) -> &Bytes {
        &self.message
    }

    async fn read_envelope<'b>(
        &'b self,
        until: Option<Instant>,
        memory: &mut RequestMemory,
    ) -> Result<Envelope<'b>> {
        large_request::parse_message(&self.message, until, memory).await
    }
}

/// Where the first large tensor of a message begins.
fn tensor_offset(piece: &[u8], _: Headers<'_>) -> Option<usize> {
    let message = piece.get(message::PREFIX..)?;
    Some(message::PREFIX + protobuf::first_large_tensor(message)?)
}

fn answered(
    io: &Io,
    answer: InferResponse,
    context: &RequestContext,
    conn: &Rc<ConnectionState>,
    open: OpenRequest,
) -> CallReply {
    let InferResponse { result, body, record, .. } = answer;
    let mut fields = ReplyFields::in_memory_of(io.fields.take());
    record.add_fallback_header(&mut fields);
    if result.is_ok() {
        record.add_receipt(io, &mut fields);
    }
    context.add_to(&mut fields, Some(|| record.timing.times()));
    let body = match result {
        Ok(_) => CallBody::message(Some(body), ok_trailers(), Some(record.into_delivery()), conn, open),
        Err(error) => {
            io.replies.give(body);
            CallBody::message(None, error_trailers(&error), Some(record.into_delivery()), conn, open)
        }
    };
    status::reply_with(fields, body)
}
