//! The distance of a live distribution from its reference, computed from counts and sums on the same slots.
//!
//! `c` are reference counts and `d` live counts, p and q their shares, n and m their totals. Binned figures have no sketch error: both
//! sides are counted exactly on the same edges.
//!
//! `divergence`: PSI, KL, Jensen-Shannon, Hellinger, total variation, L-infinity. `contingency`: chi-square and G.
//! `bounds`: Kolmogorov-Smirnov and Wasserstein between guaranteed bounds. `tolerance`: the test that decides.
//! Next: `divergence`.

mod bounds;
mod contingency;
mod counts;
mod divergence;
mod tolerance;

pub use bounds::{BinnedSample, Bounds, ks, wasserstein};
pub use contingency::{TestResult, chi_square, g_test};
pub use counts::Count;
pub use divergence::{
    Unit, hellinger, jensen_shannon_distance, jensen_shannon_divergence, kl, kl_smoothed, l_infinity, psi,
    psi_raw, total_variation,
};
pub use tolerance::{Decision, Tolerance, Verdict, decide};
