//! Drives connections by bytes, as a socket would: rules of the protocol, any bytes, and the client of the crate `h2`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

mod client;
mod limits;
mod replies;
mod requests;
mod with_h2;
