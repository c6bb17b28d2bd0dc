//! Which outputs of a run have a NaN or an infinity: each element is looked at, because a trial counts every answer.

use headgate_core::tensor::DataType;
use headgate_core::trial::arm::{NonFiniteOutputs, OUTPUT_BITS};
use headgate_engine::RunResult;
use headgate_engine::runtime::TensorView;

/// The outputs with a NaN or an infinity.
pub(super) fn outputs(run: &RunResult) -> NonFiniteOutputs {
    let mut found = NonFiniteOutputs::default();
    for (index, spec) in run.model().signature().outputs.iter().enumerate() {
        let is_float =
            matches!(spec.datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64);
        // An output that cannot be read was not part of the response either.
        let Some(view) = is_float.then(|| run.output(index).ok()).flatten() else { continue };
        let Elements { nan, infinite } = elements(&view);
        let bit = 1 << index.min(OUTPUT_BITS - 1);
        found.nan |= if nan { bit } else { 0 };
        found.infinite |= if infinite { bit } else { 0 };
    }
    found
}

/// What the elements of an output are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Elements {
    nan: bool,
    infinite: bool,
}

fn elements(view: &TensorView<'_>) -> Elements {
    let found = match view.datatype {
        DataType::Fp32 => {
            view.elements::<f32>().map(|all| of(all, |value| value.is_nan(), |value| value.is_infinite()))
        }
        DataType::Fp64 => {
            view.elements::<f64>().map(|all| of(all, |value| value.is_nan(), |value| value.is_infinite()))
        }
        DataType::Fp16 => view.elements::<u16>().map(|all| bits(all, 0x7c00)),
        DataType::Bf16 => view.elements::<u16>().map(|all| bits(all, 0x7f80)),
        _ => None,
    };
    found.unwrap_or_default()
}

/// Without a branch for each element, so that the compiler looks at many together.
fn of<T>(all: &[T], is_nan: impl Fn(&T) -> bool, is_infinite: impl Fn(&T) -> bool) -> Elements {
    all.iter().fold(Elements::default(), |found, value| Elements {
        nan: found.nan | is_nan(value),
        infinite: found.infinite | is_infinite(value),
    })
}

/// Elements of 16 bits, of which `exponent` are those of the exponent.
fn bits(all: &[u16], exponent: u16) -> Elements {
    const SIGN: u16 = 0x8000;
    of(all, |value| value & !SIGN > exponent, |value| value & !SIGN == exponent)
}

#[cfg(test)]
mod tests {
    use headgate_core::tensor::Shape;
    use headgate_engine::runtime::Elements as Data;

    use super::*;

    #[test]
    fn each_type_of_number_has_its_nan_and_its_infinities() {
        let cases = [(1.0, (false, false)), (f32::NAN, (true, false)), (f32::NEG_INFINITY, (false, true))];
        for (value, expected) in cases {
            let of_singles = of(&[0.5, value], |v: &f32| v.is_nan(), |v| v.is_infinite());
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
            let Elements { nan, infinite } = bits(&[0, bits16], exponent);
            assert_eq!((nan, infinite), expected, "{bits16:04x}");
        }
    }

    #[test]
    fn other_types_have_neither() {
        let view = TensorView {
            datatype: DataType::Int32,
            shape: Shape::new(&[2]).unwrap(),
            data: Data::Bytes(&[0xff; 8]),
        };
        assert_eq!(elements(&view), Elements::default());
    }
}
