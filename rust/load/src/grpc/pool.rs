//! The connections of a thread to a target over gRPC: many calls on each, or one stream of messages on each.
//!
//! A connection takes calls until it has as many as the server allows; then another one is opened. Streams are spread one to a
//! connection, and each has as many messages in flight as servers work on at a time.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use http::{HeaderValue, Method, Request, Version};

use super::channel::{Arrived, Channel, Ended};
use super::socket::Socket;
use super::stream_answer::{StreamAnswer, asking_for_phases};
use super::unary::{Unary, words};
use super::wake::{WakeList, Woken, waker};
use crate::desk::{Desk, NOWHERE};
use crate::plan::Protocol;
use crate::poller::Poller;
use crate::prepared::{Form, Prepared, TIMING};
use crate::reply::{BodyForm, Reply, Status};
use crate::sockets;

/// Unary calls of a connection, if the server allows as many.
const MOST_CALLS: usize = 100;
/// Messages in flight on a stream.
const MOST_MESSAGES: usize = 16;
/// Flow control windows: no answer waits for the client.
const WINDOW_BYTES: u32 = 16 << 20;

type Handshake =
    Pin<Box<dyn Future<Output = Result<(SendRequest<Bytes>, Connection<Socket, Bytes>), h2::Error>>>>;

enum State {
    Handshaking(Handshake),
    Open { sender: SendRequest<Bytes>, connection: Box<Connection<Socket, Bytes>> },
}

struct Link {
    state: State,
    waker: Waker,
    /// Unary calls in flight.
    calls: usize,
    channel: Option<Channel>,
}

impl Link {
    fn load(&self) -> usize {
        self.channel.as_ref().map_or(self.calls, Channel::awaited)
    }
}

/// The connections to one target.
pub(crate) struct GrpcPool {
    address: SocketAddr,
    token_base: u64,
    most: usize,
    protocol: Protocol,
    links: Vec<Option<Link>>,
    waiting: VecDeque<u32>,
    /// Unary calls by their numbers, and a waker for each.
    unary: Vec<Option<Unary>>,
    wakers: Vec<Waker>,
    list: Arc<WakeList>,
    woken: Vec<Woken>,
}

impl GrpcPool {
    pub(crate) fn new(address: SocketAddr, token_base: u64, most: usize, protocol: Protocol) -> GrpcPool {
        GrpcPool {
            address,
            token_base,
            most,
            protocol,
            links: Vec::new(),
            waiting: VecDeque::new(),
            unary: Vec::new(),
            wakers: Vec::new(),
            list: Arc::default(),
            woken: Vec::new(),
        }
    }

    /// Sends a call now, or when there is room on a connection.
    pub(crate) fn send(&mut self, call: u32, desk: &mut Desk, poller: &Poller) {
        self.waiting.push_back(call);
        self.go_on(desk, poller);
    }

    /// Gives up a call.
    pub(crate) fn cancel(&mut self, call: u32, desk: &mut Desk, poller: &Poller) {
        let slot = desk.call(call).place;
        if slot == NOWHERE {
            self.waiting.retain(|&waiting| waiting != call);
        } else if let Some(mut unary) = self.unary.get_mut(call as usize).and_then(Option::take) {
            unary.reset();
            if let Some(link) = &mut self.links[slot as usize] {
                link.calls -= 1;
            }
        } else if let Some(channel) =
            self.links[slot as usize].as_mut().and_then(|link| link.channel.as_mut())
        {
            channel.give_up(call);
        }
        desk.timed_out(call);
        self.go_on(desk, poller);
    }

    /// Goes on with a connection to which something happened.
    pub(crate) fn on_event(&mut self, slot: u32, desk: &mut Desk, poller: &Poller) {
        self.drive(slot, desk);
        self.go_on(desk, poller);
    }

    /// Starts what waits and works off wake-ups, until neither is left.
    fn go_on(&mut self, desk: &mut Desk, poller: &Poller) {
        loop {
            self.start_waiting(desk, poller);
            let mut woken = std::mem::take(&mut self.woken);
            self.list.take(&mut woken);
            if woken.is_empty() {
                self.woken = woken;
                return;
            }
            for what in woken.drain(..) {
                match what {
                    Woken::Connection(slot) => self.drive(slot, desk),
                    Woken::Call(call) => self.poll_unary(call, desk),
                }
            }
            self.woken = woken;
        }
    }

    fn start_waiting(&mut self, desk: &mut Desk, poller: &Poller) {
        while let Some(&call) = self.waiting.front() {
            match self.room(poller) {
                Ok(Some(slot)) => {
                    self.waiting.pop_front();
                    if let Err(what) = self.start(slot, call, desk) {
                        // The connection takes nothing more; what else is on it fails with it.
                        desk.broken(call, &what);
                        self.close(slot, &what.into(), desk);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.waiting.pop_front();
                    desk.broken(call, &sockets::words(&error));
                }
            }
        }
    }

    /// An open connection with room; opens one if there is none and there may be more. `None`: wait.
    fn room(&mut self, poller: &Poller) -> io::Result<Option<u32>> {
        let limit = if self.protocol == Protocol::Grpc { MOST_CALLS } else { MOST_MESSAGES };
        let (mut best, mut opening, mut open) = (None::<(usize, u32)>, 0, 0);
        for (slot, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link else { continue };
            open += 1;
            let load = link.load();
            let State::Open { sender, .. } = &mut link.state else {
                opening += 1;
                continue;
            };
            let mut context = Context::from_waker(&link.waker);
            let takes = link.channel.is_some()
                || (load < sender.current_max_send_streams()
                    && !sender.poll_ready(&mut context).is_pending());
            if takes && best.is_none_or(|(least, _)| load < least) {
                best = Some((load, slot as u32));
            }
        }
        match best {
            Some((load, slot)) if load < limit => return Ok(Some(slot)),
            _ if open < self.most && self.waiting.len() > opening * limit => self.connect(poller)?,
            // Streams queue beyond what servers work on at a time, in the order of the requests.
            Some((_, slot)) if self.protocol == Protocol::GrpcStream && opening == 0 => {
                return Ok(Some(slot));
            }
            _ => {}
        }
        Ok(None)
    }

    fn connect(&mut self, poller: &Poller) -> io::Result<()> {
        let stream = sockets::connect(self.address)?;
        let slot = self.links.iter().position(Option::is_none).unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        poller.watch(&stream, self.token_base | slot as u64)?;
        let handshake = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(Socket(stream));
        let waker = waker(&self.list, Woken::Connection(slot as u32));
        // The handshake begins with the first wake-up.
        waker.wake_by_ref();
        let state = State::Handshaking(Box::pin(handshake));
        self.links[slot] = Some(Link { state, waker, calls: 0, channel: None });
        Ok(())
    }

    /// Puts a call on a connection with room.
    fn start(&mut self, slot: u32, call: u32, desk: &mut Desk) -> Result<(), String> {
        let Some(link) = &mut self.links[slot as usize] else { return Err("the connection is gone".into()) };
        let State::Open { sender, .. } = &mut link.state else {
            return Err("the connection is not open".into());
        };
        let prepared = Arc::clone(desk.all_prepared());
        let entry = desk.call_mut(call);
        let prepared = &prepared[entry.request as usize];
        let (timed, keep) = (entry.timed, entry.checked);
        entry.place = slot;
        desk.sent_later(call);
        if self.protocol == Protocol::GrpcStream {
            let channel = match &mut link.channel {
                Some(channel) => channel,
                None => {
                    let sent = sender.send_request(head(prepared, false), false);
                    let (response, request) = sent.map_err(|error| words(&error))?;
                    link.channel.insert(Channel::new(response, request))
                }
            };
            let asking;
            let pieces = if timed {
                asking = asking_for_phases(&prepared.body);
                &asking
            } else {
                std::slice::from_ref(&prepared.body)
            };
            channel.send(call, pieces)?;
            link.waker.wake_by_ref();
            return Ok(());
        }
        let sent = sender.send_request(head(prepared, timed), false).map_err(|error| words(&error))?;
        let (response, mut request) = sent;
        request.send_data(prepared.body.clone(), true).map_err(|error| words(&error))?;
        link.calls += 1;
        self.put_unary(call, Unary::new(slot, response, request, keep));
        // The first look leaves the waker with the answer.
        self.poll_unary(call, desk);
        Ok(())
    }

    fn put_unary(&mut self, call: u32, unary: Unary) {
        while self.unary.len() <= call as usize {
            self.wakers.push(waker(&self.list, Woken::Call(self.unary.len() as u32)));
            self.unary.push(None);
        }
        self.unary[call as usize] = Some(unary);
    }

    fn poll_unary(&mut self, call: u32, desk: &mut Desk) {
        let Some(unary) = self.unary.get_mut(call as usize).and_then(Option::as_mut) else { return };
        let mut context = Context::from_waker(&self.wakers[call as usize]);
        let Poll::Ready(outcome) = unary.poll(&mut context) else { return };
        let Some(unary) = self.unary[call as usize].take() else { return };
        if let Some(link) = &mut self.links[unary.slot as usize] {
            link.calls -= 1;
        }
        match outcome {
            Ok(()) => {
                let answer = &unary.answer;
                let reply = Reply {
                    status: Status::Grpc(answer.status, &answer.text),
                    phases: answer.phases,
                    body: &answer.message,
                    whole: answer.whole,
                    form: BodyForm::Infer,
                };
                desk.answered(call, &reply);
            }
            Err(what) => desk.broken(call, &what),
        }
    }

    /// Lets a connection read and write, and takes what came on its stream.
    fn drive(&mut self, slot: u32, desk: &mut Desk) {
        let Some(Some(link)) = self.links.get_mut(slot as usize) else { return };
        let mut context = Context::from_waker(&link.waker);
        if let State::Handshaking(handshake) = &mut link.state {
            match handshake.as_mut().poll(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Ok((sender, connection))) => {
                    link.state = State::Open { sender, connection: Box::new(connection) };
                }
                Poll::Ready(Err(error)) => {
                    return self.close(slot, &words(&error).into(), desk);
                }
            }
        }
        let State::Open { connection, .. } = &mut link.state else { return };
        let ended = match Pin::new(&mut **connection).poll(&mut context) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => Some(Ended::from("the server closed the connection".to_owned())),
            Poll::Ready(Err(error)) => Some(words(&error).into()),
        };
        if let Some(ended) = self.receive(slot, desk).or(ended) {
            self.close(slot, &ended, desk);
        }
    }

    /// Takes the messages that came on a stream; why it ended, if it did.
    fn receive(&mut self, slot: u32, desk: &mut Desk) -> Option<Ended> {
        let link = self.links[slot as usize].as_mut()?;
        let channel = link.channel.as_mut()?;
        let mut context = Context::from_waker(&link.waker);
        loop {
            match channel.poll(&mut context) {
                Arrived::Message(call, message) => {
                    let answer = match desk.call(call).timed {
                        true => StreamAnswer::read(&message),
                        false => StreamAnswer::read_if_failed(&message),
                    };
                    let reply = Reply {
                        status: answer.status(),
                        phases: answer.phases(),
                        body: &message,
                        whole: true,
                        form: BodyForm::StreamInfer,
                    };
                    desk.answered(call, &reply);
                }
                Arrived::End(ended) => return Some(ended),
                Arrived::Nothing => return None,
            }
        }
    }

    /// Lets everything on a connection that has ended fail. Calls whose answers are there already keep them.
    fn close(&mut self, slot: u32, ended: &Ended, desk: &mut Desk) {
        let Ended { what, outcome } = ended;
        for call in 0..self.unary.len() as u32 {
            if self.unary[call as usize].as_ref().is_some_and(|unary| unary.slot == slot) {
                self.poll_unary(call, desk);
                if self.unary[call as usize].take().is_some() {
                    desk.broken(call, what);
                }
            }
        }
        let Some(link) = self.links[slot as usize].take() else { return };
        for call in link.channel.iter().flat_map(Channel::calls) {
            desk.unanswered(call, *outcome, what);
        }
        if let State::Handshaking(_) = link.state {
            // What waited for this connection would wait for the next one for ever, if the server is gone.
            for call in std::mem::take(&mut self.waiting) {
                desk.broken(call, what);
            }
        }
    }
}

/// The head of a call.
fn head(prepared: &Prepared, timed: bool) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    if let Form::Grpc { uri, headers } = &prepared.form {
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
    }
    if timed {
        request.headers_mut().insert(TIMING, HeaderValue::from_static("1"));
    }
    request
}
