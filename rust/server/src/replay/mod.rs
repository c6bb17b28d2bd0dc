//! Replays: captured requests that are put to a version, whose answers are compared with those that were given.
//!
//! ```text
//! registry (which run, which are kept) --> source (files, what of them is compared) --> run (a thread of the lowest priority) --> report
//! ```
//! Running, comparing and counting are the shadows' (`shadow::pair_run`, `comparing`, `tally`), and so is the CPU budget.
//!
//! May come in: the gateway. Never known here: requests in progress, their routing.

pub mod recorded;
pub mod registry;
pub mod report;
pub mod run;
pub mod source;
pub mod state;
