//! The service that a connection asks for replies. It is the room above, which `transport` does not know.

use std::future::Future;
use std::rc::Rc;

use headgate_engine::Instant;
use http::{Method, Version};

use crate::headers::Headers;
use crate::thread::io::Io;
use crate::transport::body::BodySource;
use crate::transport::call_reply::CallReply;
use crate::transport::connection_state::{ConnectionState, OpenRequest};
use crate::transport::http2::head::Http2Head;
use crate::transport::reply::Reply;
use crate::transport::streamed_body::StreamedBody;

/// Answers requests. Every failure is a reply.
pub trait Service: 'static {
    /// Answers a request, read by our own loops or by hyper.
    fn respond(
        io: &Io,
        head: RequestHead<'_>,
        body: BodySource,
        received: Instant,
        open: &OpenRequest,
    ) -> impl Future<Output = Reply>;

    /// Whether a request on HTTP/2 with these headers is a call for [`Service::call`].
    fn is_call(headers: Headers<'_>) -> bool;

    /// Answers a call whose reply goes on, or ends with trailers.
    fn call(
        io: &Io,
        conn: &Rc<ConnectionState>,
        head: Rc<Http2Head>,
        body: StreamedBody,
        received: Instant,
        open: OpenRequest,
    ) -> impl Future<Output = CallReply>;
}

/// What is known of a request before its body.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path of its target.
    pub path: &'a str,
    /// Whether the head is plain ([`crate::transport::http1::head`]): its framing has been checked, and its path has no escapes.
    pub is_plain: bool,
    /// The version of HTTP that it is read by.
    pub version: Version,
    /// The header fields.
    pub headers: Headers<'a>,
}

impl RequestHead<'_> {
    /// Whether the request has the connection to itself.
    pub fn is_http1(&self) -> bool {
        self.version < Version::HTTP_2
    }
}
