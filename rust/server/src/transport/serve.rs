//! Serves a connection: HTTP/1.1 by our own loop as long as its requests are plain, and by hyper from there on; HTTP/2 by our own loop.
//!
//! The hot path goes on in `http1`, or in `http2`.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1 as hyper_http1;
use hyper::service::service_fn;

use crate::headers::Headers;
use crate::thread::io;
use crate::transport::body::{BodyProgress, BodySource};
use crate::transport::connection_state::ConnectionState;
use crate::transport::http1;
use crate::transport::http2;
use crate::transport::reply_body::WholeBody;
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
    let wire = match wire.spoken() {
        SpokenHttp::Http2 => return http2::serve::<S>(wire, conn, config).await,
        SpokenHttp::Http1 => http1::serve::<S>(wire, conn).await,
    };
    let Some(wire) = wire else { return };
    let requests = conn.clone();
    // In a box: hyper moves the future of a request, which costs more than an allocation.
    let service = service_fn(move |request| boxed(|| handle::<S>(requests.clone(), request)));
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
) -> Result<Response<WholeBody>, Infallible> {
    let open = conn.begin();
    let (parts, body) = request.into_parts();
    let head = RequestHead {
        method: &parts.method,
        path: parts.uri.path(),
        is_plain: false,
        version: parts.version,
        headers: Headers::Map(&parts.headers),
    };
    let body = BodySource::Streamed(body.into(), BodyProgress::Waiting(open.receiving()));
    let io = io::current();
    let mut reply = S::respond(&io, head, body, conn.received(), &open).await;
    if reply.closes || (io.is_draining() && conn.is_read_dry()) {
        reply.close();
    }
    Ok(reply.into_response(&io, &conn, open))
}
