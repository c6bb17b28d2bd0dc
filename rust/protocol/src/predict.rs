//! `:predict`, the REST form of TensorFlow Serving and of KServe's first protocol: JSON without types and shapes.
//!
//! Row form: the request is `{"instances": [row, ...]}` and the response `{"predictions": [row, ...]}`. A row is the value of
//! the only input, or an object of values by input. Column form: the request is `{"inputs": …}` with a value, or an object of
//! values by input, and the response is `{"outputs": …}`.
//!
//! The types follow from the model's signature, and the shapes from the nesting of the lists. Bytes that are no text are
//! `{"b64": "…"}`, both ways. Next: `response`.

mod response;

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, MAX_RANK, Shape, Signature, TensorSpec};
use memchr::memchr3;

use crate::envelope::{
    ElementSource, Envelope, EnvelopeScratch, InputForm, InputTensor, refuse_byte_order_mark,
};
use crate::json_cursor::{JsonCursor, JsonKind};
use crate::json_fault::{JsonFault, ParseResult};
use crate::json_string::write_json;

pub use response::{write, write_status};

/// Parses a request: its form, and the bytes of its values.
///
/// # Errors
/// `invalid_argument` for a body that has neither form, or both.
pub fn parse<'a>(body: &'a [u8], scratch: &mut EnvelopeScratch) -> Result<Envelope<'a>> {
    let mut cursor = JsonCursor::new(body);
    let mut form = None;
    if cursor.kind() != JsonKind::Object {
        refuse_byte_order_mark(body)?;
        return Err(Error::invalid(format!("the request must be an object, not {}", cursor.kind())));
    }
    cursor.present_members(|cursor, key| {
        let found = match &*key {
            "instances" if cursor.kind() == JsonKind::List => InputForm::Rows(cursor.value_extent()?),
            "instances" => {
                return Err(Error::invalid(format!("\"instances\" must be a list, not {}", cursor.kind())));
            }
            "inputs" => InputForm::Columns(cursor.value_extent()?),
            // A model here has one signature, so that TensorFlow Serving's `signature_name` and other keys have no meaning.
            _ => return cursor.skip().map_err(Error::from),
        };
        match form.replace(found) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("the request must have \"instances\" or \"inputs\", once")),
        }
    })?;
    cursor.expect_end()?;
    let form = form.ok_or_else(|| {
        Error::invalid(
            "the request has neither \"instances\" (a list of rows) nor \"inputs\" (tensors by name)",
        )
    })?;
    Ok(Envelope { form, ..scratch.take() })
}

/// An input and its JSON: a part of the request, or the values of all rows as a list.
struct InputValue<'a, 's> {
    spec: &'s TensorSpec,
    json: Cow<'a, [u8]>,
}

/// The inputs of a model with that signature, from a request in row or column form. `buffer` (cleared first) gets their data.
///
/// Optional inputs come in column form only: their value is for the whole request, and a row has none of its own.
///
/// # Errors
/// `invalid_argument` for inputs that are missing, unknown or given twice, and for rows of different shapes.
pub fn inputs<'b>(
    envelope: &Envelope<'_>,
    signature: &Signature,
    buffer: &'b mut Vec<u8>,
) -> Result<Vec<InputTensor<'b>>> {
    buffer.clear();
    let values = match envelope.form {
        InputForm::Rows(rows) => rows_by_input(rows, signature)?,
        InputForm::Columns(columns) => columns_by_input(columns, signature)?,
        InputForm::Listed | InputForm::Raw(_) => {
            return Err(Error::new(Code::Internal, "a request that lists its inputs has no rows or columns"));
        }
    };
    let mut ranges: Vec<Range<usize>> = Vec::with_capacity(values.len());
    let mut encoded = Vec::with_capacity(values.len());
    for InputValue { spec, json } in &values {
        let start = buffer.len();
        let has_objects = spec.datatype == DataType::Bytes && json.contains(&b'{');
        if has_objects {
            all_base64(&mut JsonCursor::new(json), buffer, &spec.name)?;
        } else {
            buffer.extend_from_slice(json);
        }
        encoded.push(has_objects);
        ranges.push(start..buffer.len());
    }
    let buffer: &'b [u8] = buffer;
    let input = |((spec, range), base64): ((&TensorSpec, Range<usize>), bool)| {
        let data = &buffer[range];
        let name = Cow::Owned(spec.name.clone());
        let (shape, source) = match data.first() {
            Some(b'[') => (shape_of(data, spec)?, ElementSource::JsonList(data)),
            _ => (scalar(data, spec)?, ElementSource::JsonScalar(data)),
        };
        let (datatype, non_finite) = (spec.datatype, envelope.non_finite);
        Ok(InputTensor { name, datatype, shape, source, base64, non_finite })
    };
    let specs = values.iter().map(|value| value.spec);
    specs.zip(ranges).zip(encoded).map(input).collect()
}

/// The rows of each input as a list: the rows of the request, or the values in their objects.
fn rows_by_input<'a, 's>(rows: &'a [u8], signature: &'s Signature) -> Result<Vec<InputValue<'a, 's>>> {
    let specs = &signature.inputs[..];
    let objects = first_kind(rows) == Some(JsonKind::Object) && !is_encoded(rows);
    if !objects {
        return match specs {
            [spec] => Ok(vec![InputValue { spec, json: Cow::Borrowed(rows) }]),
            [] => Err(Error::invalid("the model has no input for rows: ask in column form (\"inputs\")")),
            _ => Err(Error::invalid(format!(
                "the model has {} inputs; each of \"instances\" must be an object with {}",
                specs.len(),
                signature.input_names()
            ))),
        };
    }
    let mut lists: Vec<Vec<u8>> = specs.iter().map(|_| vec![b'[']).collect();
    JsonCursor::new(rows).elements(|cursor, row| {
        if cursor.kind() != JsonKind::Object {
            return Err(Error::invalid(format!("instances[{row}] must be an object, as the first one is")));
        }
        let location = || format!("instances[{row}]");
        let values = members(cursor, signature, location)?;
        if let Some((spec, _)) = values.get(specs.len()) {
            return Err(Error::invalid(format!(
                "instances[{row}] has {:?}, an optional input, which holds for the whole request: ask in column form (\"inputs\")",
                spec.name
            )));
        }
        for (list, (_, value)) in lists.iter_mut().zip(values) {
            if row > 0 {
                list.push(b',');
            }
            list.extend_from_slice(value);
        }
        Ok(())
    })?;
    let closed = |(spec, mut list): (&'s TensorSpec, Vec<u8>)| {
        list.push(b']');
        InputValue { spec, json: Cow::Owned(list) }
    };
    Ok(specs.iter().zip(lists).map(closed).collect())
}

/// The tensor of each input: a list, or the element itself if the tensor has no dimension.
fn columns_by_input<'a, 's>(columns: &'a [u8], signature: &'s Signature) -> Result<Vec<InputValue<'a, 's>>> {
    let mut cursor = JsonCursor::new(columns);
    match (cursor.kind(), &signature.inputs[..]) {
        (JsonKind::List | JsonKind::Number | JsonKind::Text | JsonKind::Bool, [spec]) => {
            Ok(vec![InputValue { spec, json: Cow::Borrowed(columns) }])
        }
        // An object with the only key "b64" is bytes in base64, unless the input has that name.
        (JsonKind::Object, [spec])
            if spec.datatype == DataType::Bytes
                && spec.name != "b64"
                && has_only_b64(&mut JsonCursor::new(columns)) == Ok(true) =>
        {
            Ok(vec![InputValue { spec, json: Cow::Borrowed(columns) }])
        }
        (JsonKind::Object, _) => {
            let values = members(&mut cursor, signature, || "\"inputs\"".into())?;
            let values = values.into_iter();
            Ok(values.map(|(spec, json)| InputValue { spec, json: Cow::Borrowed(json) }).collect())
        }
        (found, _) => Err(Error::invalid(format!(
            "\"inputs\" must be an object with {}, not {found}",
            signature.input_names()
        ))),
    }
}

/// The value of each input in an object, in the model's order, then the values of the optional inputs that the object has.
fn members<'a, 's>(
    cursor: &mut JsonCursor<'a>,
    signature: &'s Signature,
    location: impl Fn() -> String,
) -> Result<Vec<(&'s TensorSpec, &'a [u8])>> {
    let mut values: Vec<Option<&[u8]>> = vec![None; signature.inputs.len()];
    // The values that are there: a signature may have thousands of optional inputs, as an exporter may list all weights.
    let mut optional: Vec<(usize, &[u8])> = Vec::new();
    cursor.members(|cursor, key| {
        let is_new = if let Some(index) = signature.inputs.iter().position(|spec| spec.name == key) {
            values[index].replace(cursor.value_extent()?).is_none()
        } else if let Some(index) = signature.optional_inputs.iter().position(|spec| spec.name == key) {
            let is_new = optional.iter().all(|(given, _)| *given != index);
            optional.push((index, cursor.value_extent()?));
            is_new
        } else {
            return Err(Error::invalid(format!(
                "{} has {key:?}, which is not an input; the model takes {}",
                location(),
                signature.input_names()
            )));
        };
        if is_new { Ok(()) } else { Err(Error::invalid(format!("{} has {key:?} twice", location()))) }
    })?;
    let missing = |spec: &TensorSpec| {
        Error::invalid(format!(
            "{} lacks {:?}; the model takes {}",
            location(),
            spec.name,
            signature.input_names()
        ))
    };
    let required = values.into_iter().zip(&signature.inputs);
    let required = required.map(|(value, spec)| Ok((spec, value.ok_or_else(|| missing(spec))?)));
    optional.sort_unstable_by_key(|(index, _)| *index);
    let optional = optional.into_iter().map(|(index, value)| Ok((&signature.optional_inputs[index], value)));
    required.chain(optional).collect()
}

/// Ends the reading of a list before its end.
struct Enough;

impl From<JsonFault> for Enough {
    fn from(_: JsonFault) -> Enough {
        Enough
    }
}

/// What `look` finds in front of a list's first element. A fault further on is found when the list is decoded.
fn at_first<T>(list: &[u8], look: impl Fn(&mut JsonCursor<'_>) -> Option<T>) -> Option<T> {
    let mut found = None;
    // Every way of reading on ends it: what follows is not looked at.
    let _: std::result::Result<(), Enough> = JsonCursor::new(list).elements(|cursor, _| {
        found = look(cursor);
        Err(Enough)
    });
    found
}

/// The kind of a list's first element.
fn first_kind(list: &[u8]) -> Option<JsonKind> {
    at_first(list, |cursor| Some(cursor.kind()))
}

/// Whether a list's first element is bytes in base64, and not a row.
fn is_encoded(list: &[u8]) -> bool {
    at_first(list, |cursor| has_only_b64(cursor).ok()).unwrap_or(false)
}

/// Skips an object. Returns whether `b64` is its only key.
fn has_only_b64(cursor: &mut JsonCursor<'_>) -> ParseResult<bool> {
    let (mut keys, mut found) = (0, false);
    cursor.members(|cursor, key| {
        keys += 1;
        found = keys == 1 && key == "b64";
        cursor.skip()
    })?;
    Ok(found)
}

/// The shape of a value without brackets, if the input may have no dimension.
fn scalar(value: &[u8], spec: &TensorSpec) -> Result<Shape> {
    match Shape::new(&[]) {
        Ok(shape) if spec.accepts(&shape) => Ok(shape),
        _ => Err(Error::invalid(format!(
            "input {:?}: it must be a list, not {}",
            spec.name,
            JsonCursor::new(value).kind()
        ))),
    }
}

/// Rewrites nested lists of texts and `{"b64": …}` as lists of base64 only.
fn all_base64(cursor: &mut JsonCursor<'_>, out: &mut Vec<u8>, name: &str) -> Result<()> {
    match cursor.kind() {
        JsonKind::List => {
            out.push(b'[');
            cursor.elements(|cursor, index| {
                if index > 0 {
                    out.push(b',');
                }
                all_base64(cursor, out, name)
            })?;
            out.push(b']');
        }
        JsonKind::Text => {
            let text = cursor.string("a string")?;
            write_json(&BASE64.encode(text.as_bytes()), out);
        }
        JsonKind::Object => {
            let mut found = None;
            cursor.members(|cursor, key| match &*key {
                "b64" if cursor.kind() == JsonKind::Text => {
                    found = Some(cursor.string("a string")?);
                    Ok(())
                }
                _ => Err(Error::invalid(format!("input {name:?}: bytes are written {{\"b64\": \"…\"}}"))),
            })?;
            let found = found.ok_or_else(|| {
                Error::invalid(format!("input {name:?}: bytes are written {{\"b64\": \"…\"}}"))
            })?;
            write_json(&found, out);
        }
        other => {
            return Err(Error::invalid(format!("input {name:?}: an element must be a string, not {other}")));
        }
    }
    Ok(())
}

/// The number of elements of a list, which is valid JSON, if none of them is a list, an object or a string; `None` for others, and for an
/// empty list.
fn plain_count(list: &[u8]) -> Option<usize> {
    let inner = list.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let has_parts = memchr3(b'[', b'"', b'{', inner).is_some();
    let is_plain = !has_parts && !inner.trim_ascii().is_empty();
    // Its compiled form adds whole registers of bytes.
    is_plain.then(|| 1 + inner.iter().map(|&byte| usize::from(byte == b',')).sum::<usize>())
}

/// The shape that follows from a list's nesting, by the first element of each list. Decoding finds out whether the others are
/// like it. Values of a single column may be written without a list of their own.
fn shape_of(list: &[u8], spec: &TensorSpec) -> Result<Shape> {
    let refused = |error: Error| Error::invalid(format!("input {:?}: {error}", spec.name));
    let mut dims = [0i64; MAX_RANK];
    let (mut rank, mut level) = (0, Some(list));
    while let Some(list) = level.take() {
        if rank == MAX_RANK {
            return Err(refused(Error::invalid(format!("lists are nested deeper than {MAX_RANK}"))));
        }
        let mut length = 0;
        let mut cursor = JsonCursor::new(list);
        if cursor.kind() != JsonKind::List {
            return Err(refused(Error::invalid(format!("it must be a list, not {}", cursor.kind()))));
        }
        if let Some(count) = plain_count(list) {
            dims[rank] = count as i64;
            rank += 1;
            break;
        }
        let counted = cursor.elements(|cursor, index| {
            length = index + 1;
            if index == 0 && cursor.kind() == JsonKind::List {
                level = Some(cursor.list_extent()?);
                return Ok::<(), JsonFault>(());
            }
            cursor.skip()
        });
        counted.map_err(|fault| refused(fault.into()))?;
        dims[rank] = length as i64;
        rank += 1;
    }
    if rank == 1 && dims[0] == 1 && spec.shape.is_empty() {
        // A row of an input without dimensions is its only element.
        rank = 0;
    }
    let single_column = rank == 1 && matches!(*spec.shape, [_, 1 | -1]);
    if single_column {
        dims[rank] = 1;
        rank += 1;
    }
    let shape = Shape::new(&dims[..rank]).map_err(refused)?;
    // An element and its comma are two bytes at least. This check comes before a buffer of that shape is made.
    if shape.count() > (list.len() - 1) / 2 {
        return Err(refused(Error::invalid(format!(
            "its first lists say shape {shape:?}, and the others are shorter; rows must be alike"
        ))));
    }
    Ok(shape)
}
