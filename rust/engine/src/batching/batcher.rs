//! The batches of a version as a whole: how large they are, how long they wait, which slabs they use, what their runs cost.
//!
//! Not here: one batch (`batch`), how long waiting pays (`wait_policy`). Next: `open_batches`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use headgate_core::error::{Code, Error, Result};
use headgate_core::limits::LimitsSpec;
use headgate_core::spec::RunSpec;
use headgate_core::tensor::{DataType, Shape, Signature};
use headgate_runtime::Binding;

use super::cost_curve::{ArrivalGaps, CostCurve, RunCost};
use super::row_slots::WaitingRows;
use super::wait_policy::{self, Expectation};
use crate::time::Instant;
use crate::time::nanos;

/// The most free slabs that a version keeps for its next batches.
const MAX_FREE_SLABS: usize = 4;
/// The most bytes that the inputs of a batch take, unless a single request takes more. Fewer large rows are run together.
const MAX_SLAB_BYTES: usize = 64 << 20;
/// A free slab that is larger than this with its outputs, in bytes, is not kept.
const MAX_FREE_SLAB_BYTES: usize = 96 << 20;
/// The most bytes of a version's slabs that are in use at a time. Each class may have one slab whatever its size.
const MAX_BYTES_IN_USE: usize = 256 << 20;
/// The number of classes.
const MAX_CLASSES: usize = LimitsSpec::MAX_CLASSES;
/// The batches of a version.
pub struct Batcher {
    max_batch: usize,
    max_delay: Duration,
    buckets: Vec<usize>,
    /// Whether nothing is batched, because it is not known that rows may be run together.
    off: AtomicBool,
    free: ArrayQueue<Binding>,
    /// Bytes of slabs in use, and the number of slabs by class.
    bytes: AtomicUsize,
    slabs: [AtomicUsize; MAX_CLASSES],
    stats: Mutex<BatcherStats>,
    epoch: Instant,
}

#[derive(Default)]
struct BatcherStats {
    curve: CostCurve,
    gaps: ArrivalGaps,
    sizes: BTreeMap<usize, BatchSizeStats>,
    /// Rows and batches since the last summary.
    since_summary: (u64, u64),
}

/// The batches of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSizeStats {
    /// How many there were.
    pub count: u64,
    /// How long their runs took together, in nanoseconds.
    pub run_ns: u64,
}

/// A version's newest batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchSummary {
    /// The cost of a run, if it is known.
    pub cost: Option<RunCost>,
    /// Their mean number of rows; `None` if there were none.
    pub rows: Option<f64>,
}

impl Batcher {
    /// The batches of a model with that signature, as `run` configures them.
    ///
    /// # Errors
    /// `model_load_failed` if the signature cannot be batched: it has strings, or a first dimension that is fixed.
    pub fn new(run: &RunSpec, signature: &Signature) -> Result<Batcher> {
        let tensors = signature.inputs.iter().map(|spec| ("input", spec));
        for (kind, spec) in tensors.chain(signature.outputs.iter().map(|spec| ("output", spec))) {
            let reason = if spec.datatype == DataType::Bytes {
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
                format!("{kind} {:?} {reason}, so its rows cannot be batched; remove max_batch", spec.name),
            ));
        }
        Ok(Batcher {
            max_batch: run.max_batch as usize,
            max_delay: Duration::from_micros(run.max_delay_us),
            buckets: run.buckets.iter().map(|&rows| rows as usize).collect(),
            off: AtomicBool::new(false),
            free: ArrayQueue::new(MAX_FREE_SLABS),
            bytes: AtomicUsize::new(0),
            slabs: Default::default(),
            stats: Mutex::default(),
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

    /// Whether a request with inputs of these shapes may join a batch. It must have rows, the same number of them in each input, and no
    /// more than fit. Any other request runs alone.
    pub fn accepts(&self, shapes: &[Shape]) -> bool {
        let rows = shapes.first().map_or(1, Shape::rows);
        (1..=self.max_batch).contains(&rows) && shapes.iter().all(|shape| shape.rows() == rows)
    }

    /// The numbers of rows that batches are padded to, in ascending order.
    pub(crate) fn buckets(&self) -> &[usize] {
        &self.buckets
    }

    /// The fitted cost of a run, once runs of several sizes are known.
    pub fn cost(&self) -> Option<RunCost> {
        self.lock_stats().curve.cost()
    }

    /// The batches so far, by their number of rows.
    pub fn size_stats(&self) -> BTreeMap<usize, BatchSizeStats> {
        self.lock_stats().sizes.clone()
    }

    /// Records the arrival of a request with `rows` rows.
    pub(crate) fn record_arrival(&self, rows: usize, now: Instant) {
        self.lock_stats().gaps.record(rows, nanos(now - self.epoch));
    }

    /// Records that a run of `rows` rows took `ns` nanoseconds.
    pub(crate) fn record_cost(&self, rows: usize, ns: u64) {
        self.lock_stats().curve.record(rows, ns as f64);
    }

    /// Records that a batch of `rows` rows, padded to `padded`, took `ns` nanoseconds.
    pub(crate) fn record_run(&self, rows: usize, padded: usize, ns: u64) {
        let mut stats = self.lock_stats();
        stats.curve.record(padded, ns as f64);
        let sizes = stats.sizes.entry(rows).or_default();
        sizes.count += 1;
        sizes.run_ns += ns;
        let (fresh_rows, batches) = stats.since_summary;
        stats.since_summary = (fresh_rows + rows as u64, batches + 1);
    }

    /// The cost of a run, and the mean rows of the batches since the last summary.
    pub(crate) fn take_summary(&self) -> BatchSummary {
        let mut stats = self.lock_stats();
        let (rows, batches) = std::mem::take(&mut stats.since_summary);
        let rows = (batches > 0).then(|| rows as f64 / batches as f64);
        BatchSummary { cost: stats.curve.cost(), rows }
    }

    fn lock_stats(&self) -> std::sync::MutexGuard<'_, BatcherStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a batch waits for more rows; `None` if it does not.
    pub(crate) fn wait_until(&self, waiting: WaitingRows, now: Instant) -> Option<Instant> {
        wait_policy::wait_until(waiting, self.max_delay, now, || {
            let stats = self.lock_stats();
            Some(Expectation { cost: stats.curve.cost()?, gap_ns: stats.gaps.mean_ns()? })
        })
    }

    /// The rows that a slab has room for if each takes `row_bytes`.
    pub(crate) fn rows_per_slab(&self, row_bytes: usize) -> usize {
        MAX_SLAB_BYTES.checked_div(row_bytes).unwrap_or(usize::MAX).clamp(1, self.max_batch)
    }

    /// The number of rows that a batch of `rows` rows is padded to.
    pub(crate) fn padded_rows(&self, rows: usize) -> usize {
        wait_policy::padded_rows(&self.buckets, rows)
    }

    /// Takes a slab for a batch of that class: a free one, or else what `create` makes. Its `bytes` count until [`Batcher::return_slab`].
    ///
    /// # Errors
    /// `overloaded` if the batches in use hold as much as they may.
    pub(crate) fn take_slab(
        &self,
        bytes: usize,
        class: u8,
        create: impl FnOnce() -> Binding,
    ) -> Result<Binding> {
        self.reserve_slab(bytes, class)?;
        Ok(self.free.pop().unwrap_or_else(create))
    }

    /// Takes back a slab that was counted as `bytes` of that class.
    pub(crate) fn return_slab(&self, mut slab: Binding, bytes: usize, class: u8) {
        self.release_slab(bytes, class);
        slab.forget();
        if slab.capacity() <= MAX_FREE_SLAB_BYTES {
            // If the list is full, enough slabs are kept.
            drop(self.free.push(slab));
        }
    }

    /// Gives the free slabs back to the allocator.
    pub(crate) fn free_slabs(&self) {
        while self.free.pop().is_some() {}
    }

    fn reserve_slab(&self, bytes: usize, class: u8) -> Result<()> {
        // Each class leaves half of what it may use to the classes above it.
        let limit = MAX_BYTES_IN_USE >> class;
        let slabs = self.slab_count(class).fetch_add(1, Relaxed);
        let used = self.bytes.fetch_add(bytes, Relaxed);
        if slabs == 0 || used + bytes <= limit {
            return Ok(());
        }
        self.release_slab(bytes, class);
        Err(Error::new(
            Code::Overloaded,
            format!("batches that wait hold {used} bytes of at most {limit}; try again later"),
        ))
    }

    /// Counts a slab of that class no more.
    pub(super) fn release_slab(&self, bytes: usize, class: u8) {
        self.slab_count(class).fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    fn slab_count(&self, class: u8) -> &AtomicUsize {
        &self.slabs[usize::from(class).min(MAX_CLASSES - 1)]
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

    /// Rows come every 20 us. A run costs 100 us and 10 us for each row.
    fn experienced(max_delay_us: u64) -> Batcher {
        let batcher = Batcher { max_delay: Duration::from_micros(max_delay_us), ..batcher(32) };
        for rows in [1, 8, 1, 8] {
            batcher.record_cost(rows, 100_000 + 10_000 * rows as u64);
        }
        (0..50).for_each(|at| batcher.record_arrival(1, batcher.epoch + Duration::from_micros(20 * at)));
        batcher
    }

    #[test]
    fn a_batch_waits_for_what_pays_and_never_beyond_its_delay_or_its_deadlines() {
        let now = Instant::now();
        let later = |us| now + Duration::from_micros(us);
        let waiting = |rows, earliest_deadline| WaitingRows {
            rows,
            full: false,
            oldest_queued_at: now,
            earliest_deadline,
            latest_deadline: earliest_deadline,
        };
        let until = |batcher: &Batcher, of: WaitingRows| batcher.wait_until(of, now).map(|until| until - now);
        let (batcher, far) = (experienced(1_000), later(1_000_000));
        // It waits for two gaps from now on.
        assert_eq!(until(&batcher, waiting(2, far)), Some(Duration::from_micros(40)));
        // Six rows that wait for 20 us each cost more than a run.
        assert_eq!(until(&batcher, waiting(6, far)), None);
        assert_eq!(until(&batcher, WaitingRows { full: true, ..waiting(2, far) }), None);
        let short = experienced(5);
        assert_eq!(until(&short, waiting(2, far)), Some(Duration::from_micros(5)));
        // A run of three rows takes 130 us.
        assert_eq!(until(&batcher, waiting(2, later(140))), Some(Duration::from_micros(10)));
        assert_eq!(until(&experienced(0), waiting(2, far)), None);
        assert_eq!(self::batcher(32).wait_until(waiting(1, far), now), None, "nothing is known yet");
    }

    #[test]
    fn of_large_rows_fewer_share_a_slab() {
        let batcher = batcher(32);
        for (row, rows) in [
            (0, 32),
            (256, 32),
            (MAX_SLAB_BYTES / 32, 32),
            (MAX_SLAB_BYTES / 31, 31),
            (MAX_SLAB_BYTES, 1),
            (3 * MAX_SLAB_BYTES, 1),
        ] {
            assert_eq!(batcher.rows_per_slab(row), rows, "{row}");
        }
    }

    #[test]
    fn a_class_leaves_half_to_those_above_it_and_each_may_have_one() {
        let batcher = batcher(32);
        let refused = |bytes, class| batcher.reserve_slab(bytes, class).is_err();
        assert!(!refused(MAX_SLAB_BYTES, 1));
        assert!(!refused(MAX_SLAB_BYTES, 1));
        assert!(refused(MAX_SLAB_BYTES, 1), "half of it is full");
        assert!(!refused(MAX_SLAB_BYTES, 0) && !refused(MAX_SLAB_BYTES, 0));
        assert!(refused(MAX_SLAB_BYTES, 0), "all of it is full");
        assert!(!refused(MAX_SLAB_BYTES, 7), "the first of a class");
        assert!(refused(1, 7));
    }
}
