//! What is notified when a reply is out, and the header fields that it knows of.

use headgate_engine::Instant;

use crate::headers::PreparedFields;
use crate::thread::io::Io;

/// What is notified when a reply is out. Dropped without that, it knows that the peer did not take the reply.
pub trait Delivery {
    /// The reply's bytes are with the socket.
    fn delivered(self: Box<Self>, io: &Io, now: Instant);

    /// Header fields of the reply that are ready-made, beside the reply's own.
    fn prepared_fields(&self) -> Option<&PreparedFields> {
        None
    }

    /// About when the reply was made, if that was a moment ago.
    fn made_at(&self) -> Option<Instant> {
        None
    }
}
