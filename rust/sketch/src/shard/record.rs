//! The update path: rows of typed tensors into the counters of one buffer.
//!
//! A value costs two table look-ups (its slot on the baseline's edges, its exponential bucket), a few comparisons and a
//! handful of plain loads and stores; nothing here allocates (but for values that make a table of buckets grow),
//! waits or fails. Next: `live`.

use super::buffer::{Buffer, header};
use super::counter::{Cell, add, bump, get, set};
use super::shared::Core;
use crate::budget::Share;
use crate::exponential;
use crate::lookup::Lane;
use crate::plan::{HEADER, MAX_ELEMENTS, Place, Places, Rows, TensorPlan};
use crate::sampler::Pick;
use crate::view::{Strings, TensorView, brain_to_single, half_to_single};

/// Features walked for all rows before the next ones: their tables and counters, 2 KiB each, stay in the nearest cache.
const BLOCK: usize = 16;

/// The writer's access to a shard during one [`super::Writer::record`].
#[derive(Debug)]
pub struct Recorder<'a> {
    core: &'a Core,
    buffer: &'a Buffer,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(core: &'a Core, buffer: &'a Buffer) -> Self {
        Self { core, buffer }
    }

    /// Counts the rows of a request: all as offered, those that `pick` keeps as observed. Once per request.
    pub fn offer(&mut self, rows: usize, pick: &Pick) {
        bump(&self.buffer.offered, rows as u64);
        bump(&self.buffer.observed, pick.kept(rows));
    }

    /// Counts rows that came without this tensor. All of them: each counts once.
    pub fn missing(&mut self, tensor: usize, rows: usize) {
        bump(&self.buffer.tensors[tensor].missing, rows as u64);
    }

    /// Takes in the rows of one tensor that `pick` keeps. `tensor` is its position in the list the plan was compiled from. A tensor of another type or size is counted as such, once. Each row
    /// kept counts as often as `pick` says, so that all rows together count what came by. Of tensors with more than `cap`
    /// values fewer rows are kept.
    pub fn tensor_capped(&mut self, tensor: usize, data: TensorRows<'_>, cap: usize, pick: &Pick) -> Taken {
        let TensorRows { view, rows } = data;
        let plan = &self.core.plan.tensors[tensor];
        let width = match plan.rows {
            Rows::Elements(width) | Rows::Lengths(width) => width,
            Rows::Statistics => view.len().checked_div(rows).unwrap_or(0),
        };
        // Elements without a fixed place are rows of their own.
        let pooled = matches!(plan.rows, Rows::Lengths(_)) && plan.info.row_elements != Some(width);
        let fits = pooled || rows.checked_mul(width) == Some(view.len());
        if !view.is_of(plan.info.datatype) || !fits {
            bump(&self.buffer.tensors[tensor].wrong_type, 1);
            return Taken::default();
        }
        if width == 0 {
            return Taken::default();
        }
        let (rows, values) = (view.len() / width, plan.row_values(width));
        let pick = &pick.capped(rows, values, cap);
        let taken = self.weigh(tensor, rows, values, pick);
        if taken.rows == 0 {
            return taken;
        }
        let weight = pick.weight();
        let sink = Sink {
            buffer: self.buffer,
            share: &self.core.share,
            plan,
            width,
            pick,
            weight,
            times: weight as f64,
        };
        match view {
            TensorView::U8(data) => sink.single(data, f32::from),
            TensorView::U16(data) => sink.single(data, f32::from),
            TensorView::I8(data) => sink.single(data, f32::from),
            TensorView::I16(data) => sink.single(data, f32::from),
            TensorView::F16(data) => sink.single(data, half_to_single),
            TensorView::Bf16(data) => sink.single(data, brain_to_single),
            TensorView::F32(data) => sink.single(data, |value| value),
            TensorView::U32(data) => sink.double(data, f64::from),
            TensorView::I32(data) => sink.double(data, f64::from),
            TensorView::U64(data) => sink.double(data, |value| value as f64),
            TensorView::I64(data) => sink.double(data, |value| value as f64),
            TensorView::F64(data) => sink.double(data, |value| value),
            TensorView::Strings(strings) => sink.lengths(strings),
        }
        taken
    }

    /// As [`Recorder::tensor_capped`] without a cap.
    pub fn tensor(&mut self, tensor: usize, view: TensorView<'_>, rows: usize, pick: &Pick) -> Taken {
        self.tensor_capped(tensor, TensorRows { view, rows }, usize::MAX, pick)
    }

    /// Books the rows that `pick` keeps, with their weights.
    fn weigh(&self, tensor: usize, rows: usize, values: usize, pick: &Pick) -> Taken {
        let (kept, weight) = (pick.kept(rows), pick.weight());
        let counters = &self.buffer.tensors[tensor];
        bump(&counters.rows, kept);
        bump(&counters.weight, kept * weight);
        add(&counters.squares, (kept * weight) as f64 * weight as f64);
        Taken { rows: kept, values: kept * values as u64 }
    }
}

/// The rows of one tensor of a request.
#[derive(Clone, Copy, Debug)]
pub struct TensorRows<'a> {
    /// The elements: `rows` times the elements per row.
    pub view: TensorView<'a>,
    /// How many rows there are.
    pub rows: usize,
}

/// What was taken of a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Rows that were sketched.
    pub rows: u64,
    /// Values that this took: what it cost.
    pub values: u64,
}

/// Where the rows of one tensor go.
struct Sink<'a> {
    buffer: &'a Buffer,
    share: &'a Share,
    plan: &'a TensorPlan,
    width: usize,
    pick: &'a Pick,
    /// How often each row counts, twice.
    weight: u64,
    times: f64,
}

impl Sink<'_> {
    fn single<T: Copy>(&self, data: &[T], lane: impl Fn(T) -> f32 + Copy) {
        match &self.plan.places {
            Places::Single(places) => self.elements(data, places, lane),
            Places::Double(places) => self.statistics(data, places, |value| f64::from(lane(value))),
        }
    }

    fn double<T: Copy>(&self, data: &[T], lane: impl Fn(T) -> f64 + Copy) {
        match &self.plan.places {
            Places::Double(places) if self.plan.rows == Rows::Statistics => {
                self.statistics(data, places, lane)
            }
            Places::Double(places) => self.elements(data, places, lane),
            Places::Single(_) => debug_assert!(false, "a plan counts this type in f64"),
        }
    }

    fn elements<T: Copy, L: Lane>(&self, data: &[T], places: &[Place<L>], lane: impl Fn(T) -> L) {
        for (block, places) in places.chunks(BLOCK).enumerate() {
            let first = block * BLOCK;
            for number in self.pick.rows(data.len() / self.width) {
                let row = &data[number * self.width..][..self.width];
                for (place, &value) in places.iter().zip(&row[first..]) {
                    self.value(place, lane(value));
                }
            }
        }
    }

    fn statistics<T: Copy>(&self, data: &[T], places: &[Place<f64>], lane: impl Fn(T) -> f64 + Copy) {
        let stride = self.width.div_ceil(MAX_ELEMENTS);
        for number in self.pick.rows(data.len() / self.width) {
            let row = &data[number * self.width..][..self.width];
            let phase = (self.pick.mixed(number) % stride as u64) as usize;
            let values = row[phase..].iter().step_by(stride).map(|&value| lane(value));
            for (place, value) in places.iter().zip(describe(values)) {
                self.value(place, value);
            }
        }
    }

    fn lengths(&self, strings: &dyn Strings) {
        let Places::Double(places) = &self.plan.places else { return };
        for number in self.pick.rows(strings.count() / self.width) {
            let first = number * self.width;
            for (pair, at) in places.chunks_exact(2).zip(first..first + self.width) {
                let length = strings.length(at);
                self.value(&pair[0], length as f64);
                self.value(&pair[1], f64::from(u8::from(length == 0)));
            }
        }
    }

    #[inline(always)]
    fn value<L: Lane>(&self, place: &Place<L>, value: L) {
        let cells = &self.buffer.cells[place.cell..place.cell + place.cells];
        let (head, slots) = cells.split_first_chunk::<HEADER>().expect("a place begins with its header");
        let wide = value.to_f64();
        if !value.is_finite() {
            special(head, wide, self.weight);
            return;
        }
        self.exponential(place.feature, head, wide);
        let centre = match &place.aligned {
            Some(lookup) => {
                let cell = &slots[lookup.slot(value)];
                bump(&cell.a, self.weight);
                add(&cell.b, wide * self.times);
                place.centre
            }
            None => {
                add(&head[header::ZERO].b, wide * self.times);
                own_centre(head, wide)
            }
        };
        let distance = wide - centre;
        add(&head[header::SQUARES].a, distance * distance * self.times);
        widen(&head[header::RANGE], wide);
    }

    #[inline]
    fn exponential(&self, feature: usize, head: &[Cell; HEADER], value: f64) {
        match exponential::index(value.abs()) {
            None => bump(&head[header::ZERO].a, self.weight),
            Some(index) => {
                if !self.buffer.exponentials[feature].count(index, value < 0.0, self.weight, self.share) {
                    bump(&head[header::NEGATIVE].b, self.weight);
                }
            }
        }
    }
}

/// What squares are taken about without a baseline: the first value of this buffer.
#[inline]
fn own_centre(head: &[Cell; HEADER], value: f64) -> f64 {
    if get(&head[header::RANGE].a) > get(&head[header::RANGE].b) {
        set(&head[header::SQUARES].b, value);
    }
    get(&head[header::SQUARES].b)
}

#[inline]
fn widen(range: &Cell, value: f64) {
    if value < get(&range.a) {
        set(&range.a, value);
    }
    if value > get(&range.b) {
        set(&range.b, value);
    }
}

#[cold]
fn special(head: &[Cell; HEADER], value: f64, weight: u64) {
    let counter = if value.is_nan() {
        &head[header::NAN].a
    } else if value > 0.0 {
        &head[header::NAN].b
    } else {
        &head[header::NEGATIVE].a
    };
    bump(counter, weight);
}

/// Mean, standard deviation (denominator n), minimum, maximum of the finite values, and the share of the others; the first
/// four are NaN when no value is finite.
fn describe(values: impl Iterator<Item = f64>) -> [f64; 5] {
    let (mut n, mut odd, mut centre) = (0u32, 0u32, 0.0);
    let (mut sum, mut squares) = (0.0, 0.0);
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        if !value.is_finite() {
            odd += 1;
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
    let share = f64::from(odd) / f64::from(n + odd);
    if n == 0 {
        return [f64::NAN, f64::NAN, f64::NAN, f64::NAN, share];
    }
    let offset = sum / f64::from(n);
    let variance = (squares / f64::from(n) - offset * offset).max(0.0);
    [centre + offset, variance.sqrt(), min, max, share]
}
