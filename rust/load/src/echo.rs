//! Servers in this process that answer each request with the same bytes: what the client can do without a server to wait for.

mod grpc;
mod handle;
mod http1;

use std::io;

pub(crate) use handle::Echo;

use crate::plan::Protocol;

/// Listens on a free port of loopback and answers with `reply_bytes` bytes, on a thread of its own.
pub(crate) fn start(protocol: Protocol, reply_bytes: usize) -> io::Result<Echo> {
    match protocol {
        Protocol::Http => http1::start(reply_bytes),
        Protocol::Grpc | Protocol::GrpcStream => grpc::start(reply_bytes),
    }
}
