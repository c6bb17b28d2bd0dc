//! Sketching a request after its answer: which rows, into which writer, and what it may cost.
//!
//! An IO thread has its own writers and its own meter. The meter compares the time spent here with the thread's CPU time and
//! halves the share of rows until sketching costs at most [`BUDGET`] of it; rows are then chosen by the request's hash, the
//! same for inputs and outputs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use headgate_core::tensor::DataType;
use headgate_engine::Ran;
use headgate_engine::runtime::View;
use headgate_engine::runtime::tensor::Data;
use headgate_sketch::sampler::{Controller, Pick};
use headgate_sketch::shard::{Recorder, Writer};
use headgate_sketch::view::TensorView;

use crate::clock::thread_cpu_ns;
use crate::drift::VersionSketch;
use crate::metrics::Shard;

/// The share of request CPU time that sketching may take.
const BUDGET: f64 = 0.01;
/// One request in this many is timed: two looks at the clock cost as much as ten values.
const TIMED: u32 = 16;
/// Requests between two readings of the thread's CPU time, which is a system call.
const READING: u32 = 512;

/// One IO thread's writers and meter.
pub struct Sketcher {
    writers: HashMap<u64, Writer>,
    controller: Controller,
    requests: u32,
    spent_ns: u64,
    pooled_ns: u64,
    cpu_ns: u64,
    lengths: Vec<u32>,
}

impl Default for Sketcher {
    fn default() -> Self {
        Self {
            writers: HashMap::new(),
            controller: Controller::new(BUDGET),
            requests: 0,
            spent_ns: 0,
            pooled_ns: 0,
            cpu_ns: 0,
            lengths: Vec::new(),
        }
    }
}

impl Sketcher {
    /// Sketches a request's inputs and outputs. `pooled_ns` is the CPU time that it took on another thread.
    pub fn record(&mut self, sketch: &VersionSketch, hash: u64, ran: &Ran, pooled_ns: u64, shard: &Shard) {
        let timed = self.requests.is_multiple_of(TIMED).then(Instant::now);
        self.rows(sketch, hash, ran, shard);
        self.pooled_ns += pooled_ns;
        self.requests += 1;
        if let Some(begun) = timed {
            self.spent_ns += begun.elapsed().as_nanos() as u64 * u64::from(TIMED);
        }
        if self.requests >= READING {
            self.read_meter();
        }
    }

    /// Lets go of writers whose version is not among `live`.
    pub fn retain(&mut self, live: impl Fn(u64) -> bool) {
        self.writers.retain(|&id, _| live(id));
    }

    fn read_meter(&mut self) {
        let cpu_ns = thread_cpu_ns();
        let request_ns = cpu_ns.saturating_sub(self.cpu_ns) + self.pooled_ns;
        if self.cpu_ns > 0 {
            self.controller.observe(self.spent_ns, request_ns);
        }
        self.cpu_ns = cpu_ns;
        (self.requests, self.spent_ns, self.pooled_ns) = (0, 0, 0);
    }

    fn rows(&mut self, sketch: &VersionSketch, hash: u64, ran: &Ran, shard: &Shard) {
        let rows = ran.rows();
        let pick = Pick::new(hash, self.controller.rate());
        shard.rows_seen.add(rows as u64);
        let writer = match self.writers.entry(sketch.id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match sketch.opener.open() {
                Some(writer) => entry.insert(writer),
                // Memory may be free again at the next request.
                None => return shard.rows_dropped.add(rows as u64),
            },
        };
        let kept = pick.kept(rows);
        shard.rows_sampled.add(kept);
        let lengths = &mut self.lengths;
        writer.record(|recorder| {
            recorder.offer(rows, &pick);
            if kept > 0 {
                tensors(recorder, ran, &pick, lengths);
            }
        });
    }
}

/// Inputs first, then outputs: the order of the plan.
fn tensors(recorder: &mut Recorder<'_>, ran: &Ran, pick: &Pick, lengths: &mut Vec<u32>) {
    let signature = ran.model().signature();
    let inputs = (0..signature.inputs.len()).map(|index| ran.input(index));
    let outputs = (0..signature.outputs.len()).map(|index| ran.output(index));
    for (place, view) in inputs.chain(outputs).enumerate() {
        // A tensor that cannot be read was not part of the answer either; there is nothing to count.
        let Ok(view) = view else { continue };
        let rows = view.shape.rows();
        if let Some(elements) = elements(&view, lengths) {
            recorder.tensor(place, elements, rows, pick);
        }
    }
}

fn elements<'a>(view: &View<'a>, lengths: &'a mut Vec<u32>) -> Option<TensorView<'a>> {
    match view.datatype {
        DataType::Bool | DataType::Uint8 => view.elements().map(TensorView::U8),
        DataType::Uint16 => view.elements().map(TensorView::U16),
        DataType::Uint32 => view.elements().map(TensorView::U32),
        DataType::Uint64 => view.elements().map(TensorView::U64),
        DataType::Int8 => view.elements().map(TensorView::I8),
        DataType::Int16 => view.elements().map(TensorView::I16),
        DataType::Int32 => view.elements().map(TensorView::I32),
        DataType::Int64 => view.elements().map(TensorView::I64),
        DataType::Fp16 => view.elements().map(TensorView::F16),
        DataType::Bf16 => view.elements().map(TensorView::Bf16),
        DataType::Fp32 => view.elements().map(TensorView::F32),
        DataType::Fp64 => view.elements().map(TensorView::F64),
        DataType::Bytes => {
            let Data::Strings { bytes, offsets } = &view.data else { return None };
            lengths.clear();
            let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
            lengths.extend(
                offsets.iter().zip(ends).map(|(start, end)| u32::try_from(end - start).unwrap_or(u32::MAX)),
            );
            Some(TensorView::Lengths(lengths))
        }
    }
}
