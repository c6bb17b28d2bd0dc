//! HTTP/2 for servers, without sockets: bytes go in and come out, and requests with their replies stand in between (RFC 9113, RFC 7541).
//!
//! ```text
//! bytes -> Connection::read -> IncomingRequest: head, RequestBody, Reply -> Connection::next_bytes -> bytes
//! ```
//! A connection and its requests stay on one thread. Everything that a client can make us keep is bounded: its streams, what it sends of
//! them, its fields, the answers to its frames.
//!
//! Read in this order: `connection`, `head_reader`, `receive`, `send`.

mod connection;
mod frame;
mod head;
mod head_reader;
mod hpack;
mod output;
mod reason;
mod receive;
mod request;
mod send;
mod settings;
mod state;
mod stream;
mod window;

pub use connection::{Connection, Found};
pub use frame::PREFACE;
pub use head::RequestHead;
pub use hpack::{CommonName, write_common_field, write_field, write_status};
pub use reason::{ConnectionError, Reason, StreamError};
pub use request::{IncomingRequest, Reply, RequestBody};
pub use settings::Limits;
