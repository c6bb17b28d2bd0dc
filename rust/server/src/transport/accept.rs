//! The acceptor: one thread that takes sockets from the listeners and hands each to the IO thread with the fewest.

use std::cmp::Reverse;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::sync::oneshot;

use crate::serving::shared::Shared;
use crate::thread::io::{IoMessage, Mailbox};

/// The most connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// How long the listener stays open for connections that the kernel has begun to make when it closes.
const HANDSHAKE: Duration = Duration::from_millis(5);
/// A packet filter that drops the packets that ask for a connection: SYN without ACK in the flags of TCP. Packets of a connection pass,
/// because connections inherit the filter of their listener.
const SYN_FILTER: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];
/// How long to wait when the process is out of descriptors.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a thread may take to make room before another one is asked. It does so at once, unless it is in a run.
const MAKE_ROOM_TIMEOUT: Duration = Duration::from_millis(50);

/// Listens at a data port, on a socket that is bound already if there is one; `setting` is its name in messages.
///
/// # Errors
/// `invalid_argument` when the address cannot be used, with the system's reason.
pub fn bind(setting: &str, address: &str, bound: Option<OwnedFd>) -> Result<(TcpListener, SocketAddr)> {
    let unusable = |reason: &dyn std::fmt::Display| {
        Error::new(Code::InvalidArgument, format!("{setting}: cannot listen on {address:?}: {reason}"))
    };
    let wanted = address
        .to_socket_addrs()
        .map_err(|error| unusable(&error))?
        .next()
        .ok_or_else(|| unusable(&"no such address"))?;
    let listen = || -> std::io::Result<(TcpListener, SocketAddr)> {
        let socket = match bound {
            Some(bound) => Socket::from(bound),
            None => {
                let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.bind(&wanted.into())?;
                socket
            }
        };
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    listen().map_err(|error| unusable(&error))
}

/// Accepts until `stop` is sent or dropped.
pub fn run(
    runtime: &tokio::runtime::Runtime,
    listeners: Vec<TcpListener>,
    shared: &Arc<Shared>,
    threads: &[Mailbox],
    stop: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let listeners = listeners.into_iter().map(tokio::net::TcpListener::from_std);
        match listeners.collect::<std::io::Result<Vec<_>>>() {
            Ok(listeners) => {
                let accepting = listeners.iter().map(|listener| accept_all(listener, shared, threads));
                tokio::select! {
                    _ = futures_util::future::join_all(accepting) => {}
                    _ = stop => {}
                }
                close(listeners, shared, threads).await;
            }
            // No client can be served: readiness says so.
            Err(_) => shared.accept_failed.store(true, Relaxed),
        }
    });
}

async fn accept_all(listener: &tokio::net::TcpListener, shared: &Shared, threads: &[Mailbox]) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stream.into_std() {
                Ok(socket) => {
                    if is_full(shared, threads) {
                        make_room(shared, threads).await;
                    }
                    assign(socket, shared, threads);
                }
                Err(_) => refuse(shared),
            },
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Out of descriptors or memory: the connection stays in the backlog until others are closed.
            Err(_) => {
                make_room(shared, threads).await;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Stops listening. Connections that the kernel has made, or has begun to make, are served: their clients may have sent a
/// request, and would be reset.
async fn close(listeners: Vec<tokio::net::TcpListener>, shared: &Shared, threads: &[Mailbox]) {
    for listener in &listeners {
        // If the filter cannot be attached, a client that connects now may be reset.
        let _ = SockRef::from(listener).attach_filter(&SYN_FILTER);
    }
    let accepting = listeners.iter().map(|listener| accept_all(listener, shared, threads));
    // Ends only by the time-out.
    let _ = tokio::time::timeout(HANDSHAKE, futures_util::future::join_all(accepting)).await;
    for listener in listeners {
        let Ok(listener) = listener.into_std() else { continue };
        while let Ok((socket, _)) = listener.accept() {
            match socket.set_nonblocking(true) {
                Ok(()) => assign(socket, shared, threads),
                Err(_) => refuse(shared),
            }
        }
    }
}

fn refuse(shared: &Shared) {
    shared.metrics.connections_refused.fetch_add(1, Relaxed);
}

fn is_full(shared: &Shared, threads: &[Mailbox]) -> bool {
    let open: usize = threads.iter().map(|thread| thread.connections.load(Relaxed)).sum();
    open >= shared.config.max_connections
}

/// Asks one thread after the other to close connections that can be spared, from the fullest on, until one has.
async fn make_room(shared: &Shared, threads: &[Mailbox]) {
    let mut fullest: Vec<_> =
        threads.iter().zip(&shared.heartbeats).filter(|(_, heartbeat)| !heartbeat.is_stuck()).collect();
    fullest.sort_by_key(|(thread, _)| Reverse(thread.connections.load(Relaxed)));
    for (thread, _) in fullest {
        let (asker, made) = oneshot::channel();
        if !thread.post(IoMessage::MakeRoom(asker)) {
            continue;
        }
        if let Ok(Ok(1..)) = tokio::time::timeout(MAKE_ROOM_TIMEOUT, made).await {
            return;
        }
    }
}

fn assign(socket: TcpStream, shared: &Shared, threads: &[Mailbox]) {
    // A thread whose mailbox is full, or that does not come back from a run, gets no connection.
    let least = threads
        .iter()
        .zip(&shared.heartbeats)
        .filter(|(thread, heartbeat)| thread.has_room() && !heartbeat.is_stuck())
        .map(|(thread, _)| thread)
        .min_by_key(|thread| thread.connections.load(Relaxed));
    let (Some(thread), false) = (least, is_full(shared, threads)) else {
        refuse(shared);
        return;
    };
    if socket.set_nodelay(true).is_err() {
        refuse(shared);
        return;
    }
    thread.connections.fetch_add(1, Relaxed);
    if !thread.post(IoMessage::Socket(socket)) {
        thread.connections.fetch_sub(1, Relaxed);
        refuse(shared);
    }
}
