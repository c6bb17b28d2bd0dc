//! The edges of a feature's bins: chosen once from reference values, never from live ones.
//!
//! The convention in this crate: slot i holds the values in `(edges[i-1], edges[i]]`, upper inclusive as in Prometheus and OTLP, so
//! that the slot of x is the number of edges below x. Slot 0 is "below the reference", the last slot is "above the reference", and
//! the slots between are the bins.
//!
//! Not here: finding the slot fast (`lookup`). Next: `baseline`.

/// The number of equal-mass bins. Tails and heavy values add more.
pub const BINS: usize = 64;
/// Tail shares that get an edge of their own on both sides.
pub const TAILS: [f64; 4] = [1e-4, 1e-3, 5e-3, 1e-2];
/// Integers with at most this many distinct values get a bin for each.
pub const MAX_DISCRETE: usize = 256;
/// No feature has more edges than this; a file that claims more is refused.
pub const MAX_EDGES: usize = 2 * MAX_DISCRETE + 2;

/// How the values of a feature are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Any real number.
    Continuous,
    /// Whole numbers only.
    Integer,
}

/// The edges for reference values given in ascending order, all finite. Strictly ascending; empty for no values.
///
/// Quantiles are numpy's `inverted_cdf`. A value with at least 1/64 of the mass gets the bin `(pred(a), a]` for itself. It must occur
/// more than once, or each value of a small continuous sample would get a bin.
pub fn choose(sorted: &[f64], spacing: Spacing) -> Vec<f64> {
    let (Some(&first), Some(&last)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let mut edges = vec![first.next_down().max(f64::MIN), last];
    let discrete = if spacing == Spacing::Integer { distinct_within(sorted, MAX_DISCRETE) } else { None };
    match discrete {
        Some(values) => push_integers(&values, &mut edges),
        None => push_quantiles(sorted, &mut edges),
    }
    finish(edges)
}

/// Adds a bin for each value, and a bin for each gap between neighbours, so that integers that the reference lacks stay apart.
fn push_integers(values: &[f64], edges: &mut Vec<f64>) {
    for pair in values.windows(2) {
        edges.push(pair[0]);
        if pair[1] - pair[0] > 1.0 {
            edges.push(pair[1] - 1.0);
        }
    }
}

fn push_quantiles(sorted: &[f64], edges: &mut Vec<f64>) {
    let n = sorted.len();
    edges.extend((1..BINS).map(|i| sorted[(n * i).div_ceil(BINS).max(1) - 1]));
    for tail in TAILS {
        edges.push(quantile(sorted, tail));
        edges.push(quantile(sorted, 1.0 - tail));
    }
    let heavy = n.div_ceil(BINS).max(2);
    for run in sorted.chunk_by(|a, b| a == b) {
        if run.len() >= heavy {
            edges.extend([run[0], run[0].next_down().max(f64::MIN)]);
        }
    }
}

/// The smallest value whose cumulative share reaches `q` (numpy's `inverted_cdf`); `sorted` is not empty.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let n = sorted.len();
    let rank = (q * n as f64).ceil() as usize;
    sorted[rank.clamp(1, n) - 1]
}

fn distinct_within(sorted: &[f64], limit: usize) -> Option<Vec<f64>> {
    let mut values: Vec<f64> = Vec::new();
    for &value in sorted {
        if value.fract() != 0.0 {
            return None;
        }
        if values.last() != Some(&value) {
            if values.len() == limit {
                return None;
            }
            values.push(value);
        }
    }
    Some(values)
}

fn finish(mut edges: Vec<f64>) -> Vec<f64> {
    for edge in &mut edges {
        // -0.0 and 0.0 are one edge. With the sign, the bytes of a baseline would depend on the order of its rows.
        *edge += 0.0;
    }
    edges.sort_unstable_by(f64::total_cmp);
    edges.dedup();
    edges
}

/// The slot of a finite value, by definition. The fast form (`lookup`) is tested against this one.
pub fn slot(edges: &[f64], value: f64) -> usize {
    edges.partition_point(|&edge| edge < value)
}

/// Whether slot `i` can hold a single value only: `(pred(a), a]`.
pub fn is_point(edges: &[f64], i: usize) -> bool {
    i > 0 && i < edges.len() && edges[i].next_down() == edges[i - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_enclose_the_reference() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i) * 0.1).collect();
        let edges = choose(&values, Spacing::Continuous);
        assert!(edges.len() >= BINS && edges.is_sorted_by(|a, b| a < b));
        assert_eq!(slot(&edges, values[0]), 1);
        assert_eq!(slot(&edges, values[0].next_down()), 0);
        assert_eq!(slot(&edges, values[999]), edges.len() - 1);
        assert_eq!(slot(&edges, values[999].next_up()), edges.len());
    }

    #[test]
    fn a_heavy_value_gets_a_bin_of_its_own() {
        let mut values = vec![0.0; 400];
        values.extend((1..=600).map(|i| f64::from(i) * 0.01));
        let edges = choose(&values, Spacing::Continuous);
        let i = slot(&edges, 0.0);
        assert!(is_point(&edges, i), "{edges:?}");
        assert_ne!(slot(&edges, 1e-300), i);
    }

    #[test]
    fn a_small_continuous_sample_has_no_spikes() {
        let values: Vec<f64> = (0..40).map(|i| (f64::from(i) * 0.618).fract()).collect();
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let edges = choose(&sorted, Spacing::Continuous);
        assert!((1..edges.len()).all(|i| i == 1 || !is_point(&edges, i)));
    }

    #[test]
    fn integers_get_a_bin_each_and_gaps_stay_apart() {
        let edges = choose(&[1.0, 1.0, 2.0, 5.0], Spacing::Integer);
        assert_eq!(edges, [1f64.next_down(), 1.0, 2.0, 4.0, 5.0]);
        assert_eq!([1.0, 2.0, 3.0, 4.0, 5.0].map(|v| slot(&edges, v)), [1, 2, 3, 3, 4]);
    }

    #[test]
    fn many_integers_fall_back_to_quantiles() {
        let values: Vec<f64> = (0..5000).map(f64::from).collect();
        assert!(choose(&values, Spacing::Integer).len() < 100);
        assert!(choose(&[], Spacing::Integer).is_empty());
    }
}
