//! `ModelInfer`: one message in, one out, through the same phases as a REST request.
//!
//! Framed here and not by tonic, so that the answer's bytes are the phases' own buffer and the tap follows its flush.
//! Next: `infer`.

use std::rc::Rc;
use std::time::Instant;

use headgate_core::error::Result;
use headgate_protocol::protobuf;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;

use super::{CONTENT, deadline, failed, message, refused, succeeded};
use crate::body;
use crate::conn::{Conn, Open};
use crate::http::catching;
use crate::infer::{self, Answer, Ask, Dialect};
use crate::io;
use crate::path::Target;
use crate::reply::ReplyBody;

/// Answers one call.
pub async fn handle(conn: &Rc<Conn>, request: Request<Incoming>, open: Open) -> Response<ReplyBody> {
    let received = Instant::now();
    let (head, mut body) = request.into_parts();
    let answer = catching(model_infer(&head, &mut body, received)).await;
    body::discard(body, &open);
    match answer {
        Ok(answer) => answered(answer, conn, open),
        Err(error) => refused(&error, conn, open),
    }
}

async fn model_infer(head: &Parts, body: &mut Incoming, received: Instant) -> Result<Answer> {
    io::with(infer::admit)?;
    let deadline = deadline(&head.headers, received)?;
    let limit = io::with(|io| io.shared.config.max_body_bytes);
    let (body, _reserved) = body::read_counted(body, limit.saturating_add(message::PREFIX)).await?;
    let message = message::take(&head.headers, body, limit).await?;
    let request = io::with(|io| protobuf::parse(&message, &mut io.scratch.borrow_mut().envelope))?;
    let target = Target { endpoint: request.model_name, version: request.model_version };
    let ask = Ask { target, headers: &head.headers, received, deadline, dialect: Dialect::Grpc };
    let endpoint = infer::snapshot(&ask)?;
    infer::infer(ask, endpoint, request.envelope).await
}

fn answered(answer: Answer, conn: &Rc<Conn>, open: Open) -> Response<ReplyBody> {
    let Answer { result, body, tap } = answer;
    let headers = tap.headers();
    let body = match result {
        Ok(_) => ReplyBody::message(Some(body), succeeded(), Some(tap), conn, open),
        Err(error) => {
            io::with(|io| io.replies.give(body));
            ReplyBody::message(None, failed(&error), Some(tap), conn, open)
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, CONTENT.clone());
    response.headers_mut().extend(headers.map(|(name, value)| (Some(name), value)));
    response
}
