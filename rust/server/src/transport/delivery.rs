//! What waits for an answer to be out.

use std::time::Instant;

/// What waits for an answer to be out. Dropped without being told, it knows that nobody took the answer.
pub trait Delivery {
    /// The answer's bytes are with the socket.
    fn delivered(self: Box<Self>, now: Instant);
}
