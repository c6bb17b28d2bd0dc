//! The client of gRPC: the frames of HTTP/2 are those of the crate `h2`, which the loop of the thread drives without a runtime.
//!
//! `h2` needs a socket that says "not yet" and a waker. The socket is nonblocking, and the thread's poller tells when to go on
//! (`socket`). A wake-up puts a number into a list that the pool works off (`wake`). So no timer, and no other scheduler, stands between
//! a due time and the socket.

mod channel;
pub(crate) mod pool;
mod socket;
mod stream_answer;
mod unary;
mod wake;
