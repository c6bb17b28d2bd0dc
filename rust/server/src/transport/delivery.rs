//! What is notified when a reply is out.

use std::time::Instant;

/// What is notified when a reply is out. Dropped without that, it knows that the peer did not take the reply.
pub trait Delivery {
    /// The reply's bytes are with the socket.
    fn delivered(self: Box<Self>, now: Instant);
}
