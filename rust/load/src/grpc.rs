//! The client of gRPC: the frames of HTTP/2 are those of the crate `h2`, which the loop of the thread drives without a runtime.
//!
//! `h2` needs a socket that says "not yet" and a waker. The socket is nonblocking, and the thread's poller tells when to go on
//! (`socket`). A wake-up puts a number into a list that the pool works off (`wake`). So no timer, and no other scheduler, stands between
//! a due time and the socket.

mod channel;
pub(crate) mod pool;
mod socket;
mod unary;
mod wake;

use headgate_protocol::pb::inference::ModelStreamInferResponse;
use prost::Message;

/// The `error_message` of an answer on a stream. The first byte of a good one is that of another field.
fn message_error(message: &[u8]) -> Option<String> {
    const ERROR_MESSAGE: u8 = 0x0a;
    if message.first() != Some(&ERROR_MESSAGE) {
        return None;
    }
    match ModelStreamInferResponse::decode(message) {
        Ok(message) if message.error_message.is_empty() => None,
        Ok(message) => Some(message.error_message),
        Err(error) => Some(error.to_string()),
    }
}
