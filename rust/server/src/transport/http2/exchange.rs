//! One request on HTTP/2 and its reply.
//!
//! Next: `service`, which makes the reply.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Buf;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use headgate_engine::Instant;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;

use crate::headers::Headers;
use crate::thread::io::Io;
use crate::transport::body::{BodyProgress, BodySource};
use crate::transport::connection_state::ConnectionState;
use crate::transport::reply_body::{FrameBytes, ReplyBody};
use crate::transport::service::{RequestHead, Service};
use crate::transport::streamed_body::StreamedBody;

/// A request and where its reply goes.
pub(super) struct Exchange {
    /// The request.
    pub(super) request: Request<RecvStream>,
    /// Where its reply goes.
    pub(super) reply: SendResponse<FrameBytes>,
    /// When it was read.
    pub(super) received: Instant,
}

impl Exchange {
    /// Whether the client does not wait for the reply any more.
    pub(super) fn is_taken_back(&mut self, cx: &mut Context<'_>) -> bool {
        self.reply.poll_reset(cx).is_ready()
    }
}

/// Answers a request, unless its client leaves or takes it back before. A reply that cannot be sent to its end is dropped with what waits
/// for its delivery. `note_reply` is called when nothing is waited for but the way to the client.
pub(super) async fn answer<S: Service>(
    io: &Io,
    conn: &Rc<ConnectionState>,
    exchange: Exchange,
    note_reply: impl FnOnce(),
) {
    let Exchange { request, mut reply, received } = exchange;
    let mut made_at = received;
    let response = {
        let mut work = pin!(respond::<S>(io, conn, request, received));
        let mut waits = false;
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(response) => {
                if waits {
                    made_at = Instant::now();
                }
                Poll::Ready(Some(response))
            }
            Poll::Pending => {
                waits = true;
                reply.poll_reset(cx).map(|_| None)
            }
        })
        .await
    };
    note_reply();
    let Some(response) = response else { return };
    let sent = match send(response, made_at, &mut reply) {
        Ok(None) => Ok(()),
        // In a box: what is rare must not make every request's future larger.
        Ok(Some((body, stream))) => Box::pin(send_on(body, stream)).await,
        Err(error) => Err(error),
    };
    if sent.is_err() {
        // Does nothing to a stream that is over.
        reply.send_reset(Reason::INTERNAL_ERROR);
    }
}

async fn respond<S: Service>(
    io: &Io,
    conn: &Rc<ConnectionState>,
    request: Request<RecvStream>,
    received: Instant,
) -> Response<ReplyBody> {
    let open = conn.begin();
    let (parts, stream) = request.into_parts();
    let body = StreamedBody::of_http2(stream, &parts.headers);
    if S::is_call(Headers::Map(&parts.headers)) {
        return S::call(io, conn, Request::from_parts(parts, body), received, open).await;
    }
    let head = RequestHead {
        method: &parts.method,
        path: parts.uri.path(),
        is_plain: false,
        version: parts.version,
        headers: Headers::Map(&parts.headers),
    };
    let body = BodySource::Streamed(body, BodyProgress::Waiting(open.receiving()));
    let reply = S::respond(io, head, body, received, &open).await;
    let is_bare = parts.method == Method::HEAD;
    reply.into_response(io, is_bare, conn, open)
}

/// What is left of a reply whose head was sent.
type Rest = (ReplyBody, SendStream<FrameBytes>);

/// Hands a reply to h2; the rest of one whose body goes on.
fn send(
    response: Response<ReplyBody>,
    made_at: Instant,
    reply: &mut SendResponse<FrameBytes>,
) -> Result<Option<Rest>, h2::Error> {
    let (mut head, body) = response.into_parts();
    head.headers.insert(DATE, date(made_at));
    if let ReplyBody::Whole(Some(bytes)) = &body {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.remaining()));
    }
    let is_over = body.is_end_stream();
    let mut stream = reply.send_response(Response::from_parts(head, ()), is_over)?;
    match body {
        _ if is_over => {}
        // Both are bytes that are there: h2 keeps them until the client's window takes them.
        ReplyBody::Whole(bytes) => stream.send_data(FrameBytes(bytes), true)?,
        ReplyBody::Message(bytes, trailers) => {
            if bytes.is_some() {
                stream.send_data(FrameBytes(bytes), false)?;
            }
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers.take())?;
            }
        }
        body => return Ok(Some((body, stream))),
    }
    Ok(None)
}

/// The frames of a reply after which other work of the thread has its turn.
const MOST_FRAMES_AT_ONCE: usize = 32;

/// Sends a body that goes on, piece by piece as the client's window allows, until it ends or the client takes its request back.
async fn send_on(mut body: ReplyBody, mut stream: SendStream<FrameBytes>) -> Result<(), h2::Error> {
    let mut frames = 0;
    loop {
        frames += 1;
        if frames % MOST_FRAMES_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset.map_or_else(|error| error, h2::Error::from)));
            }
            Pin::new(&mut body).poll_frame(cx).map(Ok)
        });
        let frame = match frame.await? {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Err(Reason::INTERNAL_ERROR.into()),
            None => return stream.send_data(FrameBytes(None), true),
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                if data.has_remaining() {
                    wait_for_window(&mut stream).await?;
                }
                stream.send_data(FrameBytes(Some(data)), is_last)?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

/// Waits until the client's window takes some of what is next. No more than that is asked for, so that a stream keeps no part of the
/// connection's window from others while it waits.
async fn wait_for_window(stream: &mut SendStream<FrameBytes>) -> Result<(), h2::Error> {
    stream.reserve_capacity(1);
    poll_fn(|cx| {
        if let Poll::Ready(reset) = stream.poll_reset(cx) {
            return Poll::Ready(Err(reset.map_or_else(|error| error, h2::Error::from)));
        }
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// A date as HTTP writes it, and until when it is right.
struct Date {
    until: Instant,
    value: HeaderValue,
}

thread_local! {
    static NEWEST_DATE: RefCell<Option<Date>> = const { RefCell::new(None) };
}

/// The date of a reply that is made at `now`, or was a moment ago. The system's clock is read once a second.
fn date(now: Instant) -> HeaderValue {
    NEWEST_DATE.with_borrow_mut(|newest| {
        if newest.as_ref().is_none_or(|date| now >= date.until) {
            let present = SystemTime::now();
            let into_second = present.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            let until = now + Duration::from_secs(1) - Duration::from_nanos(into_second.into());
            let text = httpdate::HttpDate::from(present).to_string();
            let value = HeaderValue::from_str(&text).expect("a date is ASCII");
            *newest = Some(Date { until, value });
        }
        newest.as_ref().expect("it was made above").value.clone()
    })
}
