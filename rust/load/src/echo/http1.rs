//! The server of HTTP/1.1: each request is answered with the same bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handle::Echo;
use crate::poller::{Clock, Happened, Poller, Until, Waker};

const LISTENER: u64 = u64::MAX - 1;
/// The longest head that is read.
const LONGEST_HEAD: usize = 16 << 10;

/// Listens on a free port of loopback and answers with `reply_bytes` bytes.
pub(super) fn start(reply_bytes: usize) -> io::Result<Echo> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let (address, waker, stop) = (listener.local_addr()?, Waker::new()?, Arc::new(AtomicBool::new(false)));
    let poller = Poller::new(Clock::starting_now(), waker.clone())?;
    poller.watch(&listener, LISTENER)?;
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {reply_bytes}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + reply_bytes, b'x');
    let told = Arc::clone(&stop);
    let server = Server { listener, poller, answer, connections: Vec::new() };
    let end = move || {
        stop.store(true, Ordering::Release);
        waker.wake();
    };
    Echo::run(address, end, move || server.run(&told))
}

struct Server {
    listener: TcpListener,
    poller: Poller,
    answer: Vec<u8>,
    connections: Vec<Option<Connection>>,
}

struct Connection {
    stream: TcpStream,
    head: Vec<u8>,
    /// Bytes of the body that are still to come.
    body_left: usize,
    /// Bytes of answers that the socket has not taken.
    unsent: usize,
}

impl Server {
    fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        let (mut happened, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while !stop.load(Ordering::Acquire) {
            self.poller.wait(Until::Event, &mut happened)?;
            for Happened { token, .. } in happened.drain(..) {
                if token == LISTENER {
                    self.accept()?;
                } else if let Some(connection) = &mut self.connections[token as usize]
                    && !connection.go_on(&mut buffer, &self.answer)
                {
                    self.connections[token as usize] = None;
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    self.poller.watch(&stream, self.connections.len() as u64)?;
                    self.connections.push(Some(Connection {
                        stream,
                        head: Vec::new(),
                        body_left: 0,
                        unsent: 0,
                    }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Connection {
    /// Reads and answers what there is; false when the connection is over.
    fn go_on(&mut self, buffer: &mut [u8], answer: &[u8]) -> bool {
        loop {
            if !self.flush(answer) {
                return false;
            }
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(read) => {
                    let Some(requests) = self.take(&buffer[..read]) else { return false };
                    self.unsent += requests * answer.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn flush(&mut self, answer: &[u8]) -> bool {
        while self.unsent > 0 {
            let part = (self.unsent - 1) % answer.len() + 1;
            match self.stream.write(&answer[answer.len() - part..]) {
                Ok(written) => self.unsent -= written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// The number of requests that end in a piece; `None` for what is no request.
    fn take(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let mut requests = 0;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let taken = self.body_left.min(bytes.len());
                self.body_left -= taken;
                bytes = &bytes[taken..];
                requests += usize::from(self.body_left == 0);
                continue;
            }
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let start = before.saturating_sub(3);
            let Some(end) = memchr::memmem::find(&self.head[start..], b"\r\n\r\n").map(|at| start + at + 4)
            else {
                return (self.head.len() <= LONGEST_HEAD).then_some(requests);
            };
            bytes = &bytes[end - before..];
            self.body_left = content_length(&self.head[..end])?;
            self.head.clear();
            requests += usize::from(self.body_left == 0);
        }
        Some(requests)
    }
}

/// The value of the field as the generator writes it.
fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let value = &head[memchr::memmem::find(head, NAME)? + NAME.len()..];
    let end = memchr::memchr(b'\r', value)?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}
