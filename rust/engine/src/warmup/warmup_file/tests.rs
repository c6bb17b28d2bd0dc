use headgate_core::tensor::DataType;

use super::*;

fn signature() -> Signature {
    let input = |name: &str, datatype| TensorSpec {
        name: name.into(),
        datatype,
        shape: vec![-1, 2],
        symbols: Vec::new(),
        any_rank: false,
        labels: Vec::new(),
    };
    Signature {
        inputs: vec![input("X", DataType::Fp32), input("S", DataType::Bytes)],
        optional_inputs: vec![TensorSpec { shape: vec![1], ..input("k", DataType::Int64) }],
        ..Signature::default()
    }
}

const GOOD: &str = r#"{"inputs": [
    {"name": "S", "datatype": "BYTES", "shape": [2, 2], "data": [["a", "b"], ["c", "d"]]},
    {"name": "X", "datatype": "FP32", "shape": [2, 2],
     "data": [1, 2, 3.5, 4]}]}"#;

#[test]
fn a_request_or_a_list_of_them_is_read_in_the_order_of_the_signature() {
    for (json, count) in [(GOOD.to_owned(), 1), (format!("[{GOOD},\n {GOOD}]"), 2)] {
        let requests = parse(json.as_bytes(), &signature()).unwrap();
        assert_eq!(requests.len(), count);
        let [
            InputElements { shape, elements: ElementBuffer::Numbers(bytes) },
            InputElements { elements: ElementBuffer::Strings(strings), .. },
        ] = &requests[0].inputs[..]
        else {
            unreachable!("numbers, then strings")
        };
        assert_eq!(shape.dims(), [2, 2]);
        assert_eq!(bytes[8..12], 3.5f32.to_ne_bytes());
        assert_eq!(strings[3], b"d");
        assert_eq!(requests.last().unwrap().line, 1 + 4 * (count - 1));
    }
}

#[test]
fn a_request_may_optional_input_muts_and_is_then_no_part_of_a_batch() {
    let k = r#", {"name": "k", "datatype": "INT64", "shape": [1], "data": [7]}]}"#;
    let with_k = GOOD.replace("]}]}", &format!("]}}{k}"));
    let requests = parse(format!("[{with_k}, {GOOD}]").as_bytes(), &signature()).unwrap();
    assert_eq!(requests.iter().map(WarmupRequest::is_plain).collect::<Vec<_>>(), [false, true]);
    let (at, InputElements { shape, .. }) = &requests[0].optional[0];
    assert_eq!((*at, shape.dims(), requests[0].inputs.len()), (0, &[1][..], 2));
    assert!(requests[0].rows().is_none());
    let wrong = with_k.replace("[1], \"data\": [7]", "[2], \"data\": [7, 8]");
    let error = parse(wrong.as_bytes(), &signature()).unwrap_err();
    assert!(error.message.contains("\"k\" has shape [2], and the model takes [1]"), "{error}");
    let only_k = format!("{{\"inputs\": [{}", &k[2..]);
    let error = parse(only_k.as_bytes(), &signature()).unwrap_err();
    assert!(error.message.contains("input \"X\" is missing"), "{error}");
}

#[test]
fn what_does_not_fit_is_named_with_its_line_and_field() {
    let x = "inputs[1]";
    for (from, to, says, place) in [
        ("\"X\"", "\"Z\"", "the model has no input \"Z\"", format!("line 3, {x}.name")),
        ("\"X\"", "\"S\"", "input \"S\" is there twice", format!("line 3, {x}.name")),
        ("\"X\"", "7", "invalid type", format!("line 3, {x}.name")),
        ("\"X\", ", "\"X\", \"name\": \"X\", ", "duplicate field `name`", format!("line 3, {x}")),
        ("\"FP32\"", "\"FP64\"", "\"X\" is FP64, and the model takes FP32", format!("line 3, {x}.datatype")),
        ("\"datatype\": \"FP32\", ", "", "missing field `datatype`", format!("line 4, {x}")),
        ("[2, 2],\n", "[2, 2.5],\n", "invalid type", format!("line 3, {x}.shape")),
        ("[2, 2],\n", "[1, 4],\n", "input \"X\" has shape [1, 4]", format!("line 3, {x}.shape")),
        ("3.5, 4]", "3.5]", "input \"X\" has 3 elements, and its shape 4", format!("line 4, {x}.data")),
        ("3.5, 4]", "3.5,\n\"x\"]", "input \"X\" is FP32, not \"x\"", format!("line 5, {x}.data[3]")),
        ("1, 2, ", "[1, {}],", "input \"X\" is FP32, not {}", format!("line 4, {x}.data[0][1]")),
        ("\"d\"", "4", "input \"S\" is BYTES, not 4", "line 2, inputs[0].data[1][1]".to_owned()),
        ("{\"inputs\"", "{\"input\"", "missing field `inputs`", "line 4".to_owned()),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let error = parse(text.as_bytes(), &signature()).unwrap_err();
        assert_eq!(error.code, Code::ModelLoadFailed);
        let expected = format!("({place})");
        assert!(error.message.starts_with("warmup.json: request 0: "), "{error}");
        assert!(error.message.contains(says) && error.message.ends_with(&expected), "{error}: {expected}");
    }
    let second = format!("[{GOOD},\n{}]", GOOD.replacen("3.5", "true", 1));
    let error = parse(second.as_bytes(), &signature()).unwrap_err();
    assert!(error.message.ends_with("(line 8, [1].inputs[1].data[2])"), "{error}");
    assert!(error.message.starts_with("warmup.json: request 1: "), "{error}");
}

#[test]
fn missing_values_are_read_in_both_words_of_answers() {
    let words = "null, \"NaN\", \"Infinity\", \"-Infinity\"";
    let text = GOOD.replacen("1, 2, 3.5, 4", words, 1);
    let requests = parse(text.as_bytes(), &signature()).unwrap();
    let ElementBuffer::Numbers(bytes) = &requests[0].inputs[0].elements else { unreachable!("numbers") };
    let numbers: Vec<f32> =
        bytes.chunks_exact(4).map(|four| f32::from_ne_bytes(four.try_into().unwrap())).collect();
    assert!(numbers[0].is_nan() && numbers[1].is_nan());
    assert_eq!(numbers[2..], [f32::INFINITY, f32::NEG_INFINITY]);
    for (from, to, says) in [("3.5", "\"nan\"", "FP32, not \"nan\""), ("\"d\"", "null", "BYTES, not null")] {
        let error = parse(GOOD.replacen(from, to, 1).as_bytes(), &signature()).unwrap_err();
        assert!(error.message.contains(says), "{error}");
    }
}

#[test]
fn what_is_no_list_of_requests_is_said_with_its_place() {
    let says = |json: &[u8]| parse(json, &signature()).unwrap_err().message.into_owned();
    assert!(says(b"[]").contains("has 0 requests"));
    assert!(says(b"\xff").contains("is no UTF-8 text"));
    assert!(says(b"\xef\xbb\xbf{}").contains("byte order mark"));
    for (text, place) in [("", "(line 1, column 0)"), ("[{},\n }", "(line 2, column 2)")] {
        let said = says(text.as_bytes());
        assert!(said.contains("must be a request or a list of them") && said.ends_with(place), "{said}");
    }
    let deep = GOOD.replacen("[1, 2", &format!("{}1{}, 2", "[".repeat(100), "]".repeat(99)), 1);
    assert!(says(deep.as_bytes()).contains("more than 64 lists in each other"));
}
