//! Finds the slot of a value in nanoseconds: a table over a monotone key of the value, then a fixed number of comparisons.
//!
//! The result is exact. Let c be any function that never decreases. Every threshold whose cell is below c(x) is below x, and every
//! threshold whose cell is above c(x) is above x. Only thresholds in the cell of x must be compared. So rounding in the key costs
//! comparisons, never correctness. Not here: counting (`aligned`, `shard`). Next: `aligned`.

use std::fmt::Debug;

use crate::edges::is_point;

/// Comparisons after the table. A table is used only if no cell holds more thresholds.
const COMPARISONS: usize = 4;
/// Cells of a table. A cell number is a byte, so that the look-up needs no bounds check.
const CELLS: usize = 256;
const SHIFTS_SINGLE: std::ops::RangeInclusive<u32> = 15..=20;

/// The two types in which values are compared: `f32` for types that it holds exactly, `f64` for the others.
pub trait Lane: Copy + PartialOrd + Debug + Send + Sync + 'static {
    /// Larger than every finite value.
    const INFINITY: Self;
    /// Mantissa bits this lane has beyond `f32`'s.
    const EXTRA_BITS: u32;
    /// The exact value.
    fn to_f64(self) -> f64;
    /// The nearest value of this lane.
    fn nearest(value: f64) -> Self;
    /// The next smaller value of this lane.
    fn next_down(self) -> Self;
    /// Whether it is neither NaN nor infinite.
    fn is_finite(self) -> bool;
    /// `(self - origin) * scale`, clamped to `0..=255` and rounded: never decreases in `self`.
    fn cell(self, origin: Self, scale: Self) -> u8;
    /// The bits as an integer that ascends with the value; -0.0 and 0.0 are the same.
    fn key(self) -> i64;
}

macro_rules! lane {
    ($float:ty, $int:ty, $extra:expr, $magic:expr) => {
        impl Lane for $float {
            const INFINITY: Self = <$float>::INFINITY;
            const EXTRA_BITS: u32 = $extra;

            #[inline]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            fn nearest(value: f64) -> Self {
                value as $float
            }

            fn next_down(self) -> Self {
                <$float>::next_down(self)
            }

            #[inline]
            fn is_finite(self) -> bool {
                <$float>::is_finite(self)
            }

            #[inline]
            fn cell(self, origin: Self, scale: Self) -> u8 {
                let y = (self - origin) * scale;
                let y = if y > 0.0 { y } else { 0.0 };
                let y = if y < 255.0 { y } else { 255.0 };
                // Adding 2^mantissa leaves the rounded integer in the low bits: cheaper than a saturating conversion.
                (y + $magic).to_bits() as u8
            }

            #[inline]
            fn key(self) -> i64 {
                // Adding 0.0 turns -0.0 into 0.0, which must not fall into a cell of its own.
                let bits = (self + 0.0).to_bits() as $int;
                i64::from(if bits < 0 { !bits ^ <$int>::MIN } else { bits })
            }
        }
    };
}
lane!(f32, i32, 0, 8_388_608.0);
lane!(f64, i64, 29, 4_503_599_627_370_496.0);

#[derive(Clone, Debug)]
enum CellMapping<L> {
    /// Cells of equal width.
    Affine { origin: L, scale: L },
    /// Cells of equal ratio: the top bits of the value.
    Key { shift: u32, first: i64 },
    /// No table was good enough: binary search in these thresholds.
    Search(Box<[L]>),
}

/// A table with its thresholds. Sized so that any byte is a valid index, and any byte plus `COMPARISONS` too.
#[derive(Clone, Debug)]
struct ThresholdTable<L> {
    /// For each cell the number of thresholds in lower cells.
    below: [u8; CELLS],
    /// Ascending; infinities after the last.
    thresholds: [L; CELLS + COMPARISONS],
}

/// Finds slots among fixed thresholds.
#[derive(Clone, Debug)]
pub struct SlotLookup<L> {
    cells: CellMapping<L>,
    table: Box<ThresholdTable<L>>,
    slots: usize,
}

impl<L: Lane> SlotLookup<L> {
    /// A lookup for edges as in [`crate::edges`], rounded to this lane. A slot for a single value stays one.
    pub fn new(edges: &[f64]) -> Self {
        let thresholds = rounded_thresholds(edges);
        let affine =
            trimmed_ranges(&thresholds).into_iter().filter_map(|(low, high)| affine_cells(low, high));
        let keyed = SHIFTS_SINGLE.rev().filter_map(|shift| key_cells(&thresholds, shift + L::EXTRA_BITS));
        affine.chain(keyed).find_map(|cells| Self::with_table(&thresholds, cells)).unwrap_or_else(|| Self {
            slots: thresholds.len() + 1,
            cells: CellMapping::Search(thresholds.into()),
            table: Box::new(ThresholdTable::empty()),
        })
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        let searched =
            if let CellMapping::Search(thresholds) = &self.cells { size_of_val(&**thresholds) } else { 0 };
        size_of::<ThresholdTable<L>>() + searched
    }

    /// The slot of a finite value: the number of thresholds below it.
    #[inline]
    pub fn slot(&self, value: L) -> usize {
        let cell = match &self.cells {
            CellMapping::Affine { origin, scale } => value.cell(*origin, *scale),
            CellMapping::Key { shift, first } => key_cell(value, *shift, *first),
            CellMapping::Search(thresholds) => return search(thresholds, value),
        };
        let base = usize::from(self.table.below[usize::from(cell)]);
        let near = &self.table.thresholds[base..base + COMPARISONS];
        base + near.iter().map(|&threshold| usize::from(threshold < value)).sum::<usize>()
    }

    /// The table for these cells, if none holds more than `COMPARISONS` thresholds.
    fn with_table(thresholds: &[L], cells: CellMapping<L>) -> Option<Self> {
        if thresholds.len() >= CELLS {
            return None;
        }
        let mut held = [0usize; CELLS];
        for &threshold in thresholds {
            let cell = match cells {
                CellMapping::Affine { origin, scale } => threshold.cell(origin, scale),
                CellMapping::Key { shift, first } => key_cell(threshold, shift, first),
                CellMapping::Search(_) => return None,
            };
            held[usize::from(cell)] += 1;
        }
        if held.iter().any(|&count| count > COMPARISONS) {
            return None;
        }
        let mut table = Box::new(ThresholdTable::empty());
        let mut below = 0;
        for (cell, count) in held.iter().enumerate() {
            table.below[cell] = below as u8;
            below += count;
        }
        table.thresholds[..thresholds.len()].copy_from_slice(thresholds);
        Some(Self { cells, table, slots: thresholds.len() + 1 })
    }
}

impl<L: Lane> ThresholdTable<L> {
    fn empty() -> Self {
        Self { below: [0; CELLS], thresholds: [L::INFINITY; CELLS + COMPARISONS] }
    }
}

#[inline]
fn key_cell<L: Lane>(value: L, shift: u32, first: i64) -> u8 {
    ((value.key() >> shift) - first).clamp(0, CELLS as i64 - 1) as u8
}

#[cold]
fn search<L: Lane>(thresholds: &[L], value: L) -> usize {
    thresholds.partition_point(|&threshold| threshold < value)
}

/// Cells of equal width over a range. `None` if the range has no width.
fn affine_cells<L: Lane>(low: L, high: L) -> Option<CellMapping<L>> {
    let width = high.to_f64() - low.to_f64();
    let scale = L::nearest((CELLS - 1) as f64 / width);
    (scale.is_finite() && scale.to_f64() > 0.0).then_some(CellMapping::Affine { origin: low, scale })
}

/// Cells of equal ratio: from the lowest threshold if all fit, else around the middle one.
fn key_cells<L: Lane>(thresholds: &[L], shift: u32) -> Option<CellMapping<L>> {
    let middle = thresholds.get(thresholds.len() / 2)?.key() >> shift;
    let (low, high) = (thresholds.first()?.key() >> shift, thresholds.last()?.key() >> shift);
    let first = if high - low < CELLS as i64 { low } else { middle - CELLS as i64 / 2 };
    Some(CellMapping::Key { shift, first })
}

/// The thresholds of a lane, never descending. The lower edge of a single value moves to just below the rounded value. So does the
/// lowest edge, or the minimum of the reference would count as below it.
fn rounded_thresholds<L: Lane>(edges: &[f64]) -> Vec<L> {
    let mut thresholds: Vec<L> = edges.iter().map(|&edge| L::nearest(edge)).collect();
    for i in (1..edges.len()).filter(|&i| is_point(edges, i)) {
        thresholds[i - 1] = thresholds[i].next_down();
    }
    if let Some(first) = edges.first() {
        thresholds[0] = L::nearest(first.next_up()).next_down();
    }
    for i in 1..thresholds.len() {
        if thresholds[i] < thresholds[i - 1] {
            thresholds[i] = thresholds[i - 1];
        }
    }
    thresholds
}

/// Ranges to try for equal cells: all thresholds, then without a few in the tails, which the outer cells can hold.
fn trimmed_ranges<L: Lane>(thresholds: &[L]) -> Vec<(L, L)> {
    let n = thresholds.len();
    (0..COMPARISONS)
        .filter(|&skip| 2 * skip < n)
        .map(|skip| (thresholds[skip], thresholds[n - 1 - skip]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::{self, Spacing};

    fn agree<L: Lane>(edges: &[f64], probes: impl Iterator<Item = f64>) {
        let lookup = SlotLookup::<L>::new(edges);
        let thresholds = rounded_thresholds::<L>(edges);
        for probe in probes.map(L::nearest).filter(|probe| probe.is_finite()) {
            let scan = thresholds.iter().filter(|&&t| t < probe).count();
            assert_eq!(lookup.slot(probe), scan, "{probe:?} in {edges:?}");
            assert_eq!(search(&thresholds, probe), scan);
        }
        assert_eq!(lookup.slots(), edges.len() + 1);
    }

    fn around(edges: &[f64]) -> Vec<f64> {
        let extremes = [0.0, -0.0, 1e-310, -1e-310, f64::MAX, f64::MIN, 1e38, -1e38];
        let near = edges.iter().flat_map(|&e| {
            let single = e as f32;
            [e, e.next_up(), e.next_down(), f64::from(single.next_up()), f64::from(single.next_down())]
        });
        near.chain(extremes).collect()
    }

    fn shapes() -> Vec<Vec<f64>> {
        let golden = |n: u32| (1..=n).map(|i| (f64::from(i) * 0.618_033_988_749_894_9).fract());
        vec![
            golden(5000).collect(),
            golden(5000).map(|u| (u / (1.0 - u)).ln()).collect(),
            golden(5000).map(|u| (u / (1.0 - u)).ln().exp()).collect(),
            golden(5000).map(|u| 1e9 + u).collect(),
            golden(5000).map(|u| 1.0 / u.powi(5)).collect(),
            golden(5000).map(|u| if u < 0.5 { 0.0 } else { u }).collect(),
            vec![0.0; 10],
            vec![-3.0, 1e300, -1e300],
            (0..500).map(f64::from).collect(),
            Vec::new(),
        ]
    }

    #[test]
    fn table_search_and_scan_agree_everywhere() {
        for mut values in shapes() {
            values.sort_unstable_by(f64::total_cmp);
            for spacing in [Spacing::Continuous, Spacing::Integer] {
                let edges = edges::choose(&values, spacing);
                let probes: Vec<f64> = around(&edges).into_iter().chain(values.iter().copied()).collect();
                agree::<f32>(&edges, probes.iter().copied());
                agree::<f64>(&edges, probes.iter().copied());
            }
        }
    }

    #[test]
    fn doubles_have_the_slots_of_the_definition() {
        for mut values in shapes() {
            values.sort_unstable_by(f64::total_cmp);
            let edges = edges::choose(&values, Spacing::Continuous);
            let lookup = SlotLookup::<f64>::new(&edges);
            for probe in around(&edges) {
                assert_eq!(lookup.slot(probe), edges::slot(&edges, probe), "{probe}");
            }
        }
    }

    #[test]
    fn usual_features_do_not_need_a_search() {
        for mut values in shapes().into_iter().take(4) {
            values.sort_unstable_by(f64::total_cmp);
            let lookup = SlotLookup::<f64>::new(&edges::choose(&values, Spacing::Continuous));
            assert!(!matches!(lookup.cells, CellMapping::Search(_)), "{values:?}");
        }
    }

    #[test]
    fn a_heavy_decimal_keeps_its_bin_in_single_precision() {
        let mut values = vec![0.1; 500];
        values.extend((0..500).map(|i| 0.2 + f64::from(i) * 1e-3));
        let edges = edges::choose(&values, Spacing::Continuous);
        let lookup = SlotLookup::<f32>::new(&edges);
        assert_eq!(lookup.slot(0.1f32), edges::slot(&edges, 0.1));
        assert_ne!(lookup.slot(0.1f32.next_down()), lookup.slot(0.1f32));
        assert_ne!(lookup.slot(0.1f32.next_up()), lookup.slot(0.1f32));
    }
}
