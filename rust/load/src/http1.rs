//! The client of HTTP/1.1: a parser of answers, and the connections of a thread to a target.

mod chunks;
mod head;
pub(crate) mod parser;
pub(crate) mod pool;
