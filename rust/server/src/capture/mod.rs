//! Capture: requests and answers that are written to files, after the response.
//!
//! ```text
//! after --> queue (bounded; drops the newest; counts) --> writer, a thread of low priority --> headgate-capture: files
//! ```
//! No request waits for it, and its errors disturb nothing else.
//!
//! May come in: `serving` (which versions are captured), `after` (which hands requests over), the gateway. Never known here: requests in
//! progress, their routing, snapshots.

pub mod families;
pub mod queue;
pub mod registry;
pub mod row;
pub mod writer;
