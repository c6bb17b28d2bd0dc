//! What a model is warmed with: the requests of its artifact's `warmup.json`, or made-up ones.
//!
//! The file holds one request or a list of them, each as the Open Inference Protocol has it in JSON:
//! `{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [...]}]}`. Next: `warm`.

use std::path::Path;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};
use headgate_runtime::{Binding, Tensor};
use serde::Deserialize;
use serde_json::Value;

use crate::constant::Cell;

/// The file's name, beside the model.
const FILE: &str = "warmup.json";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// The most requests.
const MAX_REQUESTS: usize = 256;

/// Sizes of open dimensions that are tried.
const OPEN: [usize; 9] = [1, 2, 3, 4, 8, 16, 32, 64, 224];
/// The most elements of a row whose open dimensions are more than 1.
const MOST_MADE_UP: usize = 1 << 20;

/// Inputs to warm a model with.
#[derive(Clone, Debug)]
pub(crate) enum Warmup {
    /// Of the artifact: for each request its inputs in the signature's order.
    Given(Vec<Vec<Input>>),
    /// Made up from the signature, with open dimensions of that size.
    MadeUp(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Input {
    shape: Shape,
    cells: Cell,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Many(Vec<Request>),
    One(Request),
}

#[derive(Deserialize)]
struct Request {
    inputs: Vec<InputJson>,
}

#[derive(Deserialize)]
struct InputJson {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Value,
}

impl Warmup {
    /// The requests that lie beside the model file at `path`.
    ///
    /// # Errors
    /// `model_load_failed` for a file that holds none, or such as do not fit the signature.
    pub(crate) fn beside(path: &Path, signature: &Signature) -> Result<Warmup> {
        let path = path.with_file_name(FILE);
        let size = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Warmup::MadeUp(1)),
            found => found.map_err(|error| fault(&error))?.len(),
        };
        if size > MAX_BYTES {
            return Err(fault(&format!("is {size} bytes; the limit is {MAX_BYTES}")));
        }
        Warmup::parse(&std::fs::read(&path).map_err(|error| fault(&error))?, signature)
    }

    fn parse(json: &[u8], signature: &Signature) -> Result<Warmup> {
        let requests = match serde_json::from_slice(json) {
            Ok(File::Many(requests)) => requests,
            Ok(File::One(request)) => vec![request],
            Err(error) => {
                return Err(fault(&format!(
                    "must be a request or a list of them, {{\"inputs\": [...]}} ({error})"
                )));
            }
        };
        if requests.is_empty() || requests.len() > MAX_REQUESTS {
            return Err(fault(&format!("has {} requests; there are 1 to {MAX_REQUESTS}", requests.len())));
        }
        let given = requests.iter().enumerate().map(|(at, request)| {
            read(request, signature).map_err(|why| fault(&format!("request {at}: {why}")))
        });
        Ok(Warmup::Given(given.collect::<Result<_>>()?))
    }

    /// The first request alone.
    pub(crate) fn first(&self) -> Warmup {
        match self {
            Warmup::Given(requests) => Warmup::Given(requests.iter().take(1).cloned().collect()),
            Warmup::MadeUp(open) => Warmup::MadeUp(*open),
        }
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Warmup::Given(requests) => requests.len(),
            Warmup::MadeUp(_) => 1,
        }
    }

    /// The inputs to try one after the other until the model takes one of them.
    pub(crate) fn attempts(self, signature: &Signature) -> Vec<Warmup> {
        let open = |spec: &TensorSpec| spec.shape.iter().skip(1).any(|&dim| dim < 0);
        match self {
            Warmup::MadeUp(_) if signature.inputs.iter().any(open) => OPEN.map(Warmup::MadeUp).into(),
            only => vec![only],
        }
    }

    /// The failure of request `at`, with what is to be done about it.
    pub(crate) fn blame(&self, at: usize, error: &Error) -> Error {
        match self {
            Warmup::Given(_) => fault(&format!("request {at}: {error}")),
            Warmup::MadeUp(_) => Error::new(
                Code::ModelLoadFailed,
                format!(
                    "it runs on no made-up inputs ({error}); put a request that works into {FILE} beside the model"
                ),
            ),
        }
    }

    /// Fills the inputs with request `at`.
    pub(crate) fn fill(&self, binding: &mut Binding, signature: &Signature, at: usize) -> Result<()> {
        let Warmup::Given(requests) = self else { return self.fill_rows(binding, signature, 1, 0) };
        for (index, input) in requests[at].iter().enumerate() {
            let tensor = binding.input_mut(index);
            tensor.reshape(&input.shape)?;
            input.copy_rows(tensor, 0..1, 1)?;
        }
        Ok(())
    }

    /// Fills the inputs with `rows` rows, those from `first` on; rows of requests come round again.
    pub(crate) fn fill_rows(
        &self,
        binding: &mut Binding,
        signature: &Signature,
        rows: usize,
        first: usize,
    ) -> Result<()> {
        for (index, spec) in signature.inputs.iter().enumerate() {
            let tensor = binding.input_mut(index);
            match self {
                Warmup::MadeUp(open) => make_up(tensor, spec, (rows, *open), first)?,
                Warmup::Given(requests) => {
                    let input = &requests[0][index];
                    let mut dims = input.shape.dims().to_vec();
                    if let Some(batch) = dims.first_mut() {
                        *batch = rows as i64;
                    }
                    tensor.reshape(&Shape::new(&dims)?)?;
                    input.copy_rows(tensor, first..first + rows, input.shape.rows())?;
                }
            }
        }
        Ok(())
    }
}

impl Input {
    /// Copies parts of the input, which has `of` of them, into a tensor; part `of` is part 0 again.
    fn copy_rows(&self, tensor: &mut Tensor, parts: std::ops::Range<usize>, of: usize) -> Result<()> {
        let of = of.max(1);
        match &self.cells {
            Cell::Numbers(bytes) => {
                let each = bytes.len() / of;
                let Some(all) = tensor.bytes_mut().filter(|_| each > 0) else { return Ok(()) };
                for (part, out) in parts.zip(all.chunks_exact_mut(each)) {
                    out.copy_from_slice(&bytes[part % of * each..][..each]);
                }
            }
            Cell::Strings(strings) => {
                let each = strings.len() / of;
                let indices = parts.flat_map(|part| (0..each).map(move |at| part % of * each + at));
                for (at, index) in indices.enumerate() {
                    tensor.set_string(at, &strings[index])?;
                }
            }
        }
        Ok(())
    }
}

/// The inputs of a request in the signature's order; why they do not fit it, in words.
fn read(request: &Request, signature: &Signature) -> std::result::Result<Vec<Input>, String> {
    if let Some(unknown) =
        request.inputs.iter().find(|input| signature.inputs.iter().all(|spec| spec.name != input.name))
    {
        return Err(format!("the model has no input {:?}", unknown.name));
    }
    let inputs = signature.inputs.iter().map(|spec| {
        let input = request.inputs.iter().find(|input| input.name == spec.name);
        let input = input.ok_or_else(|| format!("input {:?} is missing", spec.name))?;
        read_input(input, spec).map_err(|why| format!("input {:?} {why}", spec.name))
    });
    inputs.collect()
}

fn read_input(input: &InputJson, spec: &TensorSpec) -> std::result::Result<Input, String> {
    if input.datatype != spec.datatype.to_string() {
        return Err(format!("is {}, and the model takes {}", input.datatype, spec.datatype));
    }
    let fits = input.shape.len() == spec.shape.len()
        && input.shape.iter().zip(&spec.shape).all(|(&size, &wanted)| wanted < 0 || size == wanted);
    let shape = Shape::new(&input.shape).ok().filter(|_| fits);
    let shape =
        shape.ok_or_else(|| format!("has shape {:?}, and the model takes {:?}", input.shape, spec.shape))?;
    let mut values = Vec::new();
    flatten(&input.data, &mut values);
    if values.len() != shape.count() {
        return Err(format!("has {} elements, and its shape {}", values.len(), shape.count()));
    }
    let wrong = |value: &Value| format!("is {}, not {value}", spec.datatype);
    let cells = Cell::of(spec.datatype, values).map_err(wrong)?;
    Ok(Input { shape, cells })
}

fn flatten<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, out)),
        value => out.push(value),
    }
}

/// Fills an input with `rows` rows of made-up values, those that row `first` and the following have.
fn make_up(tensor: &mut Tensor, spec: &TensorSpec, (rows, open): (usize, usize), first: usize) -> Result<()> {
    let shape = made_up_shape(spec, rows, open)?;
    tensor.reshape(&shape)?;
    let Some(size) = spec.datatype.size() else { return Ok(()) };
    let each = shape.count().checked_div(rows).unwrap_or(0) * size;
    let Some(bytes) = tensor.bytes_mut() else { return Ok(()) };
    bytes.fill(0);
    for (row, bytes) in bytes.chunks_exact_mut(each.max(1)).enumerate() {
        made_up_row(bytes, spec.datatype, first + row);
    }
    Ok(())
}

/// Open dimensions are of one size, but for the first, which is the rows'.
fn made_up_shape(spec: &TensorSpec, rows: usize, open: usize) -> Result<Shape> {
    let made_up = |(axis, &dim): (usize, &i64)| match (axis, dim) {
        (0, -1) => rows as i64,
        (_, -1) => open as i64,
        _ => dim,
    };
    let shape = Shape::new(&spec.shape.iter().enumerate().map(made_up).collect::<Vec<_>>())?;
    if open > 1 && shape.count() / rows.max(1) > MOST_MADE_UP {
        return Err(Error::invalid(format!(
            "inputs of shape {:?} are too large to be made up",
            shape.dims()
        )));
    }
    Ok(shape)
}

/// Zeros in the first row; in others, fractions that differ from row to row where the type has any. Whole numbers stay 0:
/// they may be indices.
fn made_up_row(bytes: &mut [u8], datatype: DataType, row: usize) {
    let value = |at: usize| ((7 * at + 13 * row) % 11) as f64 * if row == 0 { 0.0 } else { 0.1 };
    match datatype {
        DataType::Fp32 => {
            for (at, element) in bytes.chunks_exact_mut(4).enumerate() {
                element.copy_from_slice(&(value(at) as f32).to_le_bytes());
            }
        }
        DataType::Fp64 => {
            for (at, element) in bytes.chunks_exact_mut(8).enumerate() {
                element.copy_from_slice(&value(at).to_le_bytes());
            }
        }
        _ => {}
    }
}

fn fault(why: &dyn std::fmt::Display) -> Error {
    Error::new(Code::ModelLoadFailed, format!("{FILE}: {why}"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn signature() -> Signature {
        let input = |name: &str, datatype| TensorSpec {
            name: name.into(),
            datatype,
            shape: vec![-1, 2],
            symbols: Vec::new(),
        };
        Signature {
            inputs: vec![input("X", DataType::Fp32), input("S", DataType::Bytes)],
            outputs: Vec::new(),
        }
    }

    const GOOD: &str = r#"{"inputs": [
        {"name": "S", "datatype": "BYTES", "shape": [2, 2], "data": [["a", "b"], ["c", "d"]]},
        {"name": "X", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3.5, 4]}]}"#;

    #[test]
    fn a_request_or_a_list_of_them_is_read_in_the_order_of_the_signature() {
        for (json, count) in [(GOOD.to_owned(), 1), (format!("[{GOOD}, {GOOD}]"), 2)] {
            let Warmup::Given(requests) = Warmup::parse(json.as_bytes(), &signature()).unwrap() else {
                unreachable!("requests were given")
            };
            assert_eq!(requests.len(), count);
            let [Input { shape, cells: Cell::Numbers(bytes) }, Input { cells: Cell::Strings(strings), .. }] =
                &requests[0][..]
            else {
                unreachable!("numbers, then strings")
            };
            assert_eq!(shape.dims(), [2, 2]);
            assert_eq!(bytes[8..12], 3.5f32.to_ne_bytes());
            assert_eq!(strings[3], b"d");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (from, to, says) in [
            ("\"X\"", "\"Z\"", "request 0: the model has no input \"Z\""),
            ("FP32", "FP64", "input \"X\" is FP64, and the model takes FP32"),
            ("[1, 2, 3.5, 4]", "[1, 2, 3]", "input \"X\" has 3 elements, and its shape 4"),
            ("[1, 2, 3.5, 4]", "[1, 2, 3, \"x\"]", "input \"X\" is FP32, not \"x\""),
            (
                "\"shape\": [2, 2], \"data\": [1",
                "\"shape\": [1, 4], \"data\": [1",
                "input \"X\" has shape [1, 4]",
            ),
            ("{\"inputs\"", "{\"input\"", "must be a request or a list of them"),
        ] {
            let error = Warmup::parse(GOOD.replacen(from, to, 1).as_bytes(), &signature()).unwrap_err();
            assert_eq!(error.code, Code::ModelLoadFailed);
            assert!(error.message.starts_with("warmup.json: ") && error.message.contains(says), "{error}");
        }
        assert!(Warmup::parse(b"[]", &signature()).unwrap_err().message.contains("has 0 requests"));
    }
}
