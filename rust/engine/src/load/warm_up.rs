//! Warms a model up: its first runs, which belong to no request, and what they show. They show how long it runs, whether threads within a
//! run help, and whether rows may be batched.
//!
//! Not here: the inputs (`warmup`), how rows are compared (`batch_check`). Next: back to `engine`.

use std::path::Path;
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_core::histogram::{Counts, Histogram};
use headgate_core::spec::Device;
use headgate_runtime::Binding;

use super::batch_check::{self, BatchCheckResult};
use super::timed_run;
use crate::batching::Batcher;
use crate::models::{LoadedModel, MIN_RUNS};
use crate::time::Instant;
use crate::warmup::{FILE, WarmupInputs, concerns_inputs};

/// How long all attempts to find synthetic inputs may take.
const MAX_SYNTHETIC_TIME: Duration = Duration::from_secs(10);
/// Runs before the measuring begins: caches are cold and kernels are made.
const COLD_RUNS: u64 = 3;
/// A version whose warm run takes this long is not measured further, because it belongs in the pool.
const LONG_RUN_NS: u64 = 20_000_000;
/// A shorter run is not split among threads: to wake them takes a good part of it.
const MIN_SPLIT_NS: u64 = 500_000;
/// The share of its time that a run with threads may take to be worth their cores.
const MAX_TIME_SHARE: f64 = 0.7;
/// The rows of a batch whose run time is measured.
const BATCH_ROWS: usize = 3;

/// Runs a new model until its run time is known, and decides its placement. Returns the median run time in nanoseconds; `None` if it runs on
/// no synthetic inputs, which is noted. `exact` says that it computes on the processor with one thread.
///
/// # Errors
/// `model_load_failed` if it fails on the requests of its artifact, or if it should be batched and its rows differ together and alone;
/// `overloaded` if memory is missing.
pub(crate) fn warm_up(model: &LoadedModel, warmup: WarmupInputs, exact: bool) -> Result<Option<u64>> {
    let is_from_file = warmup.is_from_file();
    let histogram = Histogram::default();
    let warmed = first_run(model, warmup).and_then(|warmup| {
        measure(model, &warmup, &histogram)?;
        Ok(warmup)
    });
    let warmup = match warmed {
        Ok(warmup) => warmup,
        Err(error) if is_from_file || !concerns_inputs(&error) => return Err(error),
        Err(error) => {
            note_unwarmed(model, &error);
            if let Some(batcher) = model.batcher() {
                disable_batching(model, batcher, "its rows could not be compared");
            }
            return Ok(None);
        }
    };
    let mut counts = Counts::default();
    histogram.add_to(&mut counts);
    let longest_ns = counts.quantile_ns(1.0).unwrap_or_default();
    model.probes().set_known_input(warmup.plain_only(), Duration::from_nanos(longest_ns));
    if counts.total() > 0 {
        model.learn(&counts, 0);
    }
    if let Some(batcher) = model.batcher()
        && may_batch(model, batcher, &warmup, exact)?
    {
        measure_batch_cost(model, batcher, &warmup)?;
        run_all_sizes(model, &warmup)?;
    }
    Ok(counts.quantile_ns(0.5))
}

/// Runs a model once after it came back into memory.
///
/// # Errors
/// As [`warm_up`].
pub(crate) fn warm_up_again(model: &LoadedModel, warmup: WarmupInputs) -> Result<()> {
    let is_from_file = warmup.is_from_file();
    match first_run(model, warmup) {
        Err(error) if !is_from_file && concerns_inputs(&error) => {
            note_unwarmed(model, &error);
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}

/// Notes that a model runs on no synthetic inputs. What it accepts is unknown, so this is no reason to refuse it.
fn note_unwarmed(model: &LoadedModel, error: &Error) {
    model.load_notes.add(format!(
        "served unwarmed: it runs on no made-up inputs ({error}); put a request that works into {FILE} beside the model"
    ));
}

/// Runs a model once, on a request of its artifact or on synthetic inputs; returns what it ran on.
///
/// # Errors
/// Why it runs on none.
fn first_run(model: &LoadedModel, warmup: WarmupInputs) -> Result<WarmupInputs> {
    // Synthetic inputs may keep a model going for ever. The threads of a device belong to the model, and their runs are not cancelled.
    let limited = !warmup.is_from_file() && model.device() == Device::Cpu;
    let (mut failed, until) = (None, Instant::now() + MAX_SYNTHETIC_TIME);
    for attempt in warmup.attempts(model.signature()) {
        let mut binding = model.new_binding();
        let at = attempt.plain_index();
        let filled = attempt.fill(&mut binding, model.signature(), at);
        let result = filled.and_then(|()| match limited {
            true => timed_run::run_until(model, binding, until),
            false => model.executable().execute_first(&mut binding),
        });
        match result {
            Ok(()) => return Ok(attempt),
            Err(error) if !concerns_inputs(&error) => return Err(error),
            Err(error) => failed = failed.or_else(|| Some(attempt.describe_failure(at, &error))),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(Code::Internal, "nothing to warm a model with")))
}

/// Runs until enough is measured.
fn measure(model: &LoadedModel, warmup: &WarmupInputs, histogram: &Histogram) -> Result<()> {
    let requests = warmup.len();
    let mut bindings: Vec<Binding> = (0..requests).map(|_| model.new_binding()).collect();
    for (at, binding) in bindings.iter_mut().enumerate() {
        warmup.fill(binding, model.signature(), at)?;
    }
    for run in 0..COLD_RUNS.max(requests as u64) + MIN_RUNS {
        let at = run as usize % requests;
        let start = Instant::now();
        model.executable().execute(&mut bindings[at]).map_err(|error| warmup.describe_failure(at, &error))?;
        let ns = start.elapsed().as_nanos() as u64;
        if run >= COLD_RUNS || ns > LONG_RUN_NS {
            histogram.record(ns);
        }
        // Every request is run once, even if that takes long.
        if ns > LONG_RUN_NS && run as usize + 1 >= requests {
            break;
        }
    }
    Ok(())
}

/// Whether a model should be tried with several threads: its runs are long, and it has no ensemble of trees, whose sums would depend on
/// how they are split.
pub(crate) fn may_gain_from_threads(run_ns: u64, path: &Path) -> bool {
    let long = run_ns >= MIN_SPLIT_NS;
    // If the file cannot be read any more, it is taken for one with trees.
    long && std::fs::read(path).is_ok_and(|bytes| !contains(&bytes, b"TreeEnsemble"))
}

fn contains(bytes: &[u8], pattern: &[u8]) -> bool {
    bytes.windows(pattern.len()).any(|window| window == pattern)
}

/// Whether threads are worth their cores.
pub(crate) fn is_worth_threads(alone_ns: u64, together_ns: u64) -> bool {
    together_ns as f64 <= MAX_TIME_SHARE * alone_ns as f64
}

/// Whether rows together equal rows alone. If that is not known, requests run alone, and a note says why.
fn may_batch(model: &LoadedModel, batcher: &Batcher, warmup: &WarmupInputs, exact: bool) -> Result<bool> {
    match batch_check::check(model, batcher, warmup, exact)? {
        BatchCheckResult::Same => Ok(true),
        BatchCheckResult::Differ(reason) => {
            Err(Error::new(Code::ModelLoadFailed, format!("{reason}; remove max_batch")))
        }
        BatchCheckResult::Unknown(reason) => {
            disable_batching(model, batcher, &reason);
            Ok(false)
        }
    }
}

/// Has requests run alone.
fn disable_batching(model: &LoadedModel, batcher: &Batcher, reason: &str) {
    batcher.switch_off();
    model.load_notes.add(format!("not batched: {reason}"));
}

/// Measures what a row alone and rows together cost.
fn measure_batch_cost(model: &LoadedModel, batcher: &Batcher, warmup: &WarmupInputs) -> Result<()> {
    let mut binding = model.new_binding();
    for rows in [1, BATCH_ROWS.min(batcher.max_batch())] {
        warmup.fill_rows(&mut binding, model.signature(), rows, 0)?;
        for _ in 0..COLD_RUNS {
            let start = Instant::now();
            model.executable().execute(&mut binding)?;
            batcher.record_cost(rows, start.elapsed().as_nanos() as u64);
        }
    }
    Ok(())
}

/// Runs every size that batches are padded to on every instance of a device, the largest first. The device plans a size, and takes its
/// memory, when it first comes.
fn run_all_sizes(model: &LoadedModel, warmup: &WarmupInputs) -> Result<()> {
    let (Device::Cuda(_), Some(batcher)) = (model.device(), model.batcher()) else { return Ok(()) };
    let mut binding = model.new_binding();
    for &rows in batcher.buckets().iter().rev() {
        warmup.fill_rows(&mut binding, model.signature(), rows, 0)?;
        for _ in 0..model.resident().instances() {
            model.executable().execute(&mut binding)?;
        }
    }
    Ok(())
}
