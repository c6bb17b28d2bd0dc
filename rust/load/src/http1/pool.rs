//! The connections of a thread to a target over HTTP/1.1, with one request at a time on each.
//!
//! A request takes the connection that was used last, so that no more are open than were ever in flight; if none is idle, another one is
//! opened. A connection that breaks is replaced with the next request. An idle connection that turns out to be closed by the server costs
//! its request one more try, as other clients do it. Once the connections are open, nothing here allocates.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::parser::{Keep, Parser, Progress};
use crate::desk::{Desk, NOWHERE};
use crate::poller::{Happened, Poller};
use crate::prepared::{Form, Prepared};
use crate::reply::{BodyForm, Reply, Status};
use crate::sockets;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
const END_OF_HEAD: &[u8] = b"\r\n";
const END_OF_TIMED_HEAD: &[u8] = b"x-headgate-timing: 1\r\n\r\n";

struct Connection {
    stream: TcpStream,
    /// What is in flight.
    call: Option<u32>,
    written: usize,
    parser: Parser,
    /// Whether an answer came before.
    used: bool,
}

/// The connections to one target.
pub(crate) struct HttpPool {
    address: SocketAddr,
    /// In front of the slot of a connection in its token.
    token_base: u64,
    connections: Vec<Option<Connection>>,
    vacant: Vec<u32>,
    idle: Vec<u32>,
    /// Calls that wait for a connection.
    waiting: VecDeque<u32>,
    most: usize,
    buffer: Vec<u8>,
}

impl HttpPool {
    pub(crate) fn new(address: SocketAddr, token_base: u64, most: usize) -> HttpPool {
        HttpPool {
            address,
            token_base,
            connections: Vec::new(),
            vacant: Vec::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            most,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Sends a call now, or when a connection is idle if there may be no more of them.
    pub(crate) fn send(&mut self, call: u32, desk: &mut Desk, poller: &Poller) {
        self.waiting.push_back(call);
        self.start_waiting(desk, poller);
    }

    /// Gives up a call.
    pub(crate) fn cancel(&mut self, call: u32, desk: &mut Desk, poller: &Poller) {
        match desk.call(call).place {
            NOWHERE => self.waiting.retain(|&waiting| waiting != call),
            // What else comes on this connection would be taken for the answer to the next request.
            slot => self.close(slot),
        }
        desk.timed_out(call);
        self.start_waiting(desk, poller);
    }

    /// Goes on with a connection to which something happened.
    pub(crate) fn on_event(&mut self, slot: u32, event: Happened, desk: &mut Desk, poller: &Poller) {
        let Some(Some(connection)) = self.connections.get(slot as usize) else { return };
        match connection.call {
            Some(_) => {
                if event.writable {
                    self.write(slot, desk);
                }
                if event.readable || event.closed {
                    self.read(slot, event.closed, desk);
                }
            }
            // Nothing may come while nothing is asked: the server closes, or does not speak HTTP.
            None if event.closed || event.readable => self.close(slot),
            None => {}
        }
        self.start_waiting(desk, poller);
    }

    fn start_waiting(&mut self, desk: &mut Desk, poller: &Poller) {
        let open = |pool: &HttpPool| pool.connections.len() - pool.vacant.len();
        while !self.waiting.is_empty() && (!self.idle.is_empty() || open(self) < self.most) {
            let Some(call) = self.waiting.pop_front() else { return };
            let slot = match self.idle.pop() {
                Some(slot) => slot,
                None => match self.connect(poller) {
                    Ok(slot) => slot,
                    Err(error) => {
                        desk.broken(call, &sockets::words(&error));
                        continue;
                    }
                },
            };
            self.start(slot, call, desk);
        }
    }

    fn connect(&mut self, poller: &Poller) -> io::Result<u32> {
        let stream = sockets::connect(self.address)?;
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(None);
            // There are at most as many connections as requests in flight, below 2^32.
            (self.connections.len() - 1) as u32
        });
        if let Err(error) = poller.watch(&stream, self.token_base | u64::from(slot)) {
            self.vacant.push(slot);
            return Err(error);
        }
        let connection = Connection { stream, call: None, written: 0, parser: Parser::new(), used: false };
        self.connections[slot as usize] = Some(connection);
        Ok(slot)
    }

    fn start(&mut self, slot: u32, call: u32, desk: &mut Desk) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let keep = if desk.call(call).checked { Keep::Whole } else { Keep::Errors };
        connection.parser.reset(keep);
        connection.call = Some(call);
        connection.written = 0;
        desk.call_mut(call).place = slot;
        desk.sent_later(call);
        self.write(slot, desk);
    }

    /// Writes as much of the request as the socket takes.
    fn write(&mut self, slot: u32, desk: &mut Desk) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let Some(call) = connection.call else { return };
        if let Err(error) = connection.write(desk.prepared(call), desk.call(call).timed) {
            self.broken(slot, &sockets::words(&error), desk);
        }
    }

    /// Reads until the answer is complete or the socket has nothing more.
    fn read(&mut self, slot: u32, closed: bool, desk: &mut Desk) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(connection) = &mut self.connections[slot as usize] {
            match connection.stream.read(&mut buffer) {
                Ok(0) if connection.parser.end() => self.complete(slot, After::Close, desk),
                Ok(0) => self.broken(slot, "the server closed the connection", desk),
                Ok(read) => match connection.parser.feed(&buffer[..read]) {
                    Ok(Progress::Done { used }) => {
                        let after = if used < read || closed { After::Close } else { After::Keep };
                        self.complete(slot, after, desk);
                        break;
                    }
                    // Less than asked for: the socket is empty, and the next bytes are an event of their own.
                    Ok(Progress::More)
                        if read < buffer.len() && !closed && !connection.parser.needs_close() =>
                    {
                        break;
                    }
                    Ok(Progress::More) => {}
                    Err(what) => self.unusable(slot, what, desk),
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if sockets::not_yet(&error) => break,
                Err(error) => self.broken(slot, &sockets::words(&error), desk),
            }
        }
        self.buffer = buffer;
    }

    /// Hands the answer over, and keeps the connection if both sides do.
    fn complete(&mut self, slot: u32, after: After, desk: &mut Desk) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let Some(call) = connection.call.take() else { return };
        let head = *connection.parser.head();
        let reply = Reply {
            status: Status::Http(head.status),
            phases: head.phases,
            body: connection.parser.kept(),
            whole: connection.parser.kept_whole(),
            form: head.json_bytes.map_or(BodyForm::Json, |json_bytes| BodyForm::Binary { json_bytes }),
        };
        let all_sent =
            connection.written == connection.request_bytes(desk.prepared(call), desk.call(call).timed);
        desk.answered(call, &reply);
        connection.used = true;
        if head.closes || after == After::Close || !all_sent {
            self.close(slot);
        } else {
            self.idle.push(slot);
        }
    }

    /// Closes a connection that broke. Its call is tried once more if the server may have closed it before the request came.
    fn broken(&mut self, slot: u32, what: &str, desk: &mut Desk) {
        let Some(connection) = &self.connections[slot as usize] else { return };
        let stale = connection.used && connection.parser.is_untouched();
        let call = connection.call;
        self.close(slot);
        let Some(call) = call else { return };
        let entry = desk.call_mut(call);
        if stale && !entry.retried {
            entry.retried = true;
            entry.place = NOWHERE;
            self.waiting.push_front(call);
        } else {
            desk.broken(call, what);
        }
    }

    /// Closes a connection whose answer is none.
    fn unusable(&mut self, slot: u32, what: &str, desk: &mut Desk) {
        let call = self.connections[slot as usize].as_ref().and_then(|connection| connection.call);
        self.close(slot);
        if let Some(call) = call {
            desk.broken(call, what);
        }
    }

    fn close(&mut self, slot: u32) {
        if self.connections[slot as usize].take().is_some() {
            self.idle.retain(|&idle| idle != slot);
            self.vacant.push(slot);
        }
    }
}

/// What happens to a connection after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    Close,
}

impl Connection {
    fn request_bytes(&self, prepared: &Prepared, timed: bool) -> usize {
        parts(prepared, timed).iter().map(|part| part.len()).sum()
    }

    /// Writes what is left of a request.
    fn write(&mut self, prepared: &Prepared, timed: bool) -> io::Result<()> {
        let parts = parts(prepared, timed);
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while self.written < total {
            let mut skipped = self.written;
            let left = parts.map(|part| {
                let skip = skipped.min(part.len());
                skipped -= skip;
                IoSlice::new(&part[skip..])
            });
            match self.stream.write_vectored(&left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if sockets::not_yet(&error) => return Ok(()),
                // The answer may be there already: a server may refuse before it has read everything.
                Err(error) if self.written > 0 && error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A request as it goes over the wire.
fn parts(prepared: &Prepared, timed: bool) -> [&[u8]; 3] {
    let head: &[u8] = match &prepared.form {
        Form::Http(head) => head,
        Form::Grpc { .. } => &[],
    };
    [head, if timed { END_OF_TIMED_HEAD } else { END_OF_HEAD }, &prepared.body]
}
