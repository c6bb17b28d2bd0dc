//! Shadows: versions that get copies of requests, and whose answers are compared with the champion's and never returned.
//!
//! ```text
//! after::copies --> live_shadow (draws are made; counts) --> queue --> threads --> pair_run --> comparing --> tally --> report, families
//! ```
//! `pair`, `pairing`, `pair_run`, `comparing` and `tally` know nothing of queues and of shadows, so that a replay uses them as well.
//!
//! May come in: `serving` (which versions are shadows), `after` (which hands copies over), the gateway. Never known here: requests, their
//! routing, snapshots.

pub mod comparing;
pub mod cpu_budget;
pub mod drops;
pub mod families;
pub mod live_shadow;
pub mod pair;
pub mod pair_run;
pub mod pairing;
pub mod queue;
pub mod registry;
pub mod report;
pub mod tally;
pub mod tally_report;
pub mod threads;
pub mod values;
