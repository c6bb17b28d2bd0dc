//! The present time, which is handed in, so that tests need not wait.

use std::time::{Instant, SystemTime};

/// The present time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For the age of rows that are kept.
    pub wall: SystemTime,
    /// For waits.
    pub steady: Instant,
}

impl Now {
    /// Reads the clocks. A clock that is before 1970 is taken as 1970, because no text says such times.
    pub fn read() -> Now {
        Now { wall: SystemTime::now().max(SystemTime::UNIX_EPOCH), steady: Instant::now() }
    }
}
