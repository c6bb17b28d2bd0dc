//! A warm request on the inline path allocates nothing of ours: as often as the same exchange with hyper alone, or less.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "counting allocations needs a global allocator; a test says what went wrong by panicking"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;
use common::{answer, connect, free, gateway_with, request, signature};
use headgate_core::error::Result;
use headgate_core::tensor::Signature;
use headgate_engine::Executable;
use headgate_engine::runtime::Binding;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Fails only while a thread's locals are being destroyed.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Doubles its input, and says how often its thread has allocated so far.
struct Telling {
    signature: Signature,
    tell: Mutex<Sender<u64>>,
}

impl Executable for Telling {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let so_far = ALLOCATIONS.with(Cell::get);
        self.tell.lock().unwrap().send(so_far).unwrap();
        free().run(binding)?;
        // What this test's model and channel allocate is nobody's.
        ALLOCATIONS.with(|count| count.set(so_far));
        Ok(())
    }
}

/// hyper alone: the same request read whole, an answer of the same size under as many headers.
fn bare(tell: Sender<u64>, length: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = tokio::net::TcpStream::from_std(socket).unwrap();
            let tell = &tell;
            let service = service_fn(move |request: Request<Incoming>| async move {
                let mut body = request.into_body();
                while let Some(frame) =
                    std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
                {
                    drop(frame.unwrap());
                }
                let so_far = ALLOCATIONS.with(Cell::get);
                tell.send(so_far).unwrap();
                ALLOCATIONS.with(|count| count.set(so_far));
                let mut answer = Response::new(Whole(Some(Bytes::from_static(&[b'x'; 512]).slice(..length))));
                for (name, value) in [
                    ("content-type", "application/json"),
                    ("x-headgate-version", "v1"),
                    ("x-headgate-revision", "1"),
                ] {
                    answer.headers_mut().insert(name, HeaderValue::from_static(value));
                }
                Ok::<_, Infallible>(answer)
            });
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await,
            );
        });
    });
    address
}

/// A body in one piece.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Allocations from one request to the next, over many warm ones.
fn per_request(address: SocketAddr, told: &std::sync::mpsc::Receiver<u64>, json: bool) -> Vec<u64> {
    let mut stream = connect(address);
    let mut counts = Vec::new();
    for _ in 0..60 {
        stream.write_all(request("model", 2.0).as_bytes()).unwrap();
        if json {
            assert_eq!(answer(&mut stream).0, 200);
        } else {
            common::skip_answer(&mut stream);
        }
        counts.push(told.recv_timeout(common::PATIENCE).unwrap());
    }
    counts.windows(2).skip(20).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn the_inline_path_allocates_no_more_than_hyper_alone() {
    let (tell, told) = channel();
    let (gateway, address) = gateway_with(&json!({"sketches": false}));
    let telling = Telling { signature: signature(), tell: Mutex::new(tell) };
    let model = gateway.engine().adopt("telling", Box::new(telling), &Default::default()).unwrap();
    model.placement.pin_inline();
    common::serve_adopted(&gateway, "model", "telling");
    let ours = per_request(address, &told, true);
    let (tell, told) = channel();
    let hypers = per_request(bare(tell, 120), &told, false);
    // The usual one: now and then a buffer of either grows.
    let usual = |counts: &[u64]| {
        let mut sorted = counts.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    eprintln!("ours {ours:?}\nhyper {hypers:?}");
    assert!(usual(&ours) <= usual(&hypers), "ours {ours:?}, hyper's {hypers:?}");
}
