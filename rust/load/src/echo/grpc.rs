//! The server of gRPC: each message of a call is answered with one message, for unary calls and for streams.
//!
//! It may have a runtime, because nothing here has a due time.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::handle::Echo;

/// Flow control windows: no message waits for the echo.
const WINDOW_BYTES: u32 = 16 << 20;
/// The bytes in front of a message.
const FRAME: usize = 5;

/// Listens on a free port of loopback and answers with messages of `reply_bytes` bytes.
pub(super) fn start(reply_bytes: usize) -> io::Result<Echo> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let mut answer = BytesMut::with_capacity(FRAME + reply_bytes);
    answer.put_u8(0);
    // The self-test allows fewer bytes than a length can say.
    answer.put_u32(reply_bytes as u32);
    answer.put_bytes(b'x', reply_bytes);
    let answer = answer.freeze();
    let (end, ended) = oneshot::channel::<()>();
    let end = move || {
        // A server that has ended already hears nothing.
        let _ = end.send(());
    };
    Echo::run(address, end, move || {
        runtime.block_on(async move {
            let accepting = tokio::spawn(accept(listener, answer));
            // An end without a word is one too.
            drop(ended.await);
            accepting.abort();
        });
        Ok(())
    })
}

async fn accept(listener: TcpListener, answer: Bytes) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, answer.clone()))),
            // It was given up before it was taken.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}

/// Answers the calls of a connection until it is closed.
async fn serve(stream: TcpStream, answer: Bytes) {
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let Ok(()) = stream.set_nodelay(true) else { return };
    // The client counts connections that are closed.
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            // A call that its client gave up needs no answer.
            drop(reply(request.into_body(), respond, answer).await);
        });
    }
}

async fn reply(
    mut request: RecvStream,
    mut respond: SendResponse<Bytes>,
    answer: Bytes,
) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut sending = respond.send_response(head, false)?;
    let mut messages = Messages::default();
    while let Some(data) = request.data().await {
        let data = data?;
        request.flow_control().release_capacity(data.len())?;
        for _ in 0..messages.ended_in(&data) {
            sending.send_data(answer.clone(), false)?;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    sending.send_trailers(trailers)
}

/// Where in its messages a call is.
#[derive(Default)]
struct Messages {
    frame: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Messages {
    /// The number of messages that end in a piece.
    fn ended_in(&mut self, mut piece: &[u8]) -> usize {
        let mut ended = 0;
        while !piece.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(piece.len());
                self.left -= taken;
                piece = &piece[taken..];
                ended += usize::from(self.left == 0);
                continue;
            }
            let taken = (FRAME - self.frame.len()).min(piece.len());
            self.frame.extend_from_slice(&piece[..taken]);
            piece = &piece[taken..];
            if let [_, a, b, c, d] = self.frame[..] {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.frame.clear();
                ended += usize::from(self.left == 0);
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_the_pieces_are_cut() {
        let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01x";
        for length in 1..=bytes.len() {
            let mut messages = Messages::default();
            let ended: usize = bytes.chunks(length).map(|piece| messages.ended_in(piece)).sum();
            assert_eq!((ended, messages.left, messages.frame.len()), (3, 0, 0), "pieces of {length}");
        }
    }
}
