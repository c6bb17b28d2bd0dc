//! Finds out whether rows that are run together give what each gives alone. Only then may a model be batched.
//!
//! Rows that differ are run alone, and then in batches of several sizes. In these each row keeps its place while the rows beside it change.
//! On the processor with one thread, a row at the same place of a batch of the same size is the same to the last bit, whatever is beside it.
//! So a bit that differs shows that rows are mixed. Between sizes kernels differ, and a tolerance applies.
//!
//! A model that mixes rows for rare values only is not found. Not here: the rows (`warmup`), the tolerance (`tolerance`). Next: `warm_up`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use headgate_core::error::Result;
use headgate_runtime::Binding;

use super::tolerance::{OutputRows, output_bytes};
use crate::batching::Batcher;
use crate::models::LoadedModel;
use crate::time::Instant;
use crate::warmup::{FILE, RowSet, WarmupInputs, concerns_inputs, varied};

/// The check ends after this time, once batches of the first two sizes were run.
const BUDGET: Duration = Duration::from_secs(2);
/// Batches whose rows alone take longer than this in total are left out, unless they are of the first two sizes.
const MAX_BATCH_TIME: Duration = Duration::from_millis(250);
/// A model whose rows alone take longer than this is compared with fewer rows.
const SLOW_ROW: Duration = Duration::from_millis(20);
/// The rows of such a model.
const SLOW_MODEL_ROWS: usize = 4;
/// The remaining sizes are tried until the check took this time.
const OTHER_SIZES_BUDGET: Duration = Duration::from_millis(500);
/// Batches up to this size are tried with every pattern of neighbours.
const MAX_ALL_PATTERNS: usize = 8;

/// The result of the check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BatchCheckResult {
    /// Rows together give what each gives alone.
    Same,
    /// They do not, with the reason.
    Differ(String),
    /// It is not known, with the reason.
    Unknown(String),
}

/// Compares rows together with rows alone. `exact` says that the model computes on the processor with one thread.
///
/// # Errors
/// Failures that say nothing about the rows: lack of memory, a load that was cancelled.
pub(crate) fn check(
    model: &LoadedModel,
    batcher: &Batcher,
    warmup: &WarmupInputs,
    exact: bool,
) -> Result<BatchCheckResult> {
    let from_file = warmup.is_from_file();
    let mut found = BatchCheckResult::Unknown(if from_file {
        format!("no two rows of {FILE} that could be run together differ; put requests that differ into it")
    } else {
        format!("no rows that differ could be made up; put requests into {FILE}")
    });
    for rows in warmup.rows(model.signature()) {
        let rows = rows?;
        if rows.len() < 2 {
            continue;
        }
        let given = if from_file { rows.clone() } else { RowSet::default() };
        let result =
            RowComparison { model, batcher, rows, exact, from_file, after_file_rows: false }.run()?;
        match result {
            BatchCheckResult::Differ(_) => return Ok(result),
            // One conclusive attempt with synthetic rows is enough.
            BatchCheckResult::Same if !from_file => return Ok(result),
            BatchCheckResult::Same => {
                if let Some(differ) = compare_varied(model, batcher, &given, exact)? {
                    return Ok(differ);
                }
                found = result;
            }
            BatchCheckResult::Unknown(_) if found == BatchCheckResult::Same => {}
            BatchCheckResult::Unknown(_) => found = result,
        }
    }
    Ok(found)
}

/// Rows may be mixed by what is the same in all given requests, such as a mask. This compares rows in which that is synthetic, and rows
/// that are synthetic as a whole. Only a difference counts, because synthetic values may be wrong for the model.
fn compare_varied(
    model: &LoadedModel,
    batcher: &Batcher,
    given: &RowSet,
    exact: bool,
) -> Result<Option<BatchCheckResult>> {
    for all in [false, true] {
        for rows in varied(given, model.signature(), all) {
            match (RowComparison { model, batcher, rows, exact, from_file: false, after_file_rows: true })
                .run()?
            {
                BatchCheckResult::Differ(reason) => return Ok(Some(BatchCheckResult::Differ(reason))),
                BatchCheckResult::Same => break,
                BatchCheckResult::Unknown(_) => {}
            }
        }
    }
    Ok(None)
}

/// The comparison of some rows.
struct RowComparison<'a> {
    model: &'a LoadedModel,
    batcher: &'a Batcher,
    rows: RowSet,
    exact: bool,
    from_file: bool,
    /// Whether rows of the file were compared before, so that only a difference counts.
    after_file_rows: bool,
}

/// The outputs of the rows, each run alone.
struct SingleRowOutputs {
    /// One entry for each output.
    outputs: Vec<OutputRows>,
    /// How long a run took.
    row_time: Duration,
    /// When batches began to be run.
    since: Instant,
}

/// The fingerprint of an output for a row at a place of batches of one size: by output, place and row.
type OutputFingerprints = HashMap<(usize, usize, usize), u64>;
/// The value of a run, or the result that follows from its failure.
type Compared<T> = std::result::Result<T, BatchCheckResult>;

impl RowComparison<'_> {
    fn run(mut self) -> Result<BatchCheckResult> {
        let mut binding = self.model.new_binding();
        let single = match self.run_single_rows(&mut binding)? {
            Ok(single) => single,
            Err(result) => return Ok(result),
        };
        let compared = self.compare_sizes(&mut binding, &single)?;
        Ok(compared.err().unwrap_or_else(|| self.outputs_vary(&single)))
    }

    /// An output that is the same for every row would be the same if rows were mixed.
    fn outputs_vary(&self, single: &SingleRowOutputs) -> BatchCheckResult {
        let Some(at) = single.outputs.iter().position(|output| !output.varies()) else {
            return BatchCheckResult::Same;
        };
        let name = &self.model.signature().outputs[at].name;
        BatchCheckResult::Unknown(format!(
            "output {name:?} is the same for all rows that were tried, so that it is not known whether rows may be run together; put \
             requests whose answers differ into {FILE}"
        ))
    }

    /// Runs batches of several sizes.
    fn compare_sizes(&self, binding: &mut Binding, single: &SingleRowOutputs) -> Result<Compared<()>> {
        let sizes = sizes(self.batcher, self.most_rows(), single.row_time);
        for (at, &size) in sizes.iter().enumerate() {
            let mut fingerprints = OutputFingerprints::new();
            for first in (0..self.rows.len()).step_by(size) {
                if at >= 2 && single.since.elapsed() > BUDGET {
                    return Ok(Ok(()));
                }
                let orders = orders(size, first, self.rows.len());
                if let Err(result) = self.compare_batches(binding, single, &orders, &mut fingerprints)? {
                    return Ok(Err(result));
                }
            }
        }
        self.compare_other_sizes(binding, single, &sizes)
    }

    /// Runs one batch of each remaining size, twice: a model may mix rows at one size only.
    fn compare_other_sizes(
        &self,
        binding: &mut Binding,
        single: &SingleRowOutputs,
        checked: &[usize],
    ) -> Result<Compared<()>> {
        let mut others: Vec<usize> =
            (2..=self.most_rows()).map(|size| self.batcher.padded_rows(size)).collect();
        others.dedup();
        for size in others.into_iter().filter(|size| !checked.contains(size)) {
            if single.since.elapsed() > OTHER_SIZES_BUDGET || !is_short(size, single.row_time) {
                break;
            }
            let plain: Vec<usize> = (0..size).map(|place| place % self.rows.len()).collect();
            let reversed = plain.iter().rev().copied().collect();
            let compared =
                self.compare_batches(binding, single, &[plain, reversed], &mut OutputFingerprints::new())?;
            if compared.is_err() {
                return Ok(compared);
            }
        }
        Ok(Ok(()))
    }

    /// The most rows of a batch.
    fn most_rows(&self) -> usize {
        self.batcher.rows_per_slab(self.rows.row_bytes())
    }

    /// Runs each row alone.
    fn run_single_rows(&mut self, binding: &mut Binding) -> Result<Compared<SingleRowOutputs>> {
        let signature = self.model.signature();
        let mut found: Vec<Vec<Vec<u8>>> = vec![Vec::new(); signature.outputs.len()];
        let (mut row, begun) = (0, Instant::now());
        while row < self.rows.len() {
            for again in [false, true] {
                if let Err(failed) = self.execute(binding, &[row])? {
                    return Ok(Err(failed));
                }
                for (index, spec) in signature.outputs.iter().enumerate() {
                    let view = binding.output(index)?;
                    let Some(bytes) = output_bytes(&view).filter(|_| view.shape.dims().next() == Some(1))
                    else {
                        return Ok(Err(self.shape_differs(index, 1)));
                    };
                    if !again {
                        found[index].push(bytes.to_vec());
                    } else if found[index].last().is_some_and(|before| before != bytes) && self.exact {
                        let reason =
                            format!("output {:?} differs from run to run of the same row", spec.name);
                        return Ok(Err(BatchCheckResult::Unknown(reason)));
                    }
                }
            }
            row += 1;
            if begun.elapsed() > SLOW_ROW * 2 * row as u32 {
                self.rows.truncate(SLOW_MODEL_ROWS.max(row));
            }
        }
        let row_time = begun.elapsed() / (2 * row.max(1)) as u32;
        let outputs = signature.outputs.iter().zip(found);
        let outputs = outputs.map(|(spec, rows)| OutputRows::new(spec.datatype, rows)).collect();
        Ok(Ok(SingleRowOutputs { outputs, row_time, since: Instant::now() }))
    }

    /// Runs batches of one size. Each row keeps its place beside others.
    fn compare_batches(
        &self,
        binding: &mut Binding,
        single: &SingleRowOutputs,
        orders: &[Vec<usize>],
        fingerprints: &mut OutputFingerprints,
    ) -> Result<Compared<()>> {
        for (at, order) in orders.iter().enumerate() {
            // The first three orders change every place once.
            if at > 2 && single.since.elapsed() > BUDGET {
                break;
            }
            if let Err(failed) = self.execute(binding, order)? {
                return Ok(Err(failed));
            }
            if let Err(differs) = self.compare_rows(binding, single, order, fingerprints)? {
                return Ok(Err(differs));
            }
        }
        Ok(Ok(()))
    }

    fn compare_rows(
        &self,
        binding: &Binding,
        single: &SingleRowOutputs,
        order: &[usize],
        fingerprints: &mut OutputFingerprints,
    ) -> Result<Compared<()>> {
        for (index, single) in single.outputs.iter().enumerate() {
            let name = &self.model.signature().outputs[index].name;
            let view = binding.output(index)?;
            let Some(all) = output_bytes(&view).filter(|_| view.shape.rows() == order.len()) else {
                return Ok(Err(self.shape_differs(index, order.len())));
            };
            let each = all.len() / order.len();
            for (place, &row) in order.iter().enumerate() {
                let part = &all[place * each..][..each];
                if !single.is_close(row, part, self.model.device()) {
                    return Ok(Err(BatchCheckResult::Differ(format!(
                        "output {name:?} is not the same for rows together and for each row alone"
                    ))));
                }
                let print = fingerprint(part);
                if self.exact && *fingerprints.entry((index, place, row)).or_insert(print) != print {
                    return Ok(Err(BatchCheckResult::Differ(format!(
                        "output {name:?} of a row depends on the rows beside it in a batch"
                    ))));
                }
            }
        }
        Ok(Ok(()))
    }

    fn shape_differs(&self, output: usize, rows: usize) -> BatchCheckResult {
        let name = &self.model.signature().outputs[output].name;
        BatchCheckResult::Differ(format!("output {name:?} of {rows} rows does not have {rows} rows"))
    }

    /// Runs rows together. Synthetic rows may be wrong for the model even alone; then nothing is known.
    fn execute(&self, binding: &mut Binding, order: &[usize]) -> Result<Compared<()>> {
        let result = self.rows.fill(binding, order).and_then(|()| self.model.executable().execute(binding));
        let Err(error) = result else { return Ok(Ok(())) };
        if !concerns_inputs(&error) {
            return Err(error);
        }
        let rows = order.len();
        Ok(Err(match (rows, self.from_file) {
            (1, false) => {
                BatchCheckResult::Unknown(format!("its rows could not be compared ({error}); see {FILE}"))
            }
            (1, true) => {
                BatchCheckResult::Differ(format!("a row of {FILE} could not be run alone ({error})"))
            }
            (_, false) if self.after_file_rows => {
                BatchCheckResult::Unknown(format!("what was made up could not be run ({error})"))
            }
            _ => BatchCheckResult::Differ(format!(
                "{rows} rows together could not be run, so that batches cannot be checked ({error})"
            )),
        }))
    }
}

/// The sizes of batches to try, the most telling first: the two smallest, the largest, then those between.
fn sizes(batcher: &Batcher, max_rows: usize, row_time: Duration) -> Vec<usize> {
    let between = (0..usize::BITS).map(|bit| 1_usize << bit).take_while(|&size| size < max_rows);
    let all: Vec<usize> = [2, 3, max_rows].into_iter().chain(between).collect();
    let mut sizes = Vec::new();
    for size in all.into_iter().filter(|size| (2..=max_rows).contains(size)) {
        let padded = batcher.padded_rows(size);
        if !sizes.contains(&padded)
            && (is_short(padded, row_time) || sizes.len() < 2 && padded <= SLOW_MODEL_ROWS)
        {
            sizes.push(padded);
        }
    }
    if sizes.is_empty() && max_rows > 1 {
        sizes.push(batcher.padded_rows(2));
    }
    sizes
}

fn is_short(rows: usize, row_time: Duration) -> bool {
    row_time * u32::try_from(rows).unwrap_or(u32::MAX) <= MAX_BATCH_TIME
}

/// Which rows lie at the places of batches of a size: one after the other, then with those places changed whose number has a certain bit
/// or does not have it, and last the other way round. Of any two places, one changes beside the other.
fn orders(size: usize, first: usize, rows: usize) -> Vec<Vec<usize>> {
    let plain: Vec<usize> = (0..size).map(|place| (first + place) % rows).collect();
    let bits = (size - 1).checked_ilog2().unwrap_or(0);
    let mut orders = vec![plain.clone()];
    for bit in (0..=bits).filter(|&bit| size <= MAX_ALL_PATTERNS || bit == 0 || bit == bits) {
        for changed in [1, 0] {
            let shift = 1 + bit as usize % (rows - 1);
            let row = |(place, &row): (usize, &usize)| {
                if place >> bit & 1 == changed { (row + shift) % rows } else { row }
            };
            orders.push(plain.iter().enumerate().map(row).collect());
        }
    }
    orders.push(plain.into_iter().rev().collect());
    orders
}

fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn of_any_two_places_one_keeps_its_row_while_the_other_changes() {
        for (size, rows) in [(2, 2), (3, 2), (3, 16), (8, 3), (8, 16), (5, 4)] {
            let orders = orders(size, 0, rows);
            for (one, other) in (0..size).flat_map(|one| (0..size).map(move |other| (one, other))) {
                let tells =
                    |order: &Vec<usize>| order[one] == orders[0][one] && order[other] != orders[0][other];
                assert!(one == other || orders.iter().any(tells), "{size} {rows}: {one} beside {other}");
            }
            assert!(orders.iter().flatten().all(|&row| row < rows));
        }
    }
}
