//! The requests of an artifact's `warmup.json`: one, or a list of them, each in the JSON of the Open Inference Protocol.
//!
//! `{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [...]}]}`. An error in the file is reported with its line and its
//! field, so parts stay as they are in the text until they are read.

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

use super::rows::{RowBytes, RowSet};
use crate::compute::ElementBuffer;
use crate::shapes::with_rows;

/// The name of the file beside the model.
pub(crate) const FILE: &str = "warmup.json";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// The most requests.
const MAX_REQUESTS: usize = 256;
/// The most lists that may lie in each other in `data`.
const MAX_DEPTH: usize = 64;

/// One request: its inputs in the order of the signature.
#[derive(Clone, Debug)]
pub(crate) struct WarmupRequest {
    /// The line in the file where it begins; 0 if it is of no file.
    line: usize,
    inputs: Vec<InputElements>,
    /// The optional inputs that it gives, with their indices.
    optional: Vec<(usize, InputElements)>,
}

#[derive(Clone, Debug)]
struct InputElements {
    shape: Shape,
    elements: ElementBuffer,
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

/// What is wrong in the file, and where.
struct FileError {
    line: usize,
    field: String,
    reason: String,
}

type FileResult<T> = std::result::Result<T, FileError>;

/// The requests of the file beside the model file at `path`; `None` if there is no file.
///
/// # Errors
/// `model_load_failed` if the file has no requests, or some that do not fit the signature.
pub(crate) fn beside(path: &Path, signature: &Signature) -> Result<Option<Vec<WarmupRequest>>> {
    let path = path.with_file_name(FILE);
    let size = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| file_error(&error))?.len(),
    };
    if size > MAX_BYTES {
        return Err(file_error(&format!("is {size} bytes; the limit is {MAX_BYTES}")));
    }
    let json = std::fs::read(&path).map_err(|error| file_error(&error))?;
    parse(&json, signature).map(Some)
}

/// The requests of a file.
///
/// # Errors
/// `model_load_failed` if there are none or too many, or if some do not fit the signature.
fn parse(json: &[u8], signature: &Signature) -> Result<Vec<WarmupRequest>> {
    let text =
        std::str::from_utf8(json).map_err(|error| file_error(&format!("is no UTF-8 text: {error}")))?;
    if text.starts_with('\u{feff}') {
        return Err(file_error(&"begins with a byte order mark; JSON has none"));
    }
    let (requests, is_list) = split(text).map_err(|error| {
        let expected = "must be a request or a list of them, {\"inputs\": [...]}";
        file_error(&format!(
            "{expected}: {} (line {}, column {})",
            parser_message(&error),
            error.line(),
            error.column()
        ))
    })?;
    if requests.is_empty() || requests.len() > MAX_REQUESTS {
        return Err(file_error(&format!("has {} requests; there are 1 to {MAX_REQUESTS}", requests.len())));
    }
    let given = requests.into_iter().enumerate().map(|(at, request)| {
        let field = if is_list { format!("[{at}]") } else { String::new() };
        WarmupFile { text }.request(request, field, signature).map_err(|error| error.of_request(at))
    });
    given.collect()
}

/// The error of request `at` of `requests`, with its place in the file.
pub(crate) fn describe_failure(requests: &[WarmupRequest], at: usize, error: &Error) -> Error {
    let field = if requests.len() > 1 { format!("[{at}]") } else { String::new() };
    FileError { line: requests[at].line, field, reason: error.to_string() }.of_request(at)
}

/// An error of the whole file.
fn file_error(reason: &dyn std::fmt::Display) -> Error {
    Error::new(Code::ModelLoadFailed, format!("{FILE}: {reason}"))
}

/// The requests as they are in the file, and whether it is a list.
fn split(text: &str) -> serde_json::Result<(Vec<&RawValue>, bool)> {
    let is_list = text.trim_start().starts_with('[');
    let requests = if is_list { serde_json::from_str(text)? } else { vec![serde_json::from_str(text)?] };
    Ok((requests, is_list))
}

/// The message of the parser without its place, which counts from the part that it was given.
fn parser_message(error: &serde_json::Error) -> String {
    let parser_message = error.to_string();
    parser_message.split(" at line ").next().unwrap_or_default().to_owned()
}

impl FileError {
    fn of_request(self, at: usize) -> Error {
        let FileError { line, field, reason } = self;
        let place = if field.is_empty() { format!("line {line}") } else { format!("line {line}, {field}") };
        file_error(&format!("request {at}: {reason} ({place})"))
    }
}

/// The text of the file, which knows the line of each part.
#[derive(Clone, Copy)]
struct WarmupFile<'a> {
    text: &'a str,
}

impl<'a> WarmupFile<'a> {
    fn line(self, part: &RawValue) -> usize {
        let before = (part.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        1 + self.text.as_bytes()[..before].iter().filter(|&&byte| byte == b'\n').count()
    }

    fn error_at(self, part: &RawValue, field: impl Into<String>, reason: impl Into<String>) -> FileError {
        FileError { line: self.line(part), field: field.into(), reason: reason.into() }
    }

    /// Reads a part as a type.
    fn read<T: Deserialize<'a>>(self, part: &'a RawValue, field: &str) -> FileResult<T> {
        serde_json::from_str(part.get()).map_err(|error| FileError {
            line: self.line(part) + error.line().saturating_sub(1),
            field: field.to_owned(),
            reason: parser_message(&error),
        })
    }

    fn request(
        self,
        part: &'a RawValue,
        mut field: String,
        signature: &Signature,
    ) -> FileResult<WarmupRequest> {
        let RequestJson { inputs } = self.read(part, &field)?;
        let dot = if field.is_empty() { "" } else { "." };
        write!(field, "{dot}inputs").expect("a string takes whatever is written");
        let mut found: Vec<Option<InputElements>> = vec![None; signature.all_inputs().count()];
        for (at, input) in inputs.into_iter().enumerate() {
            let field = format!("{field}[{at}]");
            let json: InputJson<'_> = self.read(input, &field)?;
            let name: Cow<'_, str> = self.read(json.name, &format!("{field}.name"))?;
            let known = signature.all_inputs().enumerate().find(|(_, spec)| *spec.name == *name);
            let reason = match known {
                None => format!("the model has no input {name:?}"),
                Some((index, _)) if found[index].is_some() => format!("input {name:?} is there twice"),
                Some((index, spec)) => {
                    found[index] = Some(self.input(&json, &field, spec)?);
                    continue;
                }
            };
            return Err(self.error_at(json.name, format!("{field}.name"), reason));
        }
        let optional = found.split_off(signature.inputs.len()).into_iter().enumerate();
        let inputs = found.into_iter().zip(&signature.inputs).map(|(input, spec)| {
            input.ok_or_else(|| self.error_at(part, &*field, format!("input {:?} is missing", spec.name)))
        });
        Ok(WarmupRequest {
            line: self.line(part),
            inputs: inputs.collect::<FileResult<_>>()?,
            optional: optional.filter_map(|(at, input)| Some((at, input?))).collect(),
        })
    }

    fn input(self, json: &InputJson<'a>, field: &str, spec: &TensorSpec) -> FileResult<InputElements> {
        let name = &spec.name;
        let path = format!("{field}.datatype");
        let datatype: Cow<'_, str> = self.read(json.datatype, &path)?;
        if *datatype != *spec.datatype.to_string() {
            let reason = format!("input {name:?} is {datatype}, and the model takes {}", spec.datatype);
            return Err(self.error_at(json.datatype, path, reason));
        }
        let path = format!("{field}.shape");
        let dims: Vec<i64> = self.read(json.shape, &path)?;
        let shape = Shape::new(&dims).ok().filter(|shape| spec.accepts(shape)).ok_or_else(|| {
            let reason = format!("input {name:?} has shape {dims:?}, and the model takes {:?}", spec.shape);
            self.error_at(json.shape, path, reason)
        })?;
        let path = format!("{field}.data");
        let (mut elements, mut count) = (ElementBuffer::empty(spec.datatype), 0);
        let mut push = |element: &'a RawValue, path: &str| {
            let value: Value = self.read(element, path)?;
            count += 1;
            let is_right = elements.push(spec.datatype, &value)
                || non_finite_value(&value)
                    .is_some_and(|number| elements.push_fraction(spec.datatype, number));
            let reason = || format!("input {name:?} is {}, not {value}", spec.datatype);
            if is_right { Ok(()) } else { Err(self.error_at(element, path, reason())) }
        };
        let mut path = JsonPath { text: path, depth: 0 };
        self.flatten(json.data, &mut path, &mut push)?;
        if count != shape.count() {
            let reason = format!("input {name:?} has {count} elements, and its shape {}", shape.count());
            return Err(self.error_at(json.data, path.text, reason));
        }
        Ok(InputElements { shape, elements })
    }

    /// Passes the elements of nested lists on, each with its path.
    fn flatten(
        self,
        part: &'a RawValue,
        path: &mut JsonPath,
        push: &mut dyn FnMut(&'a RawValue, &str) -> FileResult<()>,
    ) -> FileResult<()> {
        if !part.get().starts_with('[') {
            return push(part, &path.text);
        }
        if path.depth == MAX_DEPTH {
            return Err(self.error_at(
                part,
                &*path.text,
                format!("more than {MAX_DEPTH} lists in each other"),
            ));
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

/// The number that a value stands for which is no JSON number, in both forms of `answers.non_finite`: a file is read under any document.
fn non_finite_value(value: &Value) -> Option<f64> {
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

/// The rows of all requests that have the same number of rows in each input, by kind.
pub(crate) fn rows(requests: &[WarmupRequest]) -> Vec<RowSet> {
    let mut kinds: Vec<(Vec<Shape>, Vec<RowBytes>)> = Vec::new();
    for (row_shapes, rows) in requests.iter().filter_map(WarmupRequest::rows) {
        match kinds.iter_mut().find(|(known, _)| *known == row_shapes) {
            Some((_, all)) => all.extend(rows),
            None => kinds.push((row_shapes, rows)),
        }
    }
    kinds.into_iter().map(|(row_shapes, rows)| RowSet::pick_from(row_shapes, rows)).collect()
}

impl WarmupRequest {
    /// Whether it gives no optional inputs, as every request in a batch.
    pub(crate) fn is_plain(&self) -> bool {
        self.optional.is_empty()
    }

    /// A request of inputs that a model accepted, in the order of the signature, each with its shape. It is of no file.
    pub(crate) fn from_elements(inputs: Vec<(Shape, ElementBuffer)>) -> WarmupRequest {
        let inputs = inputs.into_iter().map(|(shape, elements)| InputElements { shape, elements }).collect();
        WarmupRequest { line: 0, inputs, optional: Vec::new() }
    }

    /// The shape of one row of each input, and all rows; `None` if the request cannot be batched.
    fn rows(&self) -> Option<(Vec<Shape>, Vec<RowBytes>)> {
        if !self.is_plain() {
            return None;
        }
        let rows = self.inputs.first()?.shape.rows();
        let row_shapes = self.inputs.iter().map(|input| {
            let is_even = input.shape.rows() == rows && rows > 0;
            with_rows(&input.shape, 1).ok().filter(|_| is_even)
        });
        let row_shapes = row_shapes.collect::<Option<_>>()?;
        let bytes = |at: usize| self.inputs.iter().map(|input| input.row(at)).collect::<Option<RowBytes>>();
        Some((row_shapes, (0..rows).map(bytes).collect::<Option<_>>()?))
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

    /// Fills the inputs with `rows` rows from `first` on, which repeat.
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

impl InputElements {
    /// The bytes of a row; `None` for strings.
    fn row(&self, at: usize) -> Option<Vec<u8>> {
        let ElementBuffer::Numbers(bytes) = &self.elements else { return None };
        let each = bytes.len() / self.shape.rows().max(1);
        Some(bytes[at * each..][..each].to_vec())
    }

    /// Copies parts of the input into a tensor. The input has `of` parts, and part `of` is part 0 again.
    fn copy_rows(&self, tensor: &mut Tensor, parts: Range<usize>, of: usize) -> Result<()> {
        let of = of.max(1);
        match &self.elements {
            ElementBuffer::Numbers(bytes) => {
                let each = bytes.len() / of;
                let Some(all) = tensor.bytes_mut().filter(|_| each > 0) else { return Ok(()) };
                for (part, out) in parts.zip(all.chunks_exact_mut(each)) {
                    out.copy_from_slice(&bytes[part % of * each..][..each]);
                }
            }
            ElementBuffer::Strings(strings) => {
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
