//! Serves a connection: by our own loop as long as its requests are plain HTTP/1.1, by hyper from there on.
//!
//! The hot path goes on in `http1`.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Instant;

use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1 as hyper_http1, http2};
use hyper::service::service_fn;

use crate::headers::Headers;
use crate::thread::io;
use crate::transport::body::{BodyProgress, BodySource};
use crate::transport::connection_state::ConnectionState;
use crate::transport::http1;
use crate::transport::hyper_body::HyperBody;
use crate::transport::service::{RequestHead, Service};
use crate::transport::watched_socket::{SpokenHttp, WatchedSocket};

/// Serves one socket to its end. Errors of the peer end the connection.
pub async fn serve<S: Service>(socket: TcpStream, conn: &Rc<ConnectionState>) {
    let config = io::with(|io| io.shared.clone());
    let config = &config.config;
    let out_of_patience = async {
        conn.wait_closing().await;
        tokio::time::sleep(config.drain_idle()).await;
    };
    let opened = tokio::select! {
        opened = WatchedSocket::open(socket, conn.clone(), config) => opened,
        () = out_of_patience => None,
    };
    let Some(wire) = opened else { return };
    let requests = conn.clone();
    // In a box: hyper moves the future of a request from its stream to a task and within it, which costs more than an allocation.
    let service = service_fn(move |request| boxed(|| handle::<S>(requests.clone(), request)));
    match wire.spoken() {
        SpokenHttp::Http1 => {
            let Some(wire) = http1::serve::<S>(wire, conn).await else { return };
            let mut builder = hyper_http1::Builder::new();
            builder.max_buf_size(64 << 10).half_close(false).timer(hyper_util::rt::TokioTimer::new());
            // The socket has the time-outs: hyper's time-out for the head would count idle time.
            builder.header_read_timeout(None);
            let mut http = pin!(builder.serve_connection(wire, service));
            let watched = poll_fn(|cx| {
                conn.register_waker(cx);
                http.as_mut().poll(cx)
            });
            drop(watched.await);
        }
        SpokenHttp::Http2 => {
            let mut builder = http2::Builder::new(LocalExecutor);
            builder
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .max_frame_size(1 << 20)
                .max_concurrent_streams(256)
                .max_header_list_size(64 << 10)
                // Otherwise a peer that disappears leaves its streams open for ever.
                .keep_alive_interval(config.idle())
                .keep_alive_timeout(config.head_timeout())
                .timer(hyper_util::rt::TokioTimer::new());
            let mut http = pin!(builder.serve_connection(wire, service));
            let watched = poll_fn(|cx| {
                conn.register_waker(cx);
                if conn.take_retiring() {
                    http.as_mut().graceful_shutdown();
                }
                http.as_mut().poll(cx)
            });
            drop(watched.await);
        }
    }
}

/// A future in a box. The memory is there before the future, which is made in it: `Box::pin` copies all of it, unused parts included.
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// Answers one of hyper's requests.
///
/// # Errors
/// Never: every failure is a reply.
async fn handle<S: Service>(
    conn: Rc<ConnectionState>,
    request: Request<Incoming>,
) -> Result<Response<HyperBody>, Infallible> {
    let http1 = request.version() < Version::HTTP_2;
    let received = if http1 { conn.received() } else { Instant::now() };
    let open = conn.begin();
    if !http1 && S::is_call(Headers::Map(request.headers())) {
        return Ok(S::call(&conn, request, open).await);
    }
    let (parts, body) = request.into_parts();
    let head = RequestHead {
        method: &parts.method,
        path: parts.uri.path(),
        is_plain: false,
        version: parts.version,
        headers: Headers::Map(&parts.headers),
    };
    let body = BodySource::Streamed(body, BodyProgress::Waiting(open.receiving()));
    let io = io::current();
    let mut reply = S::respond(&io, head, body, received, &open).await;
    let is_bare = parts.method == Method::HEAD && !http1;
    if http1 && (reply.closes || (io.is_draining() && conn.is_read_dry())) {
        reply.close();
    }
    Ok(reply.into_hyper(&io, is_bare, &conn, open))
}

/// Runs HTTP/2's tasks on the IO thread that has the connection.
#[derive(Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        drop(tokio::task::spawn_local(task));
    }
}
