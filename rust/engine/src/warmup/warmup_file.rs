//! The requests of an artifact's `warmup.json`: one, or a list of them, each as the Open Inference Protocol has it in JSON.
//!
//! `{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [...]}]}`. What is wrong with the file is said with its line and
//! its field, so parts are kept as they stand in the text until they are read.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{Shape, Signature, TensorSpec};
use headgate_runtime::{Binding, Tensor};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::rows::{Row, Rows};
use crate::compute::Cell;
use crate::shapes::with_rows;

/// The file's name, beside the model.
pub(crate) const FILE: &str = "warmup.json";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// The most requests.
const MAX_REQUESTS: usize = 256;
/// The deepest that lists may lie in each other in `data`.
const MAX_DEPTH: usize = 64;

/// One request: its inputs in the signature's order.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// Where it begins in the file, if it is of one.
    line: usize,
    inputs: Vec<Input>,
    /// Those of the optional inputs that it gives, with their places among them.
    optional: Vec<(usize, Input)>,
}

#[derive(Clone, Debug)]
struct Input {
    shape: Shape,
    cells: Cell,
}

#[derive(Deserialize)]
struct RequestJson<'a> {
    #[serde(borrow)]
    inputs: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct InputJson<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    datatype: &'a RawValue,
    #[serde(borrow)]
    shape: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// What is wrong with the file, and where.
struct Wrong {
    line: usize,
    field: String,
    why: String,
}

type Checked<T> = std::result::Result<T, Wrong>;

/// The requests that lie beside the model file at `path`; `None` without a file.
///
/// # Errors
/// `model_load_failed` for a file that holds none, or such as do not fit the signature.
pub(crate) fn beside(path: &Path, signature: &Signature) -> Result<Option<Vec<Given>>> {
    let path = path.with_file_name(FILE);
    let size = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| fault(&error))?.len(),
    };
    if size > MAX_BYTES {
        return Err(fault(&format!("is {size} bytes; the limit is {MAX_BYTES}")));
    }
    let json = std::fs::read(&path).map_err(|error| fault(&error))?;
    parse(&json, signature).map(Some)
}

/// The requests of a file.
///
/// # Errors
/// `model_load_failed` for a file that holds none, too many, or such as do not fit the signature.
fn parse(json: &[u8], signature: &Signature) -> Result<Vec<Given>> {
    let text = std::str::from_utf8(json).map_err(|error| fault(&format!("is no UTF-8 text: {error}")))?;
    if text.starts_with('\u{feff}') {
        return Err(fault(&"begins with a byte order mark; JSON has none"));
    }
    let (requests, is_list) = split(text).map_err(|error| {
        let what = "must be a request or a list of them, {\"inputs\": [...]}";
        fault(&format!("{what}: {} (line {}, column {})", words(&error), error.line(), error.column()))
    })?;
    if requests.is_empty() || requests.len() > MAX_REQUESTS {
        return Err(fault(&format!("has {} requests; there are 1 to {MAX_REQUESTS}", requests.len())));
    }
    let given = requests.into_iter().enumerate().map(|(at, request)| {
        let field = if is_list { format!("[{at}]") } else { String::new() };
        File { text }.request(request, field, signature).map_err(|wrong| wrong.of_request(at))
    });
    given.collect()
}

/// The failure of request `at` of `requests`.
pub(crate) fn blame(requests: &[Given], at: usize, error: &Error) -> Error {
    let field = if requests.len() > 1 { format!("[{at}]") } else { String::new() };
    Wrong { line: requests[at].line, field, why: error.to_string() }.of_request(at)
}

/// The file is what is wrong.
fn fault(why: &dyn std::fmt::Display) -> Error {
    Error::new(Code::ModelLoadFailed, format!("{FILE}: {why}"))
}

/// The requests as they stand in the file, and whether it is a list.
fn split(text: &str) -> serde_json::Result<(Vec<&RawValue>, bool)> {
    let is_list = text.trim_start().starts_with('[');
    let requests = if is_list { serde_json::from_str(text)? } else { vec![serde_json::from_str(text)?] };
    Ok((requests, is_list))
}

/// What the parser says, without the place, which counts from the part that it was given.
fn words(error: &serde_json::Error) -> String {
    let words = error.to_string();
    words.split(" at line ").next().unwrap_or_default().to_owned()
}

impl Wrong {
    fn of_request(self, at: usize) -> Error {
        let Wrong { line, field, why } = self;
        let place = if field.is_empty() { format!("line {line}") } else { format!("line {line}, {field}") };
        fault(&format!("request {at}: {why} ({place})"))
    }
}

/// The file, whose parts know where they stand.
#[derive(Clone, Copy)]
struct File<'a> {
    text: &'a str,
}

impl<'a> File<'a> {
    fn line(self, part: &RawValue) -> usize {
        let before = (part.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        1 + self.text.as_bytes()[..before].iter().filter(|&&byte| byte == b'\n').count()
    }

    fn wrong(self, part: &RawValue, field: impl Into<String>, why: impl Into<String>) -> Wrong {
        Wrong { line: self.line(part), field: field.into(), why: why.into() }
    }

    /// A part as a type.
    fn read<T: Deserialize<'a>>(self, part: &'a RawValue, field: &str) -> Checked<T> {
        serde_json::from_str(part.get()).map_err(|error| Wrong {
            line: self.line(part) + error.line().saturating_sub(1),
            field: field.to_owned(),
            why: words(&error),
        })
    }

    fn request(self, part: &'a RawValue, mut field: String, signature: &Signature) -> Checked<Given> {
        let RequestJson { inputs } = self.read(part, &field)?;
        let dot = if field.is_empty() { "" } else { "." };
        write!(field, "{dot}inputs").expect("a string takes whatever is written");
        let mut found: Vec<Option<Input>> = vec![None; signature.all_inputs().count()];
        for (at, input) in inputs.into_iter().enumerate() {
            let field = format!("{field}[{at}]");
            let json: InputJson<'_> = self.read(input, &field)?;
            let name: Cow<'_, str> = self.read(json.name, &format!("{field}.name"))?;
            let known = signature.all_inputs().enumerate().find(|(_, spec)| *spec.name == *name);
            let why = match known {
                None => format!("the model has no input {name:?}"),
                Some((index, _)) if found[index].is_some() => format!("input {name:?} is there twice"),
                Some((index, spec)) => {
                    found[index] = Some(self.input(&json, &field, spec)?);
                    continue;
                }
            };
            return Err(self.wrong(json.name, format!("{field}.name"), why));
        }
        let optional = found.split_off(signature.inputs.len()).into_iter().enumerate();
        let inputs = found.into_iter().zip(&signature.inputs).map(|(input, spec)| {
            input.ok_or_else(|| self.wrong(part, &*field, format!("input {:?} is missing", spec.name)))
        });
        Ok(Given {
            line: self.line(part),
            inputs: inputs.collect::<Checked<_>>()?,
            optional: optional.filter_map(|(at, input)| Some((at, input?))).collect(),
        })
    }

    fn input(self, json: &InputJson<'a>, field: &str, spec: &TensorSpec) -> Checked<Input> {
        let name = &spec.name;
        let path = format!("{field}.datatype");
        let datatype: Cow<'_, str> = self.read(json.datatype, &path)?;
        if *datatype != *spec.datatype.to_string() {
            let why = format!("input {name:?} is {datatype}, and the model takes {}", spec.datatype);
            return Err(self.wrong(json.datatype, path, why));
        }
        let path = format!("{field}.shape");
        let dims: Vec<i64> = self.read(json.shape, &path)?;
        let shape = Shape::new(&dims).ok().filter(|shape| spec.accepts(shape)).ok_or_else(|| {
            let why = format!("input {name:?} has shape {dims:?}, and the model takes {:?}", spec.shape);
            self.wrong(json.shape, path, why)
        })?;
        let path = format!("{field}.data");
        let (mut cells, mut elements) = (Cell::empty(spec.datatype), 0);
        let mut push = |element: &'a RawValue, path: &str| {
            let value: Value = self.read(element, path)?;
            elements += 1;
            let is_right = cells.push(spec.datatype, &value)
                || missing(&value).is_some_and(|number| cells.push_fraction(spec.datatype, number));
            let why = || format!("input {name:?} is {}, not {value}", spec.datatype);
            if is_right { Ok(()) } else { Err(self.wrong(element, path, why())) }
        };
        let mut path = JsonPath { text: path, depth: 0 };
        self.flatten(json.data, &mut path, &mut push)?;
        if elements != shape.count() {
            let why = format!("input {name:?} has {elements} elements, and its shape {}", shape.count());
            return Err(self.wrong(json.data, path.text, why));
        }
        Ok(Input { shape, cells })
    }

    /// Passes on the elements of lists within lists, each with its path.
    fn flatten(
        self,
        part: &'a RawValue,
        path: &mut JsonPath,
        push: &mut dyn FnMut(&'a RawValue, &str) -> Checked<()>,
    ) -> Checked<()> {
        if !part.get().starts_with('[') {
            return push(part, &path.text);
        }
        if path.depth == MAX_DEPTH {
            return Err(self.wrong(part, &*path.text, format!("more than {MAX_DEPTH} lists in each other")));
        }
        path.depth += 1;
        let length = path.text.len();
        for (at, item) in self.read::<Vec<&'a RawValue>>(part, &path.text)?.into_iter().enumerate() {
            write!(path.text, "[{at}]").expect("a string takes whatever is written");
            self.flatten(item, path, push)?;
            path.text.truncate(length);
        }
        path.depth -= 1;
        Ok(())
    }
}

/// The path of a part within the file.
struct JsonPath {
    text: String,
    /// How many lists it lies in.
    depth: usize,
}

/// What a value that no JSON number can be stands for, in both words of `answers.non_finite`: a file is read under any document.
fn missing(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(f64::NAN),
        Value::String(word) => match word.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// The rows of all requests that have the same number of them in each input, by their kind.
pub(crate) fn rows(requests: &[Given]) -> Vec<Rows> {
    let mut kinds: Vec<(Vec<Shape>, Vec<Row>)> = Vec::new();
    for (each, rows) in requests.iter().filter_map(Given::rows) {
        match kinds.iter_mut().find(|(known, _)| *known == each) {
            Some((_, all)) => all.extend(rows),
            None => kinds.push((each, rows)),
        }
    }
    kinds.into_iter().map(|(each, rows)| Rows::of(each, rows)).collect()
}

impl Given {
    /// Whether it leaves the model's own values as they are, as every request in a batch does.
    pub(crate) fn is_plain(&self) -> bool {
        self.optional.is_empty()
    }

    /// Inputs that a model took, in the signature's order, each with its shape; none of them is of a file.
    pub(crate) fn taken(inputs: Vec<(Shape, Cell)>) -> Given {
        let inputs = inputs.into_iter().map(|(shape, cells)| Input { shape, cells }).collect();
        Given { line: 0, inputs, optional: Vec::new() }
    }

    /// The shapes of one row and all rows; `None` for a request that cannot be part of a batch.
    fn rows(&self) -> Option<(Vec<Shape>, Vec<Row>)> {
        if !self.is_plain() {
            return None;
        }
        let rows = self.inputs.first()?.shape.rows();
        let each = self.inputs.iter().map(|input| {
            let is_even = input.shape.rows() == rows && rows > 0;
            with_rows(&input.shape, 1).ok().filter(|_| is_even)
        });
        let each = each.collect::<Option<_>>()?;
        let bytes = |at: usize| self.inputs.iter().map(|input| input.row(at)).collect::<Option<Row>>();
        Some((each, (0..rows).map(bytes).collect::<Option<_>>()?))
    }

    /// Fills the inputs.
    pub(crate) fn fill(&self, binding: &mut Binding) -> Result<()> {
        binding.clear_optional_inputs();
        for (index, input) in &self.optional {
            let tensor = binding.optional_input_mut(*index);
            tensor.reshape(&input.shape)?;
            input.copy_rows(tensor, 0..1, 1)?;
        }
        for (index, input) in self.inputs.iter().enumerate() {
            let tensor = binding.input_mut(index);
            tensor.reshape(&input.shape)?;
            input.copy_rows(tensor, 0..1, 1)?;
        }
        Ok(())
    }

    /// Fills the inputs with `rows` rows, those from `first` on, which come round again.
    pub(crate) fn fill_rows(&self, binding: &mut Binding, rows: usize, first: usize) -> Result<()> {
        binding.clear_optional_inputs();
        for (index, input) in self.inputs.iter().enumerate() {
            let mut dims = input.shape.dims().to_vec();
            if let Some(batch) = dims.first_mut() {
                *batch = rows as i64;
            }
            let tensor = binding.input_mut(index);
            tensor.reshape(&Shape::new(&dims)?)?;
            input.copy_rows(tensor, first..first + rows, input.shape.rows())?;
        }
        Ok(())
    }
}

impl Input {
    /// The bytes of a row; `None` for strings.
    fn row(&self, at: usize) -> Option<Vec<u8>> {
        let Cell::Numbers(bytes) = &self.cells else { return None };
        let each = bytes.len() / self.shape.rows().max(1);
        Some(bytes[at * each..][..each].to_vec())
    }

    /// Copies parts of the input, which has `of` of them, into a tensor; part `of` is part 0 again.
    fn copy_rows(&self, tensor: &mut Tensor, parts: Range<usize>, of: usize) -> Result<()> {
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

#[cfg(all(test, not(feature = "loom")))]
mod tests;
