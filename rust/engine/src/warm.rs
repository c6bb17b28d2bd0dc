//! Warming: the first runs of a model, which are nobody's request, and what they tell: how long it runs, whether threads
//! within a run help, whether rows together equal rows alone.
//!
//! Not here: what a model is warmed with (`warmup`). Next: `place`.

use std::path::Path;
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::Device;
use headgate_core::tensor::DataType;
use headgate_runtime::tensor::Data;
use headgate_runtime::{Binding, View};

use crate::histogram::{Counts, Histogram};
use crate::model::Warm;
use crate::place::MIN_RUNS;
use crate::warmup::{FILE, Warmup};

/// Runs that are thrown away before the measuring begins: caches, lazily made kernels.
const COLD_RUNS: u64 = 3;
/// A version whose first warm run takes this long is not worth measuring further: it belongs in the pool.
const LONG_RUN_NS: u64 = 20_000_000;
/// Runs below this are not split among threads: waking them takes a good part of it.
const WORTH_SPLITTING_NS: u64 = 500_000;
/// The share of its time that a run with threads may take to be worth their cores.
const GAIN: f64 = 0.7;
/// How a note begins that says why `max_batch` has no effect.
const UNBATCHED: &str = "not batched";
/// Rows of the batch that is compared with its rows alone.
const COMPARED: usize = 3;
/// How far rows together may differ from rows alone, relative to the larger: what another order of additions makes.
const TOLERANCE: f64 = 1e-4;
/// The same on a device, relative to the largest of all: its kernels differ with the number of rows, and multiply ten bits (TF32).
const TOLERANCE_ON_DEVICE: f64 = 5e-3;
/// The same for halves.
const TOLERANCE_OF_HALVES: f64 = 2e-2;

/// Runs a fresh model until its run time is known, and places it; the median run time in nanoseconds. `None` if it takes no made-up
/// inputs: that is noted, and nothing is known of it.
///
/// # Errors
/// `model_load_failed` for a model that fails on the requests of its artifact, or that is to be batched and whose rows are not the
/// same together and alone; `overloaded` for want of memory.
pub(crate) fn up(model: &Warm, warmup: Warmup) -> Result<Option<u64>> {
    let is_given = warmup.is_given();
    let histogram = Histogram::default();
    let warmed = first_run(model, warmup).and_then(|warmup| {
        measure(model, &warmup, &histogram)?;
        Ok(warmup)
    });
    let warmup = match warmed {
        Ok(warmup) => warmup,
        Err(error) if is_given || !is_of_the_run(&error) => return Err(error),
        Err(error) => {
            guessed_wrong(model, &error);
            if let Some(batcher) = model.batcher() {
                batcher.switch_off();
                model.notes.add(format!("{UNBATCHED}: its rows could not be compared"));
            }
            return Ok(None);
        }
    };
    model.probes().keep(warmup.first());
    let mut counts = Counts::default();
    histogram.add_to(&mut counts);
    if counts.total() > 0 {
        model.learn(&counts, 0);
    }
    if model.batcher().is_some() {
        check_batches(model, &warmup)?;
        plan_batches(model, &warmup)?;
    }
    Ok(counts.quantile_ns(0.5))
}

/// Runs a model once again that has left memory meanwhile.
///
/// # Errors
/// As [`up`].
pub(crate) fn again(model: &Warm, warmup: Warmup) -> Result<()> {
    let is_given = warmup.is_given();
    match first_run(model, warmup) {
        Err(error) if !is_given && is_of_the_run(&error) => {
            guessed_wrong(model, &error);
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}

/// Whether a failure says something about the inputs: want of memory, and a load that was cancelled, do not.
fn is_of_the_run(error: &Error) -> bool {
    !matches!(error.code, Code::Overloaded | Code::Cancelled)
}

/// No made-up input is taken. Nobody knows what the model takes, so that is no reason to refuse it.
fn guessed_wrong(model: &Warm, error: &Error) {
    model.notes.add(format!(
        "served unwarmed: it runs on no made-up inputs ({error}); put a request that works into {FILE} beside the model"
    ));
}

/// Runs a model once: on the first request of its artifact, or on made-up inputs that it takes, which are returned.
///
/// # Errors
/// Why it takes none.
fn first_run(model: &Warm, warmup: Warmup) -> Result<Warmup> {
    let mut failed = None;
    for attempt in warmup.attempts(model.signature()) {
        let mut binding = model.new_binding();
        let filled = attempt.fill(&mut binding, model.signature(), 0);
        match filled.and_then(|()| model.execute(&mut binding)) {
            Ok(()) => return Ok(attempt),
            Err(error) if !is_of_the_run(&error) => return Err(error),
            Err(error) => failed = failed.or_else(|| Some(attempt.blame(0, &error))),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(Code::Internal, "nothing to warm a model with")))
}

/// Runs until enough is known.
fn measure(model: &Warm, warmup: &Warmup, histogram: &Histogram) -> Result<()> {
    let requests = warmup.len();
    let mut bindings: Vec<Binding> = (0..requests).map(|_| model.new_binding()).collect();
    for (at, binding) in bindings.iter_mut().enumerate() {
        warmup.fill(binding, model.signature(), at)?;
    }
    for run in 0..COLD_RUNS.max(requests as u64) + MIN_RUNS {
        let at = run as usize % requests;
        let start = Instant::now();
        model.execute(&mut bindings[at]).map_err(|error| warmup.blame(at, &error))?;
        let ns = start.elapsed().as_nanos() as u64;
        if run >= COLD_RUNS || ns > LONG_RUN_NS {
            histogram.record(ns);
        }
        // Every request has its run, however long that takes.
        if ns > LONG_RUN_NS && run as usize + 1 >= requests {
            break;
        }
    }
    Ok(())
}

/// Whether it is worth trying a model with several threads: long runs, and no ensemble of trees, whose sums would depend on
/// how they are split.
pub(crate) fn may_gain_from_threads(run_ns: Option<u64>, path: &Path) -> bool {
    let long = run_ns.is_some_and(|ns| ns >= WORTH_SPLITTING_NS);
    // A file that cannot be read was loaded a moment ago; it is taken for one with trees.
    long && std::fs::read(path).is_ok_and(|bytes| !contains(&bytes, b"TreeEnsemble"))
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// Whether threads are worth their cores.
pub(crate) fn gains(alone_ns: Option<u64>, together_ns: Option<u64>) -> bool {
    alone_ns.zip(together_ns).is_some_and(|(alone, together)| together as f64 <= GAIN * alone as f64)
}

/// Makes sure that rows together equal rows alone, and tells the batcher what both cost.
fn check_batches(model: &Warm, warmup: &Warmup) -> Result<()> {
    let Some(batcher) = model.batcher() else { return Ok(()) };
    let refused = |why: String| Error::new(Code::ModelLoadFailed, format!("{why}; remove max_batch"));
    let rows = COMPARED.min(batcher.max_batch());
    let mut together = model.new_binding();
    let signature = model.signature();
    let filled = warmup.fill_rows(&mut together, signature, rows, 0);
    let ran = filled.and_then(|()| model.execute(&mut together));
    ran.map_err(|error| {
        refused(format!("{rows} rows together could not be run, so that batches cannot be checked ({error})"))
    })?;
    let mut alone = model.new_binding();
    for row in 0..rows {
        warmup.fill_rows(&mut alone, signature, 1, row)?;
        model.execute(&mut alone)?;
        for (index, spec) in signature.outputs.iter().enumerate() {
            let (whole, single) = (together.output(index)?, alone.output(index)?);
            let part = whole.rows(row, 1).filter(|_| whole.shape.rows() == rows);
            if !part.is_some_and(|part| close(&part, &single, model.device())) {
                return Err(refused(format!(
                    "output {:?} is not the same for rows together and for each row alone",
                    spec.name
                )));
            }
        }
    }
    learn(model, &mut alone, 1)?;
    learn(model, &mut together, rows)
}

/// Runs every size that batches are filled up to on every instance of a device, the largest first: each is planned, and its memory
/// made, when it first comes.
fn plan_batches(model: &Warm, warmup: &Warmup) -> Result<()> {
    let (Device::Cuda(_), Some(batcher)) = (model.device(), model.batcher()) else { return Ok(()) };
    let mut binding = model.new_binding();
    for &rows in batcher.buckets().iter().rev() {
        warmup.fill_rows(&mut binding, model.signature(), rows, 0)?;
        for _ in 0..model.resident().instances() {
            model.execute(&mut binding)?;
        }
    }
    Ok(())
}

/// Tells the batcher what a run of so many rows costs.
fn learn(model: &Warm, binding: &mut Binding, rows: usize) -> Result<()> {
    for _ in 0..COLD_RUNS {
        let start = Instant::now();
        model.execute(binding)?;
        if let Some(batcher) = model.batcher() {
            batcher.observe(rows, start.elapsed().as_nanos() as u64);
        }
    }
    Ok(())
}

/// Whether two tensors hold the same, but for rounding. Halves on the processor are rounded so coarsely that the order of additions
/// hardly ever shows.
fn close(a: &View<'_>, b: &View<'_>, device: Device) -> bool {
    if a.shape != b.shape || a.datatype != b.datatype {
        return false;
    }
    let halves = matches!(a.datatype, DataType::Fp16 | DataType::Bf16);
    let Some((a, b)) = numbers(a).zip(numbers(b)) else {
        return matches!((&a.data, &b.data), (Data::Bytes(a), Data::Bytes(b)) if a == b);
    };
    let largest =
        b.iter().filter(|value| value.is_finite()).fold(0.0, |most: f64, value| most.max(value.abs()));
    let near = |(&a, &b): (&f64, &f64)| {
        let allowed = match device {
            Device::Cpu => TOLERANCE * a.abs().max(b.abs()).max(1.0),
            Device::Cuda(_) if halves => TOLERANCE_OF_HALVES * largest,
            Device::Cuda(_) => TOLERANCE_ON_DEVICE * largest,
        };
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed
    };
    a.iter().zip(&b).all(near)
}

/// The elements of a tensor of fractions.
fn numbers(view: &View<'_>) -> Option<Vec<f64>> {
    let halves = |read: fn(u16) -> f64| Some(view.elements::<u16>()?.iter().copied().map(read).collect());
    match view.datatype {
        DataType::Fp64 => view.elements::<f64>().map(<[f64]>::to_vec),
        DataType::Fp32 => Some(view.elements::<f32>()?.iter().copied().map(f64::from).collect()),
        DataType::Fp16 => halves(|bits| half::f16::from_bits(bits).to_f64()),
        DataType::Bf16 => halves(|bits| half::bf16::from_bits(bits).to_f64()),
        _ => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use headgate_core::tensor::Shape;

    use super::*;

    fn view(datatype: DataType, bytes: &[u8], elements: usize) -> View<'_> {
        let shape = Shape::new(&[elements as i64]).expect("a shape");
        View { datatype, shape, data: Data::Bytes(bytes) }
    }

    fn singles(values: [f32; 2]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    #[test]
    fn rows_may_differ_by_what_rounding_does_where_they_run() {
        let cuda = Device::Cuda(0);
        for (other, cpu, device) in [
            ([100.0, 1.0], true, true),
            ([100.001, 1.0], true, true),
            ([100.1, 1.0], false, true),
            // Beside large elements, small ones are off by as much.
            ([100.0, 1.3], false, true),
            ([101.0, 1.0], false, false),
            ([f32::NAN, 1.0], false, false),
        ] {
            let (a, b) = (singles(other), singles([100.0, 1.0]));
            let (a, b) = (view(DataType::Fp32, &a, 2), view(DataType::Fp32, &b, 2));
            assert_eq!((close(&a, &b, Device::Cpu), close(&a, &b, cuda)), (cpu, device), "{other:?}");
        }
        let half = |value: f32| half::f16::from_f32(value).to_ne_bytes().to_vec();
        let (a, b, c) = (half(1.0), half(1.01), half(1.1));
        let near = |a: &[u8], b: &[u8], device| {
            close(&view(DataType::Fp16, a, 1), &view(DataType::Fp16, b, 1), device)
        };
        assert!(near(&a, &a, Device::Cpu) && !near(&a, &b, Device::Cpu));
        assert!(near(&a, &b, cuda) && !near(&a, &c, cuda));
        let (a, b) = (1_i64.to_ne_bytes().to_vec(), 2_i64.to_ne_bytes().to_vec());
        assert!(!close(&view(DataType::Int64, &a, 1), &view(DataType::Int64, &b, 1), cuda));
    }
}
