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
    /// Reads the clocks.
    pub fn read() -> Now {
        Now { wall: SystemTime::now(), steady: Instant::now() }
    }
}
