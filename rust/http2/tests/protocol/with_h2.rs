//! The client of the crate `h2` against a server of ours, over a pipe in memory.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use headgate_http2::{Connection, Found, Limits, RequestHead, write_field, write_status};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::LocalSet;

const LIMITS: Limits = Limits {
    streams: 50,
    stream_window: 100_000,
    connection_window: 150_000,
    frame: 20_000,
    header_list: 8_192,
};

type Server = Connection<Bytes, RequestHead>;

/// Writes what waits, then reads more; false at the end.
fn poll_exchange(
    server: &mut Server,
    pipe: &mut DuplexStream,
    unread: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<bool>> {
    while let Some(wrote) = server.next_bytes(|slices| Pin::new(&mut *pipe).poll_write_vectored(cx, slices)) {
        match wrote {
            Poll::Ready(count) => server.note_written(count?),
            Poll::Pending => break,
        }
    }
    let mut bytes = [0; 4096];
    let mut buffer = ReadBuf::new(&mut bytes);
    std::task::ready!(Pin::new(pipe).poll_read(cx, &mut buffer))?;
    unread.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(!buffer.filled().is_empty()))
}

/// Answers each request with its own body.
async fn echo(mut pipe: DuplexStream) {
    let (mut server, mut unread) = (Server::new(LIMITS), BytesMut::new());
    poll_fn(|cx| {
        server.begin_turn(cx);
        loop {
            match server.read(&mut unread).unwrap() {
                Found::Request(mut request) => drop(tokio::task::spawn_local(async move {
                    let ends = request.body.is_end();
                    let fields = |out: &mut Vec<u8>| {
                        write_status(out, 200);
                        write_field(out, b"x-path", request.head.target.path().as_bytes());
                    };
                    if request.reply.send_head(ends, fields).is_err() || ends {
                        return;
                    }
                    while let Some(Ok(data)) = poll_fn(|cx| request.body.poll_data(cx)).await {
                        if poll_fn(|cx| request.reply.poll_room(cx)).await.is_err() {
                            return;
                        }
                        let _ = request.reply.send_data(data, false);
                    }
                    let _ = request.reply.send_trailers(|out| write_field(out, b"x-end", b"1"));
                })),
                Found::Missing(_) => match poll_exchange(&mut server, &mut pipe, &mut unread, cx) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => break,
                },
            }
        }
        server.end_turn();
        Poll::Pending
    })
    .await;
}

async fn ask(mut sender: h2::client::SendRequest<Bytes>, number: usize, length: usize) {
    let mut request = Request::post(format!("http://x/{number}"));
    for field in 0..number % 5 {
        request = request.header(format!("x-{field}"), "v".repeat(number % 90));
    }
    sender = sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request.body(()).unwrap(), length == 0).unwrap();
    let body: Bytes = (0..length).map(|at| (at * 3 + number) as u8).collect::<Vec<u8>>().into();
    let mut rest = body.clone();
    let sending = async {
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let room = poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            let piece = rest.split_to(room.min(rest.len()));
            stream.send_data(piece, rest.is_empty()).unwrap();
        }
    };
    let receiving = async {
        let response = response.await.unwrap();
        assert_eq!(response.headers()["x-path"], format!("/{number}"));
        let (mut answer, mut echoed) = (response.into_body(), Vec::new());
        while let Some(data) = answer.data().await {
            let data = data.unwrap();
            answer.flow_control().release_capacity(data.len()).unwrap();
            echoed.extend_from_slice(&data);
        }
        let trailers = answer.trailers().await.unwrap();
        assert_eq!(trailers.is_some(), length > 0);
        assert!(echoed == body);
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn many_requests_of_any_length_are_echoed() {
    let all = async {
        let (client, server) = tokio::io::duplex(3_000);
        let echoing = tokio::task::spawn_local(echo(server));
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(70_000)
            .handshake::<_, Bytes>(client)
            .await
            .unwrap();
        let connected = tokio::task::spawn_local(async move { connection.await.unwrap() });
        let lengths = [0, 1, 100, 5_000, 16_384, 40_000, 300_000];
        let asked = (0..140).map(|number| {
            tokio::task::spawn_local(ask(sender.clone(), number, lengths[number % lengths.len()]))
        });
        for done in asked.collect::<Vec<_>>() {
            done.await.unwrap();
        }
        drop(sender);
        connected.await.unwrap();
        echoing.await.unwrap();
    };
    LocalSet::new().run_until(all).await;
}
