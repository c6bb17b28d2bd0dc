//! The bins of the values in one row of an answer.
//!
//! A batch may have many alike rows, which say no more than one.

use headgate_core::tensor::DataType;
use headgate_core::trial::outputs::{OutputBins, VersionOutputs};
use headgate_engine::runtime::TensorView;
use headgate_sketch::sampler::splitmix64;
use headgate_sketch::typed_slice::TypedSlice;

/// The bins of an answer, of which `output` gives an output by its number, in the row that `row_of` chooses from so many. Values that
/// cannot be read were not part of the response either.
pub fn bins<'a>(
    outputs: &VersionOutputs,
    row_of: impl Fn(usize) -> usize,
    output: impl Fn(usize) -> Option<TensorView<'a>>,
) -> OutputBins {
    let mut bins = OutputBins::default();
    let features = outputs.watched.features().iter().zip(&outputs.places);
    for (number, (feature, place)) in features.enumerate() {
        let Some((place, view)) = place.and_then(|place| Some((place, output(place.output)?))) else {
            continue;
        };
        let row = row_of(view.shape.rows());
        if let Some(value) = elements(&view).and_then(|all| all.value(row * place.width + place.element)) {
            bins.set(number, feature.bin_of(value));
        }
    }
    bins
}

/// The row of a request, by its hash: every row with the same probability, and for every version the same one.
pub fn row_of_request(request_hash: u64, rows: usize) -> usize {
    // Row samples of sketches take the hash itself; this one is independent of them.
    ((u128::from(splitmix64(!request_hash)) * rows as u128) >> 64) as usize
}

/// The elements of a tensor of fixed size; `None` for strings.
pub fn elements<'a>(view: &TensorView<'a>) -> Option<TypedSlice<'a>> {
    match view.datatype {
        DataType::Bool | DataType::Uint8 => view.elements().map(TypedSlice::U8),
        DataType::Uint16 => view.elements().map(TypedSlice::U16),
        DataType::Uint32 => view.elements().map(TypedSlice::U32),
        DataType::Uint64 => view.elements().map(TypedSlice::U64),
        DataType::Int8 => view.elements().map(TypedSlice::I8),
        DataType::Int16 => view.elements().map(TypedSlice::I16),
        DataType::Int32 => view.elements().map(TypedSlice::I32),
        DataType::Int64 => view.elements().map(TypedSlice::I64),
        DataType::Fp16 => view.elements().map(TypedSlice::F16),
        DataType::Bf16 => view.elements().map(TypedSlice::Bf16),
        DataType::Fp32 => view.elements().map(TypedSlice::F32),
        DataType::Fp64 => view.elements().map(TypedSlice::F64),
        DataType::Bytes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_chosen_as_often() {
        let mut counts = [0u32; 5];
        (0..5_000).for_each(|request| counts[row_of_request(request, 5)] += 1);
        // 1 000 expected; 0.1 % of all hashes are beyond 120 of it.
        assert!(counts.iter().all(|count| count.abs_diff(1_000) < 120), "{counts:?}");
        assert_eq!((row_of_request(7, 1), row_of_request(7, 0)), (0, 0));
    }
}
