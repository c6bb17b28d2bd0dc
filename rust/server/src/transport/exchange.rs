//! What a connection asks of whoever answers its requests, and what it gets back.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::headers::Headers;
use crate::transport::body::Source;
use crate::transport::conn::{Conn, Open};
use crate::transport::delivery::Delivery;
use crate::transport::reply::ReplyBody;

/// Answers requests.
pub trait Service: 'static {
    /// Answers a request that the connection took apart itself.
    fn respond(head: Head<'_>, body: Source, received: Instant, open: &Open) -> impl Future<Output = Reply>;

    /// Answers one of hyper's requests. Every failure is an answer.
    fn handle(
        conn: Rc<Conn>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ReplyBody>, Infallible>>;
}

/// The header fields of an answer, those of its framing aside.
pub type Fields = Vec<(HeaderName, HeaderValue)>;

/// What is known of a request before its body.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path of its target.
    pub path: &'a str,
    /// Whether escapes of the path are still to be decoded.
    pub has_escapes: bool,
    /// The version of HTTP that it is read by.
    pub version: Version,
    /// The header fields.
    pub headers: Headers<'a>,
}

impl Head<'_> {
    /// Whether the request has the connection to itself.
    pub fn is_http1(&self) -> bool {
        self.version < Version::HTTP_2
    }
}

/// An answer before it becomes bytes on a wire.
pub struct Reply<D = Box<dyn Delivery>> {
    /// The status.
    pub status: StatusCode,
    /// The header fields, each name at most once.
    pub fields: Fields,
    /// The body.
    pub body: Vec<u8>,
    /// What is told when it is out.
    pub delivery: Option<D>,
    /// Whether no other request can be trusted to follow on a connection of HTTP/1.
    pub ends: bool,
}
