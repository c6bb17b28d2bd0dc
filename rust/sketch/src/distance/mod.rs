//! How far a live distribution is from its reference, computed from counts (and sums) on the same slots.
//!
//! `c` are reference counts, `d` live counts, p and q their shares, n and m their totals. No sketch error exists in any
//! binned figure: both sides are counted exactly on the same edges.
//!
//! `divergence`: PSI, KL, Jensen-Shannon, Hellinger, total variation, L-infinity. `contingency`: chi-square and G.
//! `bracket`: Kolmogorov-Smirnov and Wasserstein between guaranteed bounds. `tolerance`: the test that decides.
//! Next: `divergence`.

mod bracket;
mod contingency;
mod divergence;
mod tolerance;

pub use bracket::{Bounds, Sample, ks, wasserstein};
pub use contingency::{TestResult, chi_square, g_test};
pub use divergence::{
    hellinger, jensen_shannon_distance, jensen_shannon_divergence, kl, kl_smoothed, l_infinity, psi, psi_raw,
    total_variation,
};
pub use tolerance::{Decision, Tolerance, Verdict, decide};

/// The unit of an information measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Natural logarithm.
    Nats,
    /// Logarithm to base 2.
    Bits,
}

/// A count: whole, or of effective rows where rows have weights.
pub trait Count: Copy {
    /// Its value.
    fn value(self) -> f64;
}

impl Count for u64 {
    fn value(self) -> f64 {
        self as f64
    }
}

impl Count for f64 {
    fn value(self) -> f64 {
        self
    }
}

fn total<C: Count>(counts: &[C]) -> f64 {
    counts.iter().map(|&count| count.value()).sum()
}

/// Pairs of shares; 0 for every slot of an empty side.
fn shares<'a>(c: &'a [u64], d: &'a [u64]) -> impl Iterator<Item = (f64, f64)> + 'a {
    debug_assert_eq!(c.len(), d.len(), "counts on different slots");
    let (n, m) = (total(c).max(1.0), total(d).max(1.0));
    c.iter().zip(d).map(move |(&c, &d)| (c as f64 / n, d as f64 / m))
}
