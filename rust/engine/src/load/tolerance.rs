//! How far the outputs of a row may differ between batches, because rounding depends on the order of additions.

use headgate_core::spec::Device;
use headgate_core::tensor::DataType;
use headgate_runtime::TensorView;

/// How far an element may be off, as shares of the largest element in its row and in its column.
///
/// Rounding errors grow with the numbers that a row is computed from. The column covers sums that cancel out in one row.
#[derive(Clone, Copy)]
struct Tolerance {
    row: f64,
    column: f64,
}

impl Tolerance {
    /// On a device, kernels differ with the number of rows and multiply with ten bits (TF32).
    fn of(datatype: DataType, device: Device) -> Tolerance {
        match (device, datatype) {
            (Device::Cpu, DataType::Fp16) => Tolerance { row: 5e-3, column: 2e-3 },
            (Device::Cpu, DataType::Bf16) => Tolerance { row: 2e-2, column: 8e-3 },
            (Device::Cpu, _) => Tolerance { row: 1e-4, column: 1e-5 },
            (Device::Cuda(_), DataType::Fp16 | DataType::Bf16) => Tolerance { row: 2e-2, column: 0.0 },
            (Device::Cuda(_), _) => Tolerance { row: 5e-3, column: 0.0 },
        }
    }
}

/// One output of several rows, each run alone.
pub(crate) struct OutputRows {
    datatype: DataType,
    /// The bytes of each row.
    pub(crate) rows: Vec<Vec<u8>>,
    /// The largest magnitude in each column, if the rows have the same number of fractions.
    columns: Vec<f64>,
}

impl OutputRows {
    /// One output of these rows.
    pub(crate) fn new(datatype: DataType, rows: Vec<Vec<u8>>) -> OutputRows {
        let mut columns: Vec<f64> = Vec::new();
        for row in rows.iter().filter_map(|row| fractions(datatype, row)) {
            columns.resize(columns.len().max(row.len()), 0.0);
            columns
                .iter_mut()
                .zip(row)
                .for_each(|(largest, number)| *largest = largest.max(magnitude(number)));
        }
        OutputRows { datatype, rows, columns }
    }

    /// Whether it differs from row to row.
    pub(crate) fn varies(&self) -> bool {
        self.rows.windows(2).any(|pair| pair[0] != pair[1])
    }

    /// Whether a row is the same in a batch, apart from rounding. Whole numbers are not rounded.
    pub(crate) fn is_close(&self, row: usize, together: &[u8], device: Device) -> bool {
        let single = &self.rows[row];
        let both = fractions(self.datatype, single).zip(fractions(self.datatype, together));
        let Some((single, together)) = both else { return *single == *together };
        let tolerance = Tolerance::of(self.datatype, device);
        let largest = single.iter().copied().map(magnitude).fold(0.0, f64::max);
        let near = |((a, b), column): ((&f64, &f64), &f64)| {
            let allowed = (tolerance.row * largest).max(tolerance.column * column);
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed
        };
        single.len() == together.len() && single.iter().zip(&together).zip(&self.columns).all(near)
    }
}

/// The bytes of an output; `None` for strings.
pub(crate) fn output_bytes<'a>(view: &TensorView<'a>) -> Option<&'a [u8]> {
    match view.data {
        headgate_runtime::Elements::Bytes(bytes) => Some(bytes),
        headgate_runtime::Elements::Strings { .. } => None,
    }
}

fn magnitude(number: f64) -> f64 {
    if number.is_finite() { number.abs() } else { 0.0 }
}

/// The elements of a tensor of fractions; `None` for other types.
fn fractions(datatype: DataType, bytes: &[u8]) -> Option<Vec<f64>> {
    let halves = |read: fn(u16) -> f64| {
        let each = bytes.chunks_exact(2).map(move |two| read(u16::from_ne_bytes([two[0], two[1]])));
        Some(each.collect())
    };
    match datatype {
        DataType::Fp16 => halves(|bits| half::f16::from_bits(bits).to_f64()),
        DataType::Bf16 => halves(|bits| half::bf16::from_bits(bits).to_f64()),
        DataType::Fp32 => {
            let (each, _) = bytes.as_chunks::<4>();
            Some(each.iter().map(|four| f64::from(f32::from_ne_bytes(*four))).collect())
        }
        DataType::Fp64 => {
            let (each, _) = bytes.as_chunks::<8>();
            Some(each.iter().map(|eight| f64::from_ne_bytes(*eight)).collect())
        }
        _ => None,
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn singles(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    #[test]
    fn rows_may_differ_by_what_rounding_does_where_they_run() {
        let cuda = Device::Cuda(0);
        let alone = OutputRows::new(DataType::Fp32, vec![singles(&[100.0, 1.0])]);
        for (other, cpu, device) in [
            ([100.0, 1.0], true, true),
            ([100.001, 1.0], true, true),
            ([100.1, 1.0], false, true),
            // Beside large elements, small ones are off by as much.
            ([100.0, 1.3], false, true),
            ([101.0, 1.0], false, false),
            ([f32::NAN, 1.0], false, false),
        ] {
            let other = singles(&other);
            let near = |device| alone.is_close(0, &other, device);
            assert_eq!((near(Device::Cpu), near(cuda)), (cpu, device), "{other:?}");
        }
        assert!(!alone.is_close(0, &singles(&[100.0]), Device::Cpu), "another size");
        let half = |value: f32| half::f16::from_f32(value).to_ne_bytes().to_vec();
        let alone = OutputRows::new(DataType::Fp16, vec![half(1.0)]);
        let near = |value: f32, device| alone.is_close(0, &half(value), device);
        assert!(near(1.0, Device::Cpu) && !near(1.01, Device::Cpu));
        assert!(near(1.01, cuda) && !near(1.1, cuda));
        let whole = OutputRows::new(DataType::Int64, vec![1_i64.to_ne_bytes().to_vec()]);
        assert!(!whole.is_close(0, &2_i64.to_ne_bytes(), cuda));
    }

    #[test]
    fn a_row_whose_sum_cancels_out_may_be_off_by_what_others_in_its_column_are_made_of() {
        let alone = OutputRows::new(DataType::Fp32, vec![singles(&[1e-4]), singles(&[50.0])]);
        assert!(alone.is_close(0, &singles(&[1.1e-4]), Device::Cpu));
        assert!(!alone.is_close(0, &singles(&[1e-2]), Device::Cpu));
        assert!(alone.varies() && !OutputRows::new(DataType::Fp32, vec![singles(&[1.0]); 3]).varies());
    }
}
