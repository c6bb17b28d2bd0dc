//! Counts on slots: their totals and shares.
//!
//! Next: `divergence`.

/// A count of rows: a whole number, or of effective rows if rows have weights.
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

pub(super) fn total<C: Count>(counts: &[C]) -> f64 {
    counts.iter().map(|&count| count.value()).sum()
}

/// Pairs of shares. All shares of an empty side are 0.
pub(super) fn shares<'a>(c: &'a [u64], d: &'a [u64]) -> impl Iterator<Item = (f64, f64)> + 'a {
    debug_assert_eq!(c.len(), d.len(), "counts on different slots");
    let (n, m) = (total(c).max(1.0), total(d).max(1.0));
    c.iter().zip(d).map(move |(&c, &d)| (c as f64 / n, d as f64 / m))
}
