//! Which outputs of a run have a NaN or an infinity. A trial counts every answer, so that each is looked at.
//!
//! An IO thread looks at the beginning of very large outputs alone: others wait for it.

use headgate_core::tensor::DataType;
use headgate_core::trial::non_finite::{NonFiniteOutputs, OUTPUT_BITS};
use headgate_engine::RunResult;
use headgate_engine::runtime::TensorView;

/// The most bytes of one answer that an IO thread looks at, over all its outputs: less than a millisecond.
const ANSWER_BYTES: usize = 4 << 20;
/// What each output may have at least, if there are very many.
const OUTPUT_BYTES: usize = 64 << 10;

/// The outputs with a NaN or an infinity, for an IO thread.
pub(super) fn outputs(run: &RunResult) -> NonFiniteOutputs {
    let count = run.model().signature().outputs.len();
    up_to(run, (ANSWER_BYTES / count.max(1)).max(OUTPUT_BYTES))
}

/// The outputs with a NaN or an infinity. Takes long, because it looks at all elements.
pub fn whole_outputs(run: &RunResult) -> NonFiniteOutputs {
    up_to(run, usize::MAX)
}

/// Looks at `max_bytes` of each output.
fn up_to(run: &RunResult, max_bytes: usize) -> NonFiniteOutputs {
    let mut found = NonFiniteOutputs::default();
    for (index, spec) in run.model().signature().outputs.iter().enumerate() {
        let is_float =
            matches!(spec.datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64);
        // An output that cannot be read was not part of the response either.
        let Some(view) = is_float.then(|| run.output(index).ok()).flatten() else { continue };
        let Elements { nan, infinite, is_partial } = elements(&view, max_bytes);
        let bit = 1 << index.min(OUTPUT_BITS - 1);
        found.nan |= if nan { bit } else { 0 };
        found.infinite |= if infinite { bit } else { 0 };
        found.is_partial |= is_partial;
    }
    found
}

/// What the elements of an output are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Elements {
    nan: bool,
    infinite: bool,
    /// Whether there are elements that were not looked at.
    is_partial: bool,
}

fn elements(view: &TensorView<'_>, max_bytes: usize) -> Elements {
    let found = match view.datatype {
        DataType::Fp32 => view
            .elements::<f32>()
            .map(|all| of(all, max_bytes, |value| value.is_nan(), |value| value.is_infinite())),
        DataType::Fp64 => view
            .elements::<f64>()
            .map(|all| of(all, max_bytes, |value| value.is_nan(), |value| value.is_infinite())),
        DataType::Fp16 => view.elements::<u16>().map(|all| bits(all, max_bytes, 0x7c00)),
        DataType::Bf16 => view.elements::<u16>().map(|all| bits(all, max_bytes, 0x7f80)),
        _ => None,
    };
    found.unwrap_or_default()
}

/// Without a branch for each element, so that the compiler looks at many together.
fn of<T>(
    all: &[T],
    max_bytes: usize,
    is_nan: impl Fn(&T) -> bool,
    is_infinite: impl Fn(&T) -> bool,
) -> Elements {
    let first = &all[..all.len().min(max_bytes / size_of::<T>())];
    let (nan, infinite) = first
        .iter()
        .fold((false, false), |(nan, infinite), value| (nan | is_nan(value), infinite | is_infinite(value)));
    Elements { nan, infinite, is_partial: first.len() < all.len() }
}

/// Elements of 16 bits, of which `exponent` are those of the exponent.
fn bits(all: &[u16], max_bytes: usize, exponent: u16) -> Elements {
    const SIGN: u16 = 0x8000;
    of(all, max_bytes, |value| value & !SIGN > exponent, |value| value & !SIGN == exponent)
}

#[cfg(test)]
mod tests {
    use headgate_core::tensor::ShapeRef;
    use headgate_engine::runtime::Elements as Data;

    use super::*;

    #[test]
    fn each_type_of_number_has_its_nan_and_its_infinities() {
        let cases = [(1.0, (false, false)), (f32::NAN, (true, false)), (f32::NEG_INFINITY, (false, true))];
        for (value, expected) in cases {
            let of_singles = of(&[0.5, value], 8, |v: &f32| v.is_nan(), |v| v.is_infinite());
            assert_eq!((of_singles.nan, of_singles.infinite), expected);
        }
        for (bits16, exponent, expected) in [
            (0x3c00, 0x7c00, (false, false)),
            (0x7e00, 0x7c00, (true, false)),
            (0xfc00, 0x7c00, (false, true)),
            (0xfc01, 0x7c00, (true, false)),
            (0x3f80, 0x7f80, (false, false)),
            (0x7fc0, 0x7f80, (true, false)),
            (0xff80, 0x7f80, (false, true)),
        ] {
            let Elements { nan, infinite, .. } = bits(&[0, bits16], 4, exponent);
            assert_eq!((nan, infinite), expected, "{bits16:04x}");
        }
    }

    #[test]
    fn elements_beyond_the_bound_are_not_looked_at() {
        let all = [1.0, f64::NAN, f64::INFINITY];
        let up_to = |bytes| of(&all, bytes, |v| v.is_nan(), |v| v.is_infinite());
        assert_eq!(up_to(15), Elements { is_partial: true, ..Elements::default() });
        assert_eq!(up_to(16), Elements { nan: true, infinite: false, is_partial: true });
        assert_eq!(up_to(24), Elements { nan: true, infinite: true, is_partial: false });
    }

    #[test]
    fn other_types_have_neither() {
        let view = TensorView {
            datatype: DataType::Int32,
            shape: ShapeRef::new(&[2]).unwrap(),
            data: Data::Bytes(&[0xff; 8]),
        };
        assert_eq!(elements(&view, 4), Elements::default());
    }
}
