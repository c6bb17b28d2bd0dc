//! The bins of the values in one row of an answer.
//!
//! A batch may have many alike rows, which say no more than one. Which row it is depends on the request alone, so that it is chosen in
//! the same way for every version.

use headgate_core::trial::outputs::{OutputBins, VersionOutputs};
use headgate_engine::RunResult;
use headgate_sketch::sampler::splitmix64;

use crate::after::sketching;

/// The bins of an answer's outputs. Values that cannot be read were not part of the response either.
pub(super) fn bins(run: &RunResult, outputs: &VersionOutputs, request_hash: u64) -> OutputBins {
    let mut bins = OutputBins::default();
    let features = outputs.watched.features().iter().zip(&outputs.places);
    for (number, (feature, place)) in features.enumerate() {
        let Some(place) = place else { continue };
        let Ok(view) = run.output(place.output) else { continue };
        let row = row_of(request_hash, view.shape.rows());
        let elements = sketching::elements(&view);
        if let Some(value) = elements.and_then(|all| all.value(row * place.width + place.element)) {
            bins.set(number, feature.bin_of(value));
        }
    }
    bins
}

/// The row of a request.
fn row_of(request_hash: u64, rows: usize) -> usize {
    // Row samples of sketches take the hash itself; this one is independent of them.
    ((u128::from(splitmix64(!request_hash)) * rows as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_chosen_as_often() {
        let mut counts = [0u32; 5];
        (0..5_000).for_each(|request| counts[row_of(request, 5)] += 1);
        // 1 000 expected; 0.1 % of all hashes are beyond 120 of it.
        assert!(counts.iter().all(|count| count.abs_diff(1_000) < 120), "{counts:?}");
        assert_eq!((row_of(7, 1), row_of(7, 0)), (0, 0));
    }
}
