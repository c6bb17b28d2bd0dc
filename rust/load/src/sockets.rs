//! Opening connections without waiting, and their errors in words.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// Descriptors that a process needs besides the connections of a run.
const OTHER_DESCRIPTORS: u64 = 256;

/// Begins to connect. The socket is writable once it is connected.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if not_yet(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Whether an operation would have to wait.
pub(crate) fn not_yet(error: &io::Error) -> bool {
    let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
        || error.raw_os_error() == Some(in_progress)
}

/// What went wrong, the same words for the same kind.
pub(crate) fn words(error: &io::Error) -> Cow<'static, str> {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::ConnectionReset => "the server reset the connection".into(),
        ErrorKind::BrokenPipe => "the server closed the connection".into(),
        ErrorKind::AddrNotAvailable => "no local port is free".into(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "too many open files; raise the limit (ulimit -n)".into()
        }
        _ => error.to_string().into(),
    }
}

/// Raises the soft limit of open files of this process up to its hard limit, if connections need it.
pub(crate) fn allow_descriptors(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + OTHER_DESCRIPTORS;
    let Some(current) = limit.current.filter(|&current| current < wanted) else { return };
    let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum)).max(current);
    // Without the permission a connection too many is an error that is counted, with the remedy.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
}
