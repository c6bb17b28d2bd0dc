//! Sketching a request after its response: which rows, into which writer, and what it may cost.
//!
//! An IO thread has its own writers and its own budget: [`BUDGET`] of the time that passes. The rate that fits it, and each
//! version's floor, say what share of rows is sketched; rows are then chosen by the request's hash, the same for inputs and
//! outputs. No request takes more than [`REQUEST_VALUES`], whatever its size, so that it holds no other up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use headgate_core::tensor::DataType;
use headgate_engine::Instant;
use headgate_engine::RunResult;
use headgate_engine::runtime::{StringTensor, TensorView};
use headgate_sketch::rate_control::{RateController, RateFloor};
use headgate_sketch::sampler::RowSample;
use headgate_sketch::shard::{Recorder, ShardWriter, SketchedRows, TensorRows};
use headgate_sketch::typed_slice::TypedSlice;

use crate::metrics::Shard;
use crate::output_bins::elements;
use crate::serving::sketch_registry::VersionSketch;
use crate::thread::io::Io;

/// The share of time that sketching may take.
const BUDGET: f64 = 0.01;
/// The most values of one request that are sketched, over all its tensors: about a millisecond.
const REQUEST_VALUES: usize = 1 << 17;
/// What each tensor may have at least, if there are very many.
const TENSOR_VALUES: usize = 256;
/// What a request costs beside its values, in values.
const REQUEST_COST: u64 = 16;
/// Seconds that a floor is counted for.
const MINUTE: u64 = 60;

/// A run whose rows may be sketched.
pub struct SampledRun<'a> {
    /// The run with its tensors.
    pub run: &'a RunResult,
    /// What chooses the rows, the same for inputs and outputs.
    pub request_hash: u64,
    /// About the present time.
    pub at: Instant,
}

/// Spreads the ids of sketches, which we count up ourselves: a hash against chosen keys costs more than what it finds.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(self.0 ^ u64::from(byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // Fibonacci hashing (Knuth, "The Art of Computer Programming", 6.4): the table uses both ends of a hash.
        let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ spread >> 32;
    }
}

/// One IO thread's writers and budget.
pub struct Sketcher {
    writers: HashMap<u64, (ShardWriter, RateFloor), BuildHasherDefault<IdHasher>>,
    controller: RateController,
    begun: Instant,
    /// When the controller was updated last, in nanoseconds since `begun`; and what was spent afterwards.
    observed_ns: u64,
    spent_ns: f64,
}

impl Default for Sketcher {
    fn default() -> Self {
        Self {
            writers: HashMap::default(),
            controller: RateController::new(BUDGET),
            begun: Instant::now(),
            observed_ns: 0,
            spent_ns: 0.0,
        }
    }
}

impl Sketcher {
    /// Sketches the inputs and outputs of a request, after its response.
    pub fn record(&mut self, io: &Io, sketch: &VersionSketch, sampled: &SampledRun<'_>, shard: &Shard) {
        let now_ns = self.ns_at(sampled.at);
        let passed_ns = now_ns.saturating_sub(self.observed_ns);
        if passed_ns >= RateController::PERIOD_NS {
            self.controller.observe(self.spent_ns, passed_ns);
            (self.observed_ns, self.spent_ns) = (now_ns, 0.0);
        }
        let rows = sampled.run.rows() as u64;
        shard.rows_seen.add(rows);
        let taken = self.rows(io, sketch, sampled, now_ns / 1_000_000_000 / MINUTE);
        match taken {
            Some(taken) => shard.rows_sampled.add(taken.rows),
            None => shard.rows_dropped.add(rows),
        }
        let values = taken.unwrap_or_default().values;
        self.spent_ns += (values + REQUEST_COST) as f64 * sketch.value_ns;
    }

    fn ns_at(&self, at: Instant) -> u64 {
        at.nanos_since(self.begun)
    }

    /// Lets go of writers whose version is not among `live`.
    pub fn retain(&mut self, live: impl Fn(u64) -> bool) {
        self.writers.retain(|&id, _| live(id));
    }

    /// Sketches the rows that are chosen, which may be none. `None` if there is no writer for them.
    fn rows(
        &mut self,
        io: &Io,
        sketch: &VersionSketch,
        sampled: &SampledRun<'_>,
        minute: u64,
    ) -> Option<SketchedRows> {
        let SampledRun { run: ran, request_hash: hash, .. } = *sampled;
        let rows = ran.rows();
        let (writer, floor) = match self.writers.entry(sketch.id) {
            Entry::Occupied(entry) => entry.into_mut(),
            // A request may be older than the snapshot. A writer that it opened for a version that is gone would stay.
            Entry::Vacant(_) if !io.is_sketched(sketch.id) => return None,
            // Memory may be free again at the next request.
            Entry::Vacant(entry) => {
                let writer = sketch.opener.open()?;
                entry.insert((writer, RateFloor::new(sketch.opener.plan().row_values())))
            }
        };
        let floor = floor.rate(minute, rows as u64);
        let pick = RowSample::of_request(hash, self.controller.rate().min(floor), rows);
        Some(writer.record(|recorder| {
            recorder.offer(rows, &pick);
            if pick.is_none() { SketchedRows::default() } else { tensors(recorder, ran, &pick) }
        }))
    }
}

/// Inputs first, then outputs: the order of the plan. Gives the most rows taken of one tensor, and the values of all.
fn tensors(recorder: &mut Recorder<'_>, ran: &RunResult, pick: &RowSample) -> SketchedRows {
    let signature = ran.model().signature();
    let count = signature.inputs.len() + signature.outputs.len();
    let cap = (REQUEST_VALUES / count.max(1)).max(TENSOR_VALUES);
    let sides =
        [TensorSide::Input, TensorSide::Output].into_iter().zip([&signature.inputs, &signature.outputs]);
    let specs = sides.flat_map(|(side, specs)| specs.iter().enumerate().map(move |spec| (side, spec)));
    let mut all = SketchedRows::default();
    for (place, (side, (index, spec))) in specs.enumerate() {
        // A tensor that cannot be read was not part of the response either; there is nothing to count.
        let taken = if spec.datatype == DataType::Bytes {
            side.strings(ran, index).map(|strings| {
                let rows = strings.shape.rows();
                let lengths = StringLengths(strings);
                let view = TypedSlice::Strings(&lengths);
                recorder.tensor_capped(place, TensorRows { view, rows }, cap, pick)
            })
        } else {
            side.view(ran, index).and_then(|view| {
                let data = TensorRows { view: elements(&view)?, rows: view.shape.rows() };
                Some(recorder.tensor_capped(place, data, cap, pick))
            })
        };
        let taken = taken.unwrap_or_default();
        all = SketchedRows { rows: all.rows.max(taken.rows), values: all.values + taken.values };
    }
    all
}

#[derive(Clone, Copy)]
enum TensorSide {
    Input,
    Output,
}

impl TensorSide {
    fn view(self, ran: &RunResult, index: usize) -> Option<TensorView<'_>> {
        match self {
            Self::Input => ran.input(index).ok(),
            Self::Output => ran.output(index).ok(),
        }
    }

    fn strings(self, ran: &RunResult, index: usize) -> Option<StringTensor<'_>> {
        match self {
            Self::Input => ran.input_strings(index),
            Self::Output => ran.output_strings(index),
        }
    }
}

/// Strings as the sketches see them.
#[derive(Debug)]
struct StringLengths<'a>(StringTensor<'a>);

impl headgate_sketch::typed_slice::StringLengths for StringLengths<'_> {
    fn count(&self) -> usize {
        self.0.shape.count()
    }

    fn length(&self, element: usize) -> usize {
        self.0.length(element)
    }
}
