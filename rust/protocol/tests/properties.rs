//! Written outputs are read as the same inputs: JSON and binary, every datatype, every nesting. No bytes cause a panic.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use common::{Decoded, request};
use headgate_core::tensor::{DataType, ShapeRef};
use headgate_protocol::{OutputTensor, ResponseHead, StringTable, TensorData, response};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

const HEAD: ResponseHead<'static> =
    ResponseHead { id: None, model_name: "m", model_version: "1", template: None };

/// Writes one output and sends it back as the input of a request.
fn around(datatype: DataType, dims: &[i64], data: TensorData<'_>, binary: bool) -> Decoded {
    let output = OutputTensor {
        name: "Y",
        datatype,
        shape: ShapeRef::new(dims).unwrap(),
        data,
        binary,
        non_finite: headgate_core::spec::NonFinite::Error,
        template: None,
    };
    let mut out = Vec::new();
    let parts = response::write(&mut out, &HEAD, &[output]).unwrap();
    assert_eq!(parts.total_len, out.len());
    let (json, tail) = out.split_at(parts.json_len);
    let answer: Value = serde_json::from_slice(json).unwrap();
    let body = serde_json::json!({"inputs": answer["outputs"]}).to_string();
    let length = body.len().to_string();
    let mut decoded = request(&[body.as_bytes(), tail].concat(), Some(length.as_bytes())).unwrap();
    let (name, shape, decoded) = decoded.pop().unwrap();
    assert_eq!((name.as_str(), shape.as_slice()), ("Y", dims));
    decoded
}

macro_rules! round_trips {
    ($($name:ident $datatype:ident $data:ident $t:ty, $strategy:expr;)*) => {$(
        proptest! {
            #[test]
            fn $name(values in vec($strategy, 0..40), binary: bool) {
                let dims = [values.len() as i64];
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let want = Decoded::$data(values.clone());
                prop_assert_eq!(&around(DataType::$datatype, &dims, TensorData::$data(&values), binary), &want);
                prop_assert_eq!(&around(DataType::$datatype, &dims, TensorData::Raw(&bytes), binary), &want);
            }
        }
    )*};
}

round_trips! {
    bool_round_trips Bool Uint8 u8, 0..=1u8;
    uint8_round_trips Uint8 Uint8 u8, any::<u8>();
    uint16_round_trips Uint16 Uint16 u16, any::<u16>();
    uint32_round_trips Uint32 Uint32 u32, any::<u32>();
    uint64_round_trips Uint64 Uint64 u64, any::<u64>();
    int8_round_trips Int8 Int8 i8, any::<i8>();
    int16_round_trips Int16 Int16 i16, any::<i16>();
    int32_round_trips Int32 Int32 i32, any::<i32>();
    int64_round_trips Int64 Int64 i64, any::<i64>();
    fp64_round_trips Fp64 Fp64 f64, any::<f64>().prop_filter("finite", |value| value.is_finite());
}

proptest! {
    #[test]
    fn fp32_round_trips(values in vec(any::<f32>().prop_filter("finite", |value| value.is_finite()), 0..40), binary: bool) {
        let dims = [values.len() as i64];
        // serde_json stores numbers as doubles; the shortest form of a single survives that.
        prop_assert_eq!(around(DataType::Fp32, &dims, TensorData::Fp32(&values), binary), Decoded::Fp32(values));
    }

    #[test]
    fn half_precision_round_trips(values in vec(any::<u16>(), 0..40)) {
        let dims = [values.len() as i64];
        for datatype in [DataType::Fp16, DataType::Bf16] {
            prop_assert_eq!(
                around(datatype, &dims, TensorData::Uint16(&values), true),
                Decoded::Uint16(values.clone())
            );
            let exponent = if datatype == DataType::Fp16 { 0x7c00 } else { 0x7f80 };
            let finite: Vec<u16> = values.iter().copied().filter(|bits| bits & exponent != exponent).collect();
            let dims = [finite.len() as i64];
            prop_assert_eq!(
                around(datatype, &dims, TensorData::Uint16(&finite), false),
                Decoded::Uint16(finite)
            );
        }
    }

    #[test]
    fn strings_round_trip(values in vec(any::<String>(), 0..20), binary: bool) {
        let mut table = StringTable::default();
        values.iter().for_each(|value| table.push(value.as_bytes()));
        let want: Vec<Vec<u8>> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        let dims = [values.len() as i64];
        prop_assert_eq!(
            around(DataType::Bytes, &dims, TensorData::Strings(table.view()), binary),
            Decoded::Bytes(want)
        );
    }

    #[test]
    fn any_bytes_round_trip_as_binary(values in vec(vec(any::<u8>(), 0..20), 0..20)) {
        let mut table = StringTable::default();
        values.iter().for_each(|value| table.push(value));
        let dims = [values.len() as i64];
        prop_assert_eq!(around(DataType::Bytes, &dims, TensorData::Strings(table.view()), true), Decoded::Bytes(values));
    }

    #[test]
    fn nested_and_flat_lists_say_the_same(dims in vec(0..4i64, 0..5), spaces: bool, seed: i32) {
        let count: i64 = dims.iter().product();
        let values: Vec<i32> = (0..count as i32).map(|n| n.wrapping_mul(seed)).collect();
        let flat = serde_json::to_value(&values).unwrap();
        let (nested, rest) = nest(&dims, &values);
        prop_assert!(rest.is_empty());
        // A scalar has no list of its own shape, only the flat one.
        let forms = if dims.is_empty() { vec![flat] } else { vec![flat, nested] };
        for data in forms {
            let body = serde_json::json!({"inputs": [{"data": data, "shape": dims, "name": "X", "datatype": "INT32"}]});
            let body = if spaces { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
            let decoded = request(body.unwrap().as_bytes(), None).unwrap();
            prop_assert_eq!(decoded, [("X".to_owned(), dims.clone(), Decoded::Int32(values.clone()))]);
        }
    }

    #[test]
    fn a_good_request_cut_or_changed_anywhere_never_panics(at in 0..400usize, byte: u8, cut: bool) {
        let mut body = GOOD.as_bytes().to_vec();
        let at = at % body.len();
        if cut { body.truncate(at) } else { body[at] = byte }
        let _ = request(&body, None);
        let _ = request(&body, Some(at.to_string().as_bytes()));
    }
}

const GOOD: &str = concat!(
    r#"{"id":"a\u00e9","parameters":{"timeout":5,"x":"y"},"inputs":[{"name":"X","datatype":"FP32","shape":[2,2],"#,
    r#""data":[[1.5,-2e3],[0.1,123456789.123456789]]},{"shape":[2],"data":["a\n","\ud83d\ude00"],"name":"S","datatype":"BYTES"},"#,
    r#"{"name":"B","shape":[2],"datatype":"BOOL","data":[true,false]},{"name":"I","shape":[1],"datatype":"UINT64","data":[18446744073709551615]}],"#,
    r#""outputs":[{"name":"Y","parameters":{"binary_data":true}}]}"#
);

/// Nests values along dimensions. Returns the values that are left.
fn nest<'v>(dims: &[i64], values: &'v [i32]) -> (Value, &'v [i32]) {
    let Some((&length, inner)) = dims.split_first() else {
        return values
            .split_first()
            .map_or((Value::Null, values), |(value, rest)| (Value::from(*value), rest));
    };
    let mut rest = values;
    let mut list = Vec::new();
    for _ in 0..length {
        let (value, left) = nest(inner, rest);
        list.push(value);
        rest = left;
    }
    (Value::Array(list), rest)
}
