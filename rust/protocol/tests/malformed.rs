//! Malformed requests: each is refused with the right code and the right message, and none panics.

mod common;

use common::request;
use headgate_core::error::Code::{self, InvalidArgument, Unsupported};

/// A request around one input's members.
fn input(members: &str) -> String {
    format!(r#"{{"inputs":[{{{members}}}]}}"#)
}

/// A request of one input X with a datatype, a shape and JSON data.
fn x(datatype: &str, shape: &str, data: &str) -> String {
    input(&format!(r#""name":"X","datatype":"{datatype}","shape":{shape},"data":{data}"#))
}

fn check(cases: &[(String, Code, &str)]) {
    for (body, code, fragment) in cases {
        let error = request(body.as_bytes(), None).expect_err(body);
        assert_eq!(error.code, *code, "{body}\n{error}");
        assert!(error.message.contains(fragment), "{body}\nwanted: {fragment}\ngot:    {error}");
    }
}

fn invalid(body: impl Into<String>, fragment: &'static str) -> (String, Code, &'static str) {
    (body.into(), InvalidArgument, fragment)
}

#[test]
fn what_is_not_a_request() {
    check(&[
        invalid("", "the request must be an object, not nothing"),
        invalid("   ", "must be an object, not nothing"),
        invalid("[]", "must be an object, not a list"),
        invalid("null", "must be an object, not null"),
        invalid("\"a\"", "must be an object, not a string"),
        invalid("x", "not something that is not JSON"),
        invalid("{", "a key in double quotes should stand, not the end"),
        invalid("{}", "has no \"inputs\""),
        invalid("{\"id\"}", "a colon should stand, not `}`"),
        invalid("{id:1}", "a key in double quotes"),
        invalid("{\"inputs\":[],}", "a key in double quotes"),
        invalid("{\"inputs\":[] \"id\":\"a\"}", "a comma or the end of the object"),
        invalid("{\"inputs\":[]", "a comma or the end of the object should stand, not the end"),
        invalid("{\"inputs\":[]} x", "1 bytes follow the JSON at byte 14"),
        invalid("{\"inputs\":[]}{\"inputs\":[]}", "13 bytes follow the JSON at byte 13"),
        invalid("{\"inputs\":{}}", "\"inputs\" must be a list, not an object"),
        invalid("{\"inputs\":null}", "has no \"inputs\"; it needs a list"),
        invalid("{\"inputs\":[1]}", "inputs[0] must be an object, not a number"),
        invalid("{\"inputs\":[],\"inputs\":[]}", "the request has \"inputs\" twice"),
        invalid("{\"inputs\":[],\"id\":7}", "\"id\" must be a string, not a number"),
        invalid("{\"id\":\"a\",\"id\":\"b\",\"inputs\":[]}", "has \"id\" twice"),
        invalid("{\"inputs\":[],\"id\":\"\\q\"}", "escape that JSON does not know"),
        invalid("{\"inputs\":[],\"id\":\"\\ud800\"}", "surrogate"),
        invalid("{\"inputs\":[],\"id\":\"a\u{1}\"}", "control characters"),
        invalid("{\"inputs\":[],\"id\":\"a", "the end of a string"),
        invalid("{\"inputs\":[],\"later\":tru}", "true, false or null"),
        invalid("{\"inputs\":[],\"later\":01}", "a comma or the end"),
        invalid("{\"inputs\":[],\"later\":1.}", "a digit"),
        invalid(format!("{{\"inputs\":[],\"later\":{}}}", "[".repeat(100)), "nested too deep"),
    ]);
}

#[test]
fn bytes_that_are_not_utf8() {
    for body in [
        &b"{\"inputs\":[],\"id\":\"\xff\"}"[..],
        b"{\"inputs\":[],\"\xc3\":1}",
        b"{\"inputs\":[{\"name\":\"\xed\xa0\x80\"}]}",
    ] {
        let error = request(body, None).unwrap_err();
        assert!(error.message.contains("not UTF-8"), "{error}");
    }
    let body = b"{\"inputs\":[{\"name\":\"X\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"\xff\"]}]}";
    assert!(request(body, None).unwrap_err().message.contains("not UTF-8"));
}

#[test]
fn parameters_and_outputs() {
    let parameters = |text: &str| format!(r#"{{"parameters":{text},"inputs":[]}}"#);
    let outputs = |text: &str| format!(r#"{{"inputs":[],"outputs":{text}}}"#);
    check(&[
        invalid(parameters("[]"), "\"parameters\" must be an object, not a list"),
        invalid(
            parameters(r#"{"a":[]}"#),
            "parameter \"a\" must be a string, a number or true or false, not a list",
        ),
        invalid(parameters(r#"{"a":{}}"#), "not an object"),
        invalid(parameters(r#"{"a":[1]}"#), "not a list"),
        invalid(parameters(r#"{"a":1,"a":2}"#), "parameter \"a\" is given twice"),
        invalid(parameters(r#"{"a":1e999}"#), "no finite number"),
        invalid(parameters(r#"{"triton_x":1}"#), "begin with triton_ are reserved"),
        (parameters(r#"{"sequence_id":1}"#), Unsupported, "sequences are not supported"),
        (parameters(r#"{"sequence_start":true}"#), Unsupported, "sequences are not supported"),
        invalid(parameters(r#"{"timeout":-1}"#), "parameter \"timeout\" must be a whole number from 0"),
        invalid(parameters(r#"{"timeout":"1"}"#), "parameter \"timeout\" must be a number, not a string"),
        invalid(parameters(r#"{"priority":1.5}"#), "parameter \"priority\" must be a whole number"),
        invalid(parameters(r#"{"binary_data_output":1}"#), "must be true or false, not a number"),
        invalid(parameters(r#"{"binary_data_output":true,"binary_data_output":true}"#), "given twice"),
        invalid(r#"{"parameters":{},"parameters":{},"inputs":[]}"#, "has \"parameters\" twice"),
        invalid(outputs("{}"), "\"outputs\" must be a list"),
        invalid(outputs("[\"Y\"]"), "outputs[0] must be an object, not a string"),
        invalid(outputs("[{}]"), "outputs[0] has no \"name\""),
        invalid(outputs(r#"[{"name":""}]"#), "outputs[0] has no \"name\""),
        invalid(outputs(r#"[{"name":1}]"#), "outputs[0]: \"name\" must be a string"),
        invalid(outputs(r#"[{"name":"Y"},{"name":"Y"}]"#), "\"outputs\" has \"Y\" twice"),
        invalid(outputs(r#"[{"name":"Y","name":"Z"}]"#), "outputs[0] has \"name\" twice"),
        invalid(
            outputs(r#"[{"name":"Y","parameters":{"binary_data":1}}]"#),
            "output \"Y\": \"binary_data\" must be true or false",
        ),
        invalid(
            outputs(r#"[{"name":"Y","parameters":{"binary_data":true,"binary_data":true}}]"#),
            "\"binary_data\" twice",
        ),
        invalid(
            outputs(r#"[{"name":"Y","parameters":1}]"#),
            "output \"Y\": \"parameters\" must be an object",
        ),
        (
            outputs(r#"[{"name":"Y","parameters":{"classification":0}}]"#),
            InvalidArgument,
            "output \"Y\": \"classification\" must be a whole number above 0",
        ),
        (
            outputs(r#"[{"name":"Y","parameters":{"shared_memory_region":"r"}}]"#),
            Unsupported,
            "shared memory",
        ),
        invalid(outputs(r#"[{"name":"Z"}]"#), "output \"Z\" does not exist; the model gives \"Y\", \"L\""),
        invalid(
            format!(r#"{{"inputs":[],"outputs":[{}]}}"#, numbered("{}")),
            "\"outputs\" has more than 1024 entries",
        ),
    ]);
}

/// More named entries than a list may have.
fn numbered(rest: &str) -> String {
    let entries: Vec<String> =
        (0..1025).map(|n| format!(r#"{{"name":"n{n}","parameters":{rest}}}"#)).collect();
    entries.join(",")
}

#[test]
fn inputs_that_are_incomplete_or_contradict_themselves() {
    check(&[
        invalid(input(""), "inputs[0] has no \"name\""),
        invalid(input(r#""name":"""#), "inputs[0] has no \"name\""),
        invalid(input(r#""name":1"#), "inputs[0]: \"name\" must be a string, not a number"),
        invalid(input(r#""name":"X""#), "input \"X\" has no \"datatype\""),
        invalid(input(r#""name":"X","datatype":"FP32""#), "input \"X\" has no \"shape\""),
        invalid(input(r#""name":"X","datatype":"FP32","shape":[1]"#), "input \"X\" has neither \"data\" nor"),
        invalid(input(r#""name":"X","name":"Y""#), "twice"),
        invalid(input(r#""name":"X","shape":[1],"shape":[1]"#), "input \"X\" has \"shape\" twice"),
        invalid(input(r#""name":"X","data":[1],"data":[1]"#), "input \"X\" has \"data\" twice"),
        invalid(
            input(r#""name":"X","datatype":"FP32","datatype":"FP32""#),
            "input \"X\" has \"datatype\" twice",
        ),
        invalid(input(r#""parameters":{},"parameters":{}"#), "inputs[0] has \"parameters\" twice"),
        invalid(input(r#""name":"X","parameters":{"a":[]}"#), "input \"X\": parameter \"a\" must be"),
        invalid(x("STRING", "[1]", "[1]"), "input \"X\": datatype \"STRING\" is not one of BOOL, UINT8,"),
        invalid(x("fp32", "[1]", "[1]"), "datatype \"fp32\" is not one of"),
        invalid(input(r#""name":"X","datatype":1"#), "input \"X\": \"datatype\" must be a string"),
        invalid(x("FP32", "1", "[1]"), "input \"X\": \"shape\" must be a list, not a number"),
        invalid(x("FP32", "[\"1\"]", "[1]"), "\"shape\"[0] must be a number, not a string"),
        invalid(x("FP32", "[1.0]", "[1]"), "\"shape\"[0] is 1.0; a dimension is a whole number"),
        invalid(x("FP32", "[1e2]", "[1]"), "\"shape\"[0] is 1e2"),
        invalid(x("FP32", "[99999999999999999999]", "[1]"), "a dimension is a whole number"),
        invalid(x("FP32", "[-1]", "[1]"), "input \"X\": \"shape\": shape [-1] has the negative dimension -1"),
        invalid(x("FP32", "[4294967296,4294967296]", "[1]"), "too many elements"),
        invalid(x("FP32", &format!("[{}1]", "1,".repeat(16)), "[1]"), "more than 16 dimensions"),
        invalid(x("FP32", "[1,]", "[1]"), "must be a number"),
        invalid(x("FP32", "[1", "[1]"), "must be a number"),
        invalid(x("FP32", "[1]", "1"), "input \"X\": \"data\" must be a list for shape [1]"),
        invalid(x("FP32", "[1]", "\"1\""), "\"data\" must be a list for shape [1]"),
        invalid(x("FP32", "[1]", "null"), "input \"X\" has neither \"data\" nor the parameter"),
        invalid(r#"{"inputs":[{"name":"X","data":[1"#, "input \"X\": \"data\" has no end"),
        invalid(x("FP32", "[1]", &"[".repeat(40)), "input \"X\": \"data\" is nested too deep"),
        invalid(x("FP16", "[1]", "[65520]"), "input \"X\": element 0 is 65520"),
        invalid(x("BF16", "[1]", "[4e38]"), "input \"X\": element 0 is 4e38"),
        invalid(x("FP16", "[1]", "[NaN]"), "element 0 is NaN: JSON has no NaN or Infinity"),
        invalid(
            x("FP32", "[1,64]", &format!("[{}1]", "1,".repeat(62))),
            "shape [1, 64] needs 64 elements, data has 63",
        ),
        invalid(x("FP64", "[1000000000]", "[1]"), "needs 1000000000 elements, data has 1"),
        invalid(
            format!(r#"{{"inputs":[{0},{0}]}}"#, r#"{"name":"X","datatype":"INT8","shape":[0],"data":[]}"#),
            "\"inputs\" has \"X\" twice",
        ),
        (
            input(r#""name":"X","parameters":{"shared_memory_region":"r"}"#),
            Unsupported,
            "input \"X\": shared memory",
        ),
    ]);
}

#[test]
fn elements_that_the_datatype_does_not_take() {
    check(&[
        invalid(
            x("UINT8", "[2]", "[1,300]"),
            "input \"X\": element 1 is 300, outside the range of UINT8, 0 to 255",
        ),
        invalid(x("UINT8", "[1]", "[-1]"), "element 0 is -1, outside the range of UINT8"),
        invalid(x("INT8", "[1]", "[128]"), "-128 to 127"),
        invalid(x("INT8", "[1]", "[-129]"), "element 0 is -129"),
        invalid(x("INT64", "[1]", "[9223372036854775808]"), "outside the range of INT64"),
        invalid(
            x("UINT64", "[1]", "[18446744073709551616]"),
            "outside the range of UINT64, 0 to 18446744073709551615",
        ),
        invalid(x("UINT64", "[1]", "[100000000000000000000000000]"), "outside the range of UINT64"),
        invalid(
            x("INT32", "[2]", "[1,1.0]"),
            "element 1 is 1.0, INT32 wants whole numbers without fraction or exponent",
        ),
        invalid(x("INT32", "[1]", "[1e3]"), "element 0 is 1e3, INT32 wants whole numbers"),
        invalid(x("INT32", "[1]", "[007]"), "element 0 is 007: JSON has no zeros in front"),
        invalid(x("INT32", "[1]", "[true]"), "element 0 is true, INT32 wants"),
        invalid(x("INT32", "[1]", "[-]"), "element 0 is -"),
        invalid(x("BOOL", "[1]", "[1]"), "element 0 is 1, BOOL wants true or false"),
        invalid(x("BOOL", "[1]", "[tru]"), "element 0 is tru, BOOL wants"),
        invalid(x("BOOL", "[1]", "[truest]"), "a comma or the end of the list"),
        invalid(x("FP32", "[1]", "[NaN]"), "element 0 is NaN: JSON has no NaN or Infinity"),
        invalid(x("FP64", "[2]", "[1,-Infinity]"), "element 1 is -Infinity: JSON has no NaN or Infinity"),
        invalid(x("FP32", "[1]", "[1e39]"), "element 0 is 1e39, more than FP32 can hold"),
        invalid(x("FP64", "[1]", "[-1e309]"), "element 0 is -1e309, more than FP64 can hold"),
        invalid(x("FP32", "[1]", "[1.]"), "a digit should stand"),
        invalid(x("FP32", "[1]", "[1e]"), "a digit should stand"),
        invalid(x("FP32", "[1]", "[.5]"), "element 0 is .5, FP32 wants numbers"),
        invalid(x("FP32", "[1]", "[+1]"), "element 0 is +1"),
        invalid(x("FP32", "[1]", "[01.5]"), "zeros in front"),
        invalid(x("FP32", "[1]", "[\"1\"]"), "element 0 is \"1\", FP32 wants numbers"),
        invalid(x("FP32", "[1]", "[null]"), "element 0 is null"),
        invalid(x("FP32", "[1]", "[0x10]"), "a comma or the end of the list"),
        invalid(x("FP32", "[1]", "[1 2]"), "a comma or the end of the list should stand, not `2`"),
        invalid(x("FP32", "[2]", "[1,,2]"), "element 1 is missing"),
        invalid(x("FP32", "[2]", "[1,2,]"), "an element should stand, not `]`"),
        invalid(x("FP32", "[2]", "[1,2,3]"), "shape [2] needs 2 elements, data has 3"),
        invalid(x("FP32", "[1]", "[{}]"), "element 0 is {, FP32 wants numbers"),
        invalid(x("BYTES", "[1]", "[1]"), "element 0 is 1, BYTES wants strings"),
        invalid(x("BYTES", "[2]", "[\"a\"      ]"), "shape [2] needs 2 elements, data has 1"),
        invalid(x("BYTES", "[1]", "[\"a\",\"b\"]"), "shape [1] needs 1 elements, data has 2"),
        invalid(x("BYTES", "[1]", "[\"\\ud800\"]"), "surrogate"),
    ]);
}

#[test]
fn nesting_that_contradicts_the_shape() {
    check(&[
        invalid(x("FP32", "[2,3]", "[[1,2],[3,4],[5,6]]"), "not nested as shape [2, 3] is"),
        invalid(x("FP32", "[2,2]", "[[1,2,3],[4]]"), "not nested as shape [2, 2] is"),
        invalid(x("FP32", "[2,2]", "[[1,2],3,4]"), "not nested as shape [2, 2] is"),
        invalid(x("FP32", "[2,2]", "[1,2,[3,4]]"), "not nested as shape [2, 2] is"),
        invalid(x("FP32", "[4]", "[[1,2,3,4]]"), "not nested as shape [4] is"),
        invalid(x("FP32", "[]", "[[5]]"), "not nested as shape [] is"),
        invalid(x("FP32", "[2,1,2]", "[[1,2],[3,4]]"), "not nested as shape [2, 1, 2] is"),
        invalid(x("FP32", "[2,2]", "[[1,2],[3,4],[5,6]]"), "shape [2, 2] needs 4 elements, data has 6"),
        invalid(x("FP32", "[2,2]", "[[1,2],[3]    ]"), "shape [2, 2] needs 4 elements, data has 3"),
        invalid(x("FP32", "[2,0]", "[[]]"), "not nested as shape [2, 0] is"),
        invalid(x("BYTES", "[2,1]", "[[\"a\",\"b\"]]"), "not nested as shape [2, 1] is"),
    ]);
}

/// An input X of INT16 as binary data.
fn binary(shape: &str, size: &str) -> String {
    input(&format!(
        r#""name":"X","datatype":"INT16","shape":{shape},"parameters":{{"binary_data_size":{size}}}"#
    ))
}

fn check_binary(cases: &[(String, &[u8], Code, &str)]) {
    for (json, tail, code, fragment) in cases {
        let body = [json.as_bytes(), tail].concat();
        let error = request(&body, Some(json.len().to_string().as_bytes())).expect_err(json);
        assert_eq!(error.code, *code, "{json}\n{error}");
        assert!(error.message.contains(fragment), "{json}\nwanted: {fragment}\ngot:    {error}");
    }
}

#[test]
fn binary_sizes() {
    check_binary(&[
        (
            binary("[2]", "3"),
            b"abc",
            InvalidArgument,
            "binary_data_size is 3, but INT16 of shape [2] has 4 bytes",
        ),
        (binary("[2]", "4"), b"abc", InvalidArgument, "binary_data_size is 4, but only 3 bytes"),
        (
            binary("[2]", "4"),
            b"abcde",
            InvalidArgument,
            "1 bytes of binary data are left in the body after the last input",
        ),
        (binary("[2]", "-4"), b"abcd", InvalidArgument, "\"binary_data_size\" must be a whole number"),
        (binary("[2]", "4.0"), b"abcd", InvalidArgument, "must be a whole number"),
        (
            binary("[2]", "\"4\""),
            b"abcd",
            InvalidArgument,
            "\"binary_data_size\" must be a number, not a string",
        ),
        (binary("[2]", "99999999999999999999"), b"", InvalidArgument, "must be a whole number"),
        (binary("[2]", "18446744073709551615"), b"", InvalidArgument, "has 4 bytes"),
        (binary("[2]", "4,\"binary_data_size\":4"), b"abcd", InvalidArgument, "\"binary_data_size\" twice"),
    ]);
}

#[test]
fn binary_contents() {
    check_binary(&[
        (
            input(
                r#""name":"X","datatype":"INT16","shape":[1],"data":[1],"parameters":{"binary_data_size":2}"#,
            ),
            b"ab",
            InvalidArgument,
            "input \"X\" has both \"data\" and \"binary_data_size\"",
        ),
        (
            input(r#""name":"X","datatype":"BOOL","shape":[2],"parameters":{"binary_data_size":2}"#),
            b"\x01\x02",
            InvalidArgument,
            "input \"X\": element 1 is the byte 2, a BOOL is 0 or 1",
        ),
        (
            input(r#""name":"X","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":7}"#),
            b"\x00\x00\x00\x00abc",
            InvalidArgument,
            "BYTES of shape [2] needs 4 bytes of length for each",
        ),
        (
            input(r#""name":"X","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}"#),
            b"\x02\x00\x00\x00a",
            InvalidArgument,
            "element 0 of 1 does not fit in the 5 bytes",
        ),
        (
            input(r#""name":"X","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}"#),
            b"\x00\x00\x00\x00a",
            InvalidArgument,
            "1 bytes are left in its binary data",
        ),
    ]);
}

#[test]
fn binary_data_and_the_header() {
    let json = binary("[2]", "4");
    let body = [json.as_bytes(), b"abcd"].concat();
    assert!(request(&body, None).unwrap_err().message.contains("no Inference-Header-Content-Length"));
    let short = request(&body, Some((json.len() - 1).to_string().as_bytes())).unwrap_err();
    assert!(short.message.contains("not the JSON it should be"), "{short}");
    let long = request(&body, Some((json.len() + 1).to_string().as_bytes())).unwrap_err();
    assert!(long.message.contains("only 3 bytes of binary data"), "{long}");
}
