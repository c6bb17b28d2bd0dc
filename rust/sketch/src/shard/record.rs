//! The update path: counts the rows of typed tensors in one buffer.
//!
//! A value costs two table look-ups (its slot on the baseline's edges, its exponential bucket), a few comparisons, and a few plain
//! loads and stores. Nothing here waits or fails, and nothing allocates unless a table of buckets grows. Next: `live`.

use super::buffer::{CounterBuffer, header};
use super::counter::{CounterPair, add_f64, increment, load_f64, store_f64};
use super::shared::Shard;
use crate::budget::BudgetShare;
use crate::exponential;
use crate::lookup::Lane;
use crate::plan::{FeatureLayout, FeatureLayouts, HEADER_CELLS, MAX_ELEMENTS, RowFeatures, TensorPlan};
use crate::sampler::RowSample;
use crate::typed_slice::{StringLengths, TypedSlice, bf16_to_single, fp16_to_single};

/// Features that are counted for all rows before the next features: their tables and counters, 2 KiB each, stay in the L1 cache.
const BLOCK: usize = 16;

/// The writer's access to a shard during one [`super::ShardWriter::record`].
#[derive(Debug)]
pub struct Recorder<'a> {
    shard: &'a Shard,
    buffer: &'a CounterBuffer,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(shard: &'a Shard, buffer: &'a CounterBuffer) -> Self {
        Self { shard, buffer }
    }

    /// Counts the rows of a request: all as offered, those in `sample` as observed. Call it once per request.
    pub fn offer(&mut self, rows: usize, sample: &RowSample) {
        increment(&self.buffer.offered, rows as u64);
        increment(&self.buffer.observed, sample.count(rows));
    }

    /// Counts rows without this tensor. All rows count, each once.
    pub fn missing(&mut self, tensor: usize, rows: usize) {
        increment(&self.buffer.tensors[tensor].missing, rows as u64);
    }

    /// Counts the rows of one tensor that are in `sample`, with the weight of the sample. `tensor` is its index in the list of the
    /// plan. A tensor of another type or size counts once, as such. Of a tensor with more than `cap` values fewer rows are counted,
    /// with a higher weight.
    pub fn tensor_capped(
        &mut self,
        tensor: usize,
        data: TensorRows<'_>,
        cap: usize,
        sample: &RowSample,
    ) -> SketchedRows {
        let TensorRows { view, rows } = data;
        let plan = &self.shard.plan.tensors[tensor];
        let width = match plan.rows {
            RowFeatures::Elements(width) | RowFeatures::Lengths(width) => width,
            RowFeatures::Statistics => view.len().checked_div(rows).unwrap_or(0),
        };
        // Without a fixed number of elements per row, each element is a row.
        let pooled = matches!(plan.rows, RowFeatures::Lengths(_)) && plan.info.row_elements != Some(width);
        let fits = pooled || rows.checked_mul(width) == Some(view.len());
        if !view.is_of(plan.info.datatype) || !fits {
            increment(&self.buffer.tensors[tensor].wrong_type, 1);
            return SketchedRows::default();
        }
        if width == 0 {
            return SketchedRows::default();
        }
        let (rows, values) = (view.len() / width, plan.row_values(width));
        let sample = &sample.capped(rows, values, cap);
        let sketched = self.count_rows(tensor, rows, values, sample);
        if sketched.rows == 0 {
            return sketched;
        }
        let weight = sample.weight();
        let sink = RowSink {
            buffer: self.buffer,
            share: &self.shard.share,
            plan,
            width,
            sample,
            weight,
            weight_f64: weight as f64,
        };
        match view {
            TypedSlice::U8(data) => sink.record_singles(data, f32::from),
            TypedSlice::U16(data) => sink.record_singles(data, f32::from),
            TypedSlice::I8(data) => sink.record_singles(data, f32::from),
            TypedSlice::I16(data) => sink.record_singles(data, f32::from),
            TypedSlice::F16(data) => sink.record_singles(data, fp16_to_single),
            TypedSlice::Bf16(data) => sink.record_singles(data, bf16_to_single),
            TypedSlice::F32(data) => sink.record_singles(data, |value| value),
            TypedSlice::U32(data) => sink.record_doubles(data, f64::from),
            TypedSlice::I32(data) => sink.record_doubles(data, f64::from),
            TypedSlice::U64(data) => sink.record_doubles(data, |value| value as f64),
            TypedSlice::I64(data) => sink.record_doubles(data, |value| value as f64),
            TypedSlice::F64(data) => sink.record_doubles(data, |value| value),
            TypedSlice::Strings(strings) => sink.record_lengths(strings),
        }
        sketched
    }

    /// As [`Recorder::tensor_capped`] without a cap.
    pub fn tensor(
        &mut self,
        tensor: usize,
        view: TypedSlice<'_>,
        rows: usize,
        sample: &RowSample,
    ) -> SketchedRows {
        self.tensor_capped(tensor, TensorRows { view, rows }, usize::MAX, sample)
    }

    /// Counts the rows in `sample` and their weights.
    fn count_rows(&self, tensor: usize, rows: usize, values: usize, sample: &RowSample) -> SketchedRows {
        let (sampled, weight) = (sample.count(rows), sample.weight());
        let counters = &self.buffer.tensors[tensor];
        increment(&counters.rows, sampled);
        increment(&counters.weight, sampled * weight);
        add_f64(&counters.squares, (sampled * weight) as f64 * weight as f64);
        SketchedRows { rows: sampled, values: sampled * values as u64 }
    }
}

/// The rows of one tensor of a request.
#[derive(Clone, Copy, Debug)]
pub struct TensorRows<'a> {
    /// The elements: `rows` times the elements per row.
    pub view: TypedSlice<'a>,
    /// The number of rows.
    pub rows: usize,
}

/// The rows of a tensor that were sketched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SketchedRows {
    /// Rows that were sketched.
    pub rows: u64,
    /// The number of values, which is the cost.
    pub values: u64,
}

/// Counts the rows of one tensor.
struct RowSink<'a> {
    buffer: &'a CounterBuffer,
    share: &'a BudgetShare,
    plan: &'a TensorPlan,
    width: usize,
    sample: &'a RowSample,
    /// How often each row counts. `weight_f64` is the same number.
    weight: u64,
    weight_f64: f64,
}

impl RowSink<'_> {
    fn record_singles<T: Copy>(&self, data: &[T], lane: impl Fn(T) -> f32 + Copy) {
        match &self.plan.layouts {
            FeatureLayouts::Single(layouts) => self.record_elements(data, layouts, lane),
            FeatureLayouts::Double(layouts) => {
                self.record_statistics(data, layouts, |value| f64::from(lane(value)))
            }
        }
    }

    fn record_doubles<T: Copy>(&self, data: &[T], lane: impl Fn(T) -> f64 + Copy) {
        match &self.plan.layouts {
            FeatureLayouts::Double(layouts) if self.plan.rows == RowFeatures::Statistics => {
                self.record_statistics(data, layouts, lane)
            }
            FeatureLayouts::Double(layouts) => self.record_elements(data, layouts, lane),
            FeatureLayouts::Single(_) => debug_assert!(false, "a plan counts this type in f64"),
        }
    }

    fn record_elements<T: Copy, L: Lane>(
        &self,
        data: &[T],
        layouts: &[FeatureLayout<L>],
        lane: impl Fn(T) -> L,
    ) {
        for (block, layouts) in layouts.chunks(BLOCK).enumerate() {
            let first = block * BLOCK;
            for number in self.sample.rows(data.len() / self.width) {
                let row = &data[number * self.width..][..self.width];
                for (layout, &value) in layouts.iter().zip(&row[first..]) {
                    self.record_value(layout, lane(value));
                }
            }
        }
    }

    fn record_statistics<T: Copy>(
        &self,
        data: &[T],
        layouts: &[FeatureLayout<f64>],
        lane: impl Fn(T) -> f64 + Copy,
    ) {
        let stride = self.width.div_ceil(MAX_ELEMENTS);
        for number in self.sample.rows(data.len() / self.width) {
            let row = &data[number * self.width..][..self.width];
            let phase = (self.sample.mixed(number) % stride as u64) as usize;
            let values = row[phase..].iter().step_by(stride).map(|&value| lane(value));
            for (layout, value) in layouts.iter().zip(row_statistics(values)) {
                self.record_value(layout, value);
            }
        }
    }

    fn record_lengths(&self, strings: &dyn StringLengths) {
        let FeatureLayouts::Double(layouts) = &self.plan.layouts else { return };
        for number in self.sample.rows(strings.count() / self.width) {
            let first = number * self.width;
            for (pair, at) in layouts.chunks_exact(2).zip(first..first + self.width) {
                let length = strings.length(at);
                self.record_value(&pair[0], length as f64);
                self.record_value(&pair[1], f64::from(u8::from(length == 0)));
            }
        }
    }

    #[inline(always)]
    fn record_value<L: Lane>(&self, layout: &FeatureLayout<L>, value: L) {
        let cells = &self.buffer.cells[layout.cell..layout.cell + layout.cells];
        let (head, slots) =
            cells.split_first_chunk::<HEADER_CELLS>().expect("the cells of a feature begin with its header");
        let as_f64 = value.to_f64();
        if !value.is_finite() {
            count_non_finite(head, as_f64, self.weight);
            return;
        }
        self.record_exponential(layout.feature, head, as_f64);
        let centre = match &layout.aligned {
            Some(lookup) => {
                let cell = &slots[lookup.slot(value)];
                increment(&cell.a, self.weight);
                add_f64(&cell.b, as_f64 * self.weight_f64);
                layout.centre
            }
            None => {
                add_f64(&head[header::ZERO].b, as_f64 * self.weight_f64);
                own_centre(head, as_f64)
            }
        };
        let distance = as_f64 - centre;
        add_f64(&head[header::SQUARES].a, distance * distance * self.weight_f64);
        widen_range(&head[header::RANGE], as_f64);
    }

    #[inline]
    fn record_exponential(&self, feature: usize, head: &[CounterPair; HEADER_CELLS], value: f64) {
        match exponential::index(value.abs()) {
            None => increment(&head[header::ZERO].a, self.weight),
            Some(index) => {
                if !self.buffer.exponentials[feature].count(index, value < 0.0, self.weight, self.share) {
                    increment(&head[header::NEGATIVE].b, self.weight);
                }
            }
        }
    }
}

/// The centre of the squares without a baseline: the first value of this buffer.
#[inline]
fn own_centre(head: &[CounterPair; HEADER_CELLS], value: f64) -> f64 {
    if load_f64(&head[header::RANGE].a) > load_f64(&head[header::RANGE].b) {
        store_f64(&head[header::SQUARES].b, value);
    }
    load_f64(&head[header::SQUARES].b)
}

#[inline]
fn widen_range(range: &CounterPair, value: f64) {
    if value < load_f64(&range.a) {
        store_f64(&range.a, value);
    }
    if value > load_f64(&range.b) {
        store_f64(&range.b, value);
    }
}

#[cold]
fn count_non_finite(head: &[CounterPair; HEADER_CELLS], value: f64, weight: u64) {
    let counter = if value.is_nan() {
        &head[header::NAN].a
    } else if value > 0.0 {
        &head[header::NAN].b
    } else {
        &head[header::NEGATIVE].a
    };
    increment(counter, weight);
}

/// Mean, standard deviation (denominator n), minimum and maximum of the finite values, and the share of the others. The first four
/// are NaN if no value is finite.
fn row_statistics(values: impl Iterator<Item = f64>) -> [f64; 5] {
    let (mut n, mut non_finite, mut centre) = (0u32, 0u32, 0.0);
    let (mut sum, mut squares) = (0.0, 0.0);
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        if !value.is_finite() {
            non_finite += 1;
            continue;
        }
        if n == 0 {
            centre = value;
        }
        n += 1;
        let distance = value - centre;
        sum += distance;
        squares += distance * distance;
        min = if value < min { value } else { min };
        max = if value > max { value } else { max };
    }
    let share = f64::from(non_finite) / f64::from(n + non_finite);
    if n == 0 {
        return [f64::NAN, f64::NAN, f64::NAN, f64::NAN, share];
    }
    let offset = sum / f64::from(n);
    let variance = (squares / f64::from(n) - offset * offset).max(0.0);
    [centre + offset, variance.sqrt(), min, max, share]
}
