//! Connections and their bytes: sockets, HTTP/1.1, HTTP/2, bodies as they come, responses as they leave.
//!
//! Lives here: accepting, the lifecycle of a connection, the fast reader of HTTP/1.1 (`http1`) and the hand-over to hyper, the turns of
//! a connection of HTTP/2 (`http2`), content encodings, the eviction of connections when there are too many. May come in: `call`, `io_thread`, and start and stop (`gateway`).
//! Never known here: versions, statistics, sketches.

pub mod accept;
pub mod body;
pub mod buffers;
pub mod call_reply;
pub mod coding;
pub mod connection_state;
pub mod connections;
pub mod delivery;
pub mod eviction;
pub mod framing;
pub mod http1;
pub mod http2;
pub mod reply;
pub mod reply_body;
pub mod serve;
pub mod service;
pub mod streamed_body;
pub mod watched_socket;
