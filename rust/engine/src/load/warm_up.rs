//! Warming: the first runs of a model, which are nobody's request, and what they tell: how long it runs, whether threads
//! within a run help, whether rows together equal rows alone.
//!
//! Not here: what a model is warmed with (`warmup`), how rows are compared (`batch_check`). Next: `place`.

use std::path::Path;
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};
use headgate_core::histogram::{Counts, Histogram};
use headgate_core::spec::Device;
use headgate_runtime::Binding;

use super::batch_check::{self, Verdict};
use super::timed_run;
use crate::batching::Batcher;
use crate::models::{MIN_RUNS, Warm};
use crate::warmup::{FILE, Warmup, is_of_the_run};

/// How long a model may take with all that is made up for its first run.
const MADE_UP: Duration = Duration::from_secs(10);
/// Runs that are thrown away before the measuring begins: caches, lazily made kernels.
const COLD_RUNS: u64 = 3;
/// A version whose first warm run takes this long is not worth measuring further: it belongs in the pool.
const LONG_RUN_NS: u64 = 20_000_000;
/// Runs below this are not split among threads: waking them takes a good part of it.
const WORTH_SPLITTING_NS: u64 = 500_000;
/// The share of its time that a run with threads may take to be worth their cores.
const GAIN: f64 = 0.7;
/// Rows of a batch whose run time is learned from.
const TOGETHER: usize = 3;

/// Runs a fresh model until its run time is known, and places it; the median run time in nanoseconds. `None` if it takes no made-up
/// inputs: that is noted, and nothing is known of it. `exact` says that it computes on the processor with one thread.
///
/// # Errors
/// `model_load_failed` for a model that fails on the requests of its artifact, or that is to be batched and whose rows are not the
/// same together and alone; `overloaded` for want of memory.
pub(crate) fn up(model: &Warm, warmup: Warmup, exact: bool) -> Result<Option<u64>> {
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
                leave_unbatched(model, batcher, "its rows could not be compared");
            }
            return Ok(None);
        }
    };
    let mut counts = Counts::default();
    histogram.add_to(&mut counts);
    let longest_ns = counts.quantile_ns(1.0).unwrap_or_default();
    model.probes().keep(warmup.plain_only(), Duration::from_nanos(longest_ns));
    if counts.total() > 0 {
        model.learn(&counts, 0);
    }
    if let Some(batcher) = model.batcher()
        && may_batch(model, batcher, &warmup, exact)?
    {
        learn_cost(model, batcher, &warmup)?;
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

/// No made-up input is taken. Nobody knows what the model takes, so that is no reason to refuse it.
fn guessed_wrong(model: &Warm, error: &Error) {
    model.notes.add(format!(
        "served unwarmed: it runs on no made-up inputs ({error}); put a request that works into {FILE} beside the model"
    ));
}

/// Runs a model once: on a request of its artifact, or on made-up inputs that it takes, which are returned.
///
/// # Errors
/// Why it takes none.
fn first_run(model: &Warm, warmup: Warmup) -> Result<Warmup> {
    // What is made up may keep a model going for ever. A device's threads are its own, and are not cancelled.
    let limited = !warmup.is_given() && model.device() == Device::Cpu;
    let (mut failed, until) = (None, Instant::now() + MADE_UP);
    for attempt in warmup.attempts(model.signature()) {
        let mut binding = model.new_binding();
        let at = attempt.plain();
        let filled = attempt.fill(&mut binding, model.signature(), at);
        let ran = filled.and_then(|()| match limited {
            true => timed_run::run(model, binding, until),
            false => model.executable().execute_first(&mut binding),
        });
        match ran {
            Ok(()) => return Ok(attempt),
            Err(error) if !is_of_the_run(&error) => return Err(error),
            Err(error) => failed = failed.or_else(|| Some(attempt.blame(at, &error))),
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
        model.executable().execute(&mut bindings[at]).map_err(|error| warmup.blame(at, &error))?;
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
pub(crate) fn may_gain_from_threads(run_ns: u64, path: &Path) -> bool {
    let long = run_ns >= WORTH_SPLITTING_NS;
    // A file that cannot be read was loaded a moment ago; it is taken for one with trees.
    long && std::fs::read(path).is_ok_and(|bytes| !contains(&bytes, b"TreeEnsemble"))
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// Whether threads are worth their cores.
pub(crate) fn gains(alone_ns: u64, together_ns: u64) -> bool {
    together_ns as f64 <= GAIN * alone_ns as f64
}

/// Makes sure that rows together equal rows alone; whether they do. If nobody knows, requests run alone, and a note says why.
fn may_batch(model: &Warm, batcher: &Batcher, warmup: &Warmup, exact: bool) -> Result<bool> {
    match batch_check::check(model, batcher, warmup, exact)? {
        Verdict::Same => Ok(true),
        Verdict::Differ(why) => Err(Error::new(Code::ModelLoadFailed, format!("{why}; remove max_batch"))),
        Verdict::Unknown(why) => {
            leave_unbatched(model, batcher, &why);
            Ok(false)
        }
    }
}

/// Has requests run alone.
fn leave_unbatched(model: &Warm, batcher: &Batcher, why: &str) {
    batcher.switch_off();
    model.notes.add(format!("not batched: {why}"));
}

/// Tells the batcher what a row alone and rows together cost.
fn learn_cost(model: &Warm, batcher: &Batcher, warmup: &Warmup) -> Result<()> {
    let mut binding = model.new_binding();
    for rows in [1, TOGETHER.min(batcher.max_batch())] {
        warmup.fill_rows(&mut binding, model.signature(), rows, 0)?;
        for _ in 0..COLD_RUNS {
            let start = Instant::now();
            model.executable().execute(&mut binding)?;
            batcher.observe(rows, start.elapsed().as_nanos() as u64);
        }
    }
    Ok(())
}

/// Runs every size that batches are filled up to on every instance of a device, the largest first: each is planned, and its memory
/// made, when it first comes.
fn plan_batches(model: &Warm, warmup: &Warmup) -> Result<()> {
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
