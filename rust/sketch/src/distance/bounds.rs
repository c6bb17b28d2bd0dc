//! Bounds of the Kolmogorov-Smirnov and Wasserstein distances, which hold for every pair of samples with these counts and sums. The
//! values inside a bin are unknown, but their effect is bounded.
//!
//! Below, F and G are the cumulative shares of reference and live, `D = F - G`, and for bin i of width w: `p` and `q` its
//! shares, `D0` and `D1` the difference at its ends. Not here: smoothing or p-values. Next: `tolerance`.

use super::counts::total;
use crate::edges::is_point;

/// A value between two bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The value is at least this.
    pub lower: f64,
    /// The value is at most this.
    pub upper: f64,
}

/// One side of a comparison: counts and sums per slot. There is one slot more than there are edges.
#[derive(Clone, Copy, Debug)]
pub struct BinnedSample<'a> {
    /// Values per slot.
    pub counts: &'a [u64],
    /// The sum of the values per slot.
    pub sums: &'a [f64],
}

impl BinnedSample<'_> {
    fn n(&self) -> f64 {
        total(self.counts)
    }

    /// The sum of the distances from the outermost edge to the values beyond it.
    fn tail_area(&self, edge: f64, slot: usize) -> f64 {
        (self.counts[slot] as f64 * edge - self.sums[slot]).abs()
    }

    /// Whether all values of slot i equal its upper edge. Then the slot is a single value, or the sum is the count times the edge, as
    /// no value exceeds the edge. The sum is used only if it is exact, which it is for whole numbers.
    fn at_upper(&self, edges: &[f64], i: usize) -> bool {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let product = self.counts[i] as f64 * edges[i];
        self.counts[i] == 0 || (edges[i].fract() == 0.0 && product.abs() <= EXACT && self.sums[i] == product)
    }
}

/// Whether both samples have all their values of slot i at its upper edge.
fn is_spike(edges: &[f64], a: &BinnedSample<'_>, b: &BinnedSample<'_>, i: usize) -> bool {
    i < edges.len() && (is_point(edges, i) || (a.at_upper(edges, i) && b.at_upper(edges, i)))
}

/// The Kolmogorov-Smirnov distance `sup |F - G|`. It is at least the largest difference at an edge. Inside a bin F - G rises at most
/// to `D0 + p`, and falls at most to `D0 - q`. `None` if a side is empty.
pub fn ks(edges: &[f64], reference: BinnedSample<'_>, live: BinnedSample<'_>) -> Option<Bounds> {
    let (n, m) = (reference.n(), live.n());
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let (mut lower, mut upper) = (0.0f64, 0.0f64);
    let (mut f, mut g) = (0.0, 0.0);
    for i in 0..=edges.len() {
        let (p, q) = (reference.counts[i] as f64, live.counts[i] as f64);
        if !is_spike(edges, &reference, &live, i) {
            let d0 = f / n - g / m;
            upper = upper.max(d0 + p / n).max(q / m - d0);
        }
        f += p;
        g += q;
        lower = lower.max((f / n - g / m).abs());
    }
    Some(Bounds { lower, upper: upper.max(lower).min(1.0) })
}

/// The part of the Wasserstein distance in one bin.
struct WassersteinBin {
    width: f64,
    d0: f64,
    d1: f64,
    p: f64,
    q: f64,
    /// The integral of F above its value at the lower edge: `p * high - S / n`, exact by integration by parts.
    f_area: f64,
    /// The same for G.
    g_area: f64,
}

impl WassersteinBin {
    /// `|integral of D|` is a lower bound. `integral of |D|` is that plus twice the smaller of the areas above and below
    /// zero; each of these is bounded from both ends of the bin and by the largest and smallest D possible.
    fn bounds(&self) -> Bounds {
        let WassersteinBin { width, d0, d1, p, q, f_area, g_area } = *self;
        let net = (width * d0 + f_area - g_area).abs();
        let above =
            [width * d0.max(0.0) + f_area, width * d1.max(0.0) + (q * width - g_area), width * (d0 + p)];
        let below = [
            width * (-d0).max(0.0) + g_area,
            width * (-d1).max(0.0) + (p * width - f_area),
            width * (q - d0),
        ];
        let least = |bounds: [f64; 3]| bounds.into_iter().fold(f64::INFINITY, f64::min).max(0.0);
        Bounds { lower: net, upper: net + 2.0 * least(above).min(least(below)) }
    }
}

/// The first Wasserstein distance `integral |F - G|`, in the unit of the values. If F - G has one sign within each bin, both bounds
/// are the exact value. Below the first and above the last edge only the net area is known. It is exact if the reference has no
/// values there, as with edges that were fitted on it. `None` if a side is empty.
pub fn wasserstein(edges: &[f64], reference: BinnedSample<'_>, live: BinnedSample<'_>) -> Option<Bounds> {
    let (n, m) = (reference.n(), live.n());
    if n == 0.0 || m == 0.0 || edges.is_empty() {
        return None;
    }
    let last = edges.len();
    let tail = |edge: f64, slot: usize| {
        let (a, b) = (reference.tail_area(edge, slot) / n, live.tail_area(edge, slot) / m);
        Bounds { lower: (a - b).abs(), upper: a + b }
    };
    let mut sum = tail(edges[0], 0);
    let (mut f, mut g) = (reference.counts[0] as f64, live.counts[0] as f64);
    for i in 1..last {
        let (c, d) = (reference.counts[i] as f64, live.counts[i] as f64);
        let (p, q, width) = (c / n, d / m, edges[i] - edges[i - 1]);
        let area = |count: f64, total: f64, sample: &BinnedSample<'_>| {
            ((count * edges[i] - sample.sums[i]) / total).clamp(0.0, width * count / total)
        };
        let bin = WassersteinBin {
            width,
            d0: f / n - g / m,
            d1: (f + c) / n - (g + d) / m,
            p,
            q,
            f_area: area(c, n, &reference),
            g_area: area(d, m, &live),
        };
        let bounds = bin.bounds();
        sum.lower += bounds.lower;
        sum.upper += if is_spike(edges, &reference, &live, i) { bounds.lower } else { bounds.upper };
        f += c;
        g += d;
    }
    let above = tail(edges[last - 1], last);
    Some(Bounds { lower: sum.lower + above.lower, upper: sum.upper + above.upper })
}
