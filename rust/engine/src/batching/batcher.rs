//! A version's batches: how large they may be, how long they wait, which slabs they use, what their runs have cost.
//!
//! Not here: one batch (`batch`), what waiting is worth (`curve`). Next: `batch`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use headgate_core::error::{Code, Error, Result};
use headgate_core::limits::LimitsSpec;
use headgate_core::spec::RunSpec;
use headgate_core::tensor::{DataType, Shape, Signature};
use headgate_runtime::Binding;

use super::cost_curve::{Cost, Curve, Gaps, worth_waiting_ns};
use super::row_slots::Waiting;
use crate::time::nanos;

/// Slabs of a version that are kept for the next batches.
const KEPT_SLABS: usize = 4;
/// The inputs of a batch take this at most, in bytes, unless a single request takes more: of large rows fewer are run together.
const SLAB: usize = 64 << 20;
/// A slab with its outputs beyond this is freed instead of kept, in bytes.
const KEEP_AT_MOST: usize = 96 << 20;
/// Bytes of a version's slabs that may be in use at a time; each class may have one whatever its size.
const SLAB_BYTES: usize = 256 << 20;
/// Classes that there may be.
const CLASSES: usize = LimitsSpec::MAX_CLASSES;
/// A version's batches.
pub struct Batcher {
    max_batch: usize,
    max_delay: Duration,
    buckets: Vec<usize>,
    /// Whether nothing is batched because nobody knows whether it may be.
    off: AtomicBool,
    free: ArrayQueue<Binding>,
    /// Bytes of slabs in use, and their number by class.
    bytes: AtomicUsize,
    slabs: [AtomicUsize; CLASSES],
    learned: Mutex<Learned>,
    epoch: Instant,
}

#[derive(Default)]
struct Learned {
    curve: Curve,
    gaps: Gaps,
    sizes: BTreeMap<usize, Sizes>,
    /// Rows and batches since somebody asked.
    fresh: (u64, u64),
}

/// Batches of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// How many there were.
    pub count: u64,
    /// How long their runs took, in nanoseconds.
    pub run_ns: u64,
}

/// The newest of a version's batches.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// What a run costs, as far as is known.
    pub cost: Option<Cost>,
    /// Their rows on average; `None` when there were none.
    pub rows: Option<f64>,
}

impl Batcher {
    /// Batches as `run` has them, for a model with that signature.
    ///
    /// # Errors
    /// `model_load_failed` for a signature that cannot be batched: a first dimension that is fixed, or strings.
    pub fn new(run: &RunSpec, signature: &Signature) -> Result<Batcher> {
        let tensors = signature.inputs.iter().map(|spec| ("input", spec));
        for (what, spec) in tensors.chain(signature.outputs.iter().map(|spec| ("output", spec))) {
            let why = if spec.datatype == DataType::Bytes {
                "has strings"
            } else if spec.any_rank {
                "may have any number of dimensions"
            } else if spec.shape.first() != Some(&-1) {
                "has no dynamic first dimension"
            } else {
                continue;
            };
            return Err(Error::new(
                Code::ModelLoadFailed,
                format!("{what} {:?} {why}, so its rows cannot be batched; remove max_batch", spec.name),
            ));
        }
        Ok(Batcher {
            max_batch: run.max_batch as usize,
            max_delay: Duration::from_micros(run.max_delay_us),
            buckets: run.buckets.iter().map(|&rows| rows as usize).collect(),
            off: AtomicBool::new(false),
            free: ArrayQueue::new(KEPT_SLABS),
            bytes: AtomicUsize::new(0),
            slabs: Default::default(),
            learned: Mutex::default(),
            epoch: Instant::now(),
        })
    }

    /// The most rows of a run.
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Has every request run alone from now on.
    pub(crate) fn switch_off(&self) {
        self.off.store(true, Relaxed);
    }

    /// Whether every request runs alone.
    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Relaxed)
    }

    /// Whether a request with inputs of these shapes may be part of a batch: it has rows, the same number in each input, and
    /// no more than fit. Any other request runs alone.
    pub fn takes(&self, shapes: &[Shape]) -> bool {
        let rows = shapes.first().map_or(1, Shape::rows);
        (1..=self.max_batch).contains(&rows) && shapes.iter().all(|shape| shape.rows() == rows)
    }

    /// The rows that batches are filled up to, fewest first.
    pub(crate) fn buckets(&self) -> &[usize] {
        &self.buckets
    }

    /// The fitted cost of a run, once runs of several sizes were seen.
    pub fn cost(&self) -> Option<Cost> {
        self.learned().curve.cost()
    }

    /// Batches so far, by their number of rows.
    pub fn sizes(&self) -> BTreeMap<usize, Sizes> {
        self.learned().sizes.clone()
    }

    /// A request with so many rows came.
    pub(crate) fn came(&self, rows: usize, now: Instant) {
        self.learned().gaps.came(rows, nanos(now - self.epoch));
    }

    /// A run of `rows` rows took `ns` nanoseconds.
    pub(crate) fn observe(&self, rows: usize, ns: u64) {
        self.learned().curve.observe(rows, ns as f64);
    }

    /// A batch of `rows` rows, filled up to `padded`, took `ns` nanoseconds.
    pub(crate) fn ran(&self, rows: usize, padded: usize, ns: u64) {
        let mut learned = self.learned();
        learned.curve.observe(padded, ns as f64);
        let sizes = learned.sizes.entry(rows).or_default();
        sizes.count += 1;
        sizes.run_ns += ns;
        let (fresh_rows, batches) = learned.fresh;
        learned.fresh = (fresh_rows + rows as u64, batches + 1);
    }

    /// The cost of a run and the mean rows of the batches since this was asked last.
    pub(crate) fn newest(&self) -> Batches {
        let mut learned = self.learned();
        let (rows, batches) = std::mem::take(&mut learned.fresh);
        let rows = (batches > 0).then(|| rows as f64 / batches as f64);
        Batches { cost: learned.curve.cost(), rows }
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a batch waits for more rows.
    pub(crate) fn patience(&self, waiting: Waiting) -> Option<Instant> {
        if self.max_delay.is_zero() || waiting.full {
            return None;
        }
        let (cost, gap_ns) = {
            let learned = self.learned();
            (learned.curve.cost()?, learned.gaps.mean_ns()?)
        };
        let worth = Duration::from_nanos(worth_waiting_ns(cost, gap_ns, waiting.rows)?);
        let run = Duration::from_nanos(cost.of(waiting.rows + 1) as u64);
        let newest = Instant::now().checked_add(worth)?;
        Some(newest.min(waiting.oldest + self.max_delay).min(waiting.tightest.checked_sub(run)?))
    }

    /// The rows that a slab has room for when each takes `row_bytes`.
    pub(crate) fn slab_rows(&self, row_bytes: usize) -> usize {
        SLAB.checked_div(row_bytes).unwrap_or(usize::MAX).clamp(1, self.max_batch)
    }

    /// The rows that a batch of `rows` is run with.
    pub(crate) fn padded(&self, rows: usize) -> usize {
        self.buckets.iter().copied().find(|&bucket| bucket >= rows).unwrap_or(rows)
    }

    /// A slab of `bytes` for a batch of that class, which are counted until [`Batcher::give_slab`]: a kept one, else what `made` makes.
    ///
    /// # Errors
    /// `overloaded` when batches hold as much as they may.
    pub(crate) fn take_slab(
        &self,
        bytes: usize,
        class: u8,
        made: impl FnOnce() -> Binding,
    ) -> Result<Binding> {
        self.count_slab(bytes, class)?;
        Ok(self.free.pop().unwrap_or_else(made))
    }

    /// Takes a slab back that was counted as `bytes` of that class.
    pub(crate) fn give_slab(&self, mut slab: Binding, bytes: usize, class: u8) {
        self.forget_slab(bytes, class);
        slab.forget();
        if slab.capacity() <= KEEP_AT_MOST {
            // A full list means that enough are kept.
            drop(self.free.push(slab));
        }
    }

    /// Gives kept slabs back to the allocator.
    pub(crate) fn free_slabs(&self) {
        while self.free.pop().is_some() {}
    }

    fn count_slab(&self, bytes: usize, class: u8) -> Result<()> {
        // Each class leaves half of what it may fill to those above it.
        let most = SLAB_BYTES >> class;
        let slabs = self.slabs_of(class).fetch_add(1, Relaxed);
        let used = self.bytes.fetch_add(bytes, Relaxed);
        if slabs == 0 || used + bytes <= most {
            return Ok(());
        }
        self.forget_slab(bytes, class);
        Err(Error::new(
            Code::Overloaded,
            format!("batches that wait hold {used} bytes of at most {most}; try again later"),
        ))
    }

    fn forget_slab(&self, bytes: usize, class: u8) {
        self.slabs_of(class).fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    fn slabs_of(&self, class: u8) -> &AtomicUsize {
        &self.slabs[usize::from(class).min(CLASSES - 1)]
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use headgate_core::tensor::TensorSpec;

    use super::*;

    fn batcher(max_batch: u32) -> Batcher {
        let tensor = TensorSpec {
            name: "x".into(),
            datatype: DataType::Fp32,
            shape: vec![-1],
            symbols: Vec::new(),
            any_rank: false,
            labels: Vec::new(),
        };
        let signature =
            Signature { inputs: vec![tensor.clone()], outputs: vec![tensor], ..Signature::default() };
        Batcher::new(&RunSpec { max_batch, ..RunSpec::default() }, &signature).unwrap()
    }

    /// Rows come every 20 us, and a run costs 100 us and 10 us for each row.
    fn experienced(max_delay_us: u64) -> Batcher {
        let batcher = Batcher { max_delay: Duration::from_micros(max_delay_us), ..batcher(32) };
        for rows in [1, 8, 1, 8] {
            batcher.observe(rows, 100_000 + 10_000 * rows as u64);
        }
        (0..50).for_each(|at| batcher.came(1, batcher.epoch + Duration::from_micros(20 * at)));
        batcher
    }

    #[test]
    fn a_batch_waits_for_what_pays_and_never_beyond_its_delay_or_its_deadlines() {
        let now = Instant::now();
        let later = |us| now + Duration::from_micros(us);
        let waiting = |rows, tightest| Waiting { rows, full: false, oldest: now, tightest, latest: tightest };
        let until = |batcher: &Batcher, of: Waiting| batcher.patience(of).map(|until| until - now);
        let (batcher, far) = (experienced(1_000), later(1_000_000));
        // Twice the gap from now on, which has gone on a little.
        let wait = until(&batcher, waiting(2, far)).unwrap();
        assert!(wait >= Duration::from_micros(40) && wait < Duration::from_millis(500), "{wait:?}");
        // Six rows that wait for 20 us each cost more than a run does.
        assert_eq!(until(&batcher, waiting(6, far)), None);
        assert_eq!(until(&batcher, Waiting { full: true, ..waiting(2, far) }), None);
        let short = experienced(5);
        assert_eq!(until(&short, waiting(2, far)), Some(Duration::from_micros(5)));
        // A run of three rows takes 130 us.
        assert_eq!(until(&batcher, waiting(2, later(140))), Some(Duration::from_micros(10)));
        assert_eq!(until(&experienced(0), waiting(2, far)), None);
        assert_eq!(self::batcher(32).patience(waiting(1, far)), None, "nothing is known yet");
    }

    #[test]
    fn of_large_rows_fewer_share_a_slab() {
        let batcher = batcher(32);
        for (row, rows) in [(0, 32), (256, 32), (SLAB / 32, 32), (SLAB / 31, 31), (SLAB, 1), (3 * SLAB, 1)] {
            assert_eq!(batcher.slab_rows(row), rows, "{row}");
        }
    }

    #[test]
    fn a_class_leaves_half_to_those_above_it_and_each_may_have_one() {
        let batcher = batcher(32);
        let refused = |bytes, class| batcher.count_slab(bytes, class).is_err();
        assert!(!refused(SLAB, 1));
        assert!(!refused(SLAB, 1));
        assert!(refused(SLAB, 1), "half of it is full");
        assert!(!refused(SLAB, 0) && !refused(SLAB, 0));
        assert!(refused(SLAB, 0), "all of it is full");
        assert!(!refused(SLAB, 7), "the first of a class");
        assert!(refused(1, 7));
    }
}
