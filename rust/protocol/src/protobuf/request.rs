//! `ModelInferRequest` as an envelope that borrows from the message.
//!
//! Next: `protobuf/contents`.

use std::borrow::Cow;
use std::ops::Range;

use headgate_core::error::{Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, MAX_RANK, Shape};

use super::wire::{FieldReader, WireValue, malformed};
use crate::binary;
use crate::envelope::{
    DetachedEnvelope, ElementSource, Envelope, EnvelopeScratch, InputTensor, MAX_TENSORS, ParameterValue,
    Parameters, RequestedOutput, range_within, refuse_shared_memory,
};

/// A request with the model that it is for.
#[derive(Debug)]
pub struct InferRequest<'a> {
    /// The endpoint.
    pub model_name: &'a str,
    /// The version, if the client names one.
    pub model_version: Option<&'a str>,
    /// The rest of the request.
    pub envelope: Envelope<'a>,
}

/// An [`InferRequest`] that borrows nothing.
#[derive(Debug)]
pub struct DetachedInferRequest {
    model_name: Range<usize>,
    model_version: Option<Range<usize>>,
    envelope: DetachedEnvelope,
}

impl InferRequest<'_> {
    /// Detaches the request from the message that it borrows from.
    pub fn detach(&self, message: &[u8]) -> DetachedInferRequest {
        DetachedInferRequest {
            model_name: range_within(self.model_name.as_bytes(), message),
            model_version: self.model_version.map(|name| range_within(name.as_bytes(), message)),
            envelope: self.envelope.detach(message),
        }
    }
}

impl DetachedInferRequest {
    /// Attaches the request to the message that it was detached from.
    pub fn attach(self, message: &[u8]) -> InferRequest<'_> {
        let text =
            |location| std::str::from_utf8(&message[location]).expect("a name was text when it was read");
        InferRequest {
            model_name: text(self.model_name),
            model_version: self.model_version.map(text),
            envelope: self.envelope.attach(message),
        }
    }
}

/// Parses a `ModelInferRequest`. Tensor bytes are located, not read.
///
/// # Errors
/// `invalid_argument` for a message that is not a well-formed request: raw and typed contents together, too many or too few
/// raw contents, sizes that do not fit; `unsupported` for shared memory and sequences.
pub fn parse<'a>(message: &'a [u8], scratch: &mut EnvelopeScratch) -> Result<InferRequest<'a>> {
    let mut request = InferRequest { model_name: "", model_version: None, envelope: scratch.take() };
    let mut raw = scratch.take_raw();
    let result = read_request(message, &mut request, &mut raw)
        .and_then(|()| attach_raw_contents(&mut request.envelope.inputs, &raw));
    scratch.recycle_raw(raw);
    match result {
        Ok(()) => Ok(request),
        Err(error) => {
            scratch.recycle(&mut request.envelope);
            Err(error)
        }
    }
}

fn read_request<'a>(message: &'a [u8], into: &mut InferRequest<'a>, raw: &mut Vec<&'a [u8]>) -> Result<()> {
    let mut fields = FieldReader::new(message);
    let envelope = &mut into.envelope;
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => into.model_name = value.text("model_name")?,
            2 => into.model_version = Some(value.text("model_version")?).filter(|name| !name.is_empty()),
            3 => envelope.id = Some(Cow::Borrowed(value.text("id")?)),
            4 => {
                let (key, value) = read_parameter(value.bytes("parameters")?)?;
                set_request_parameter(&mut envelope.parameters, key, value)?;
            }
            5 => {
                let input = read_input(value.bytes("inputs")?, envelope.inputs.len())?;
                check_new("inputs", &input.name, envelope.inputs.iter().map(|input| &*input.name))?;
                envelope.inputs.push(input);
            }
            6 => {
                let output = read_output(value.bytes("outputs")?, envelope.outputs.len())?;
                check_new("outputs", &output.name, envelope.outputs.iter().map(|output| &*output.name))?;
                envelope.outputs.push(output);
            }
            7 if raw.len() == MAX_TENSORS => {
                return Err(Error::invalid(format!(
                    "raw_input_contents has more than {MAX_TENSORS} entries"
                )));
            }
            7 => raw.push(value.bytes("raw_input_contents")?),
            _ => {}
        }
    }
    Ok(())
}

/// Gives each input its raw contents, and checks that all inputs have contents of one kind.
fn attach_raw_contents<'a>(inputs: &mut [InputTensor<'a>], raw: &[&'a [u8]]) -> Result<()> {
    if raw.is_empty() {
        return inputs.iter().try_for_each(check_typed_contents);
    }
    if let Some(input) = inputs.iter().find(
        |input| matches!(input.source, ElementSource::ProtobufContents(contents) if !contents.is_empty()),
    ) {
        return Err(Error::invalid(format!(
            "input \"{}\" has contents, and the request has raw_input_contents; send all inputs one way",
            input.name
        )));
    }
    if raw.len() != inputs.len() {
        return Err(Error::invalid(format!(
            "the request has {} inputs and {} raw_input_contents; it needs one for each input",
            inputs.len(),
            raw.len()
        )));
    }
    for (input, raw) in inputs.iter_mut().zip(raw) {
        binary::check_raw(raw.len(), input.datatype, &input.shape, &input.name)?;
        input.source = ElementSource::Binary(raw);
    }
    Ok(())
}

/// Refuses contents that cannot have as many elements as their shape, before a buffer of that shape is made.
fn check_typed_contents(input: &InputTensor<'_>) -> Result<()> {
    let name = &input.name;
    if matches!(input.datatype, DataType::Fp16 | DataType::Bf16) {
        return Err(Error::invalid(format!(
            "input \"{name}\": {} has no typed contents; send it in raw_input_contents",
            input.datatype
        )));
    }
    // The shortest number is a byte; a string has a tag and a length.
    let least = if input.datatype == DataType::Bytes { 2 } else { 1 };
    match input.source {
        ElementSource::ProtobufContents(contents) if input.shape.count() > contents.len() / least => {
            Err(Error::invalid(format!(
                "input \"{name}\" of shape {:?} needs {} elements; its contents are {} bytes",
                input.shape,
                input.shape.count(),
                contents.len()
            )))
        }
        _ => Ok(()),
    }
}

fn check_new<'n>(list: &str, name: &str, mut earlier: impl ExactSizeIterator<Item = &'n str>) -> Result<()> {
    if earlier.len() == MAX_TENSORS {
        return Err(Error::invalid(format!("{list} has more than {MAX_TENSORS} entries")));
    }
    if earlier.any(|known| known == name) {
        return Err(Error::invalid(format!("{list} has \"{name}\" twice")));
    }
    Ok(())
}

fn read_input(message: &[u8], index: usize) -> Result<InputTensor<'_>> {
    let mut fields = FieldReader::new(message);
    let (mut name, mut datatype, mut contents) = ("", "", None);
    let mut dims = ShapeBuilder::default();
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = value.text("an input's name")?,
            2 => datatype = value.text("an input's datatype")?,
            3 => dims.add(value)?,
            4 => {
                let (key, _) = read_parameter(value.bytes("an input's parameters")?)?;
                refuse_shared_memory(key, || format!("inputs[{index}]"))?;
            }
            5 if contents.is_some() => {
                return Err(Error::invalid(format!("inputs[{index}] has contents twice")));
            }
            5 => contents = Some(value.bytes("an input's contents")?),
            _ => {}
        }
    }
    if name.is_empty() {
        return Err(Error::invalid(format!("inputs[{index}] has no name")));
    }
    let known = DataType::parse(datatype).ok_or_else(|| {
        let known: Vec<&str> = DataType::ALL.iter().map(|datatype| datatype.as_str()).collect();
        Error::invalid(format!(
            "input \"{name}\": datatype \"{datatype}\" is not one of {}",
            known.join(", ")
        ))
    })?;
    let shape = dims.shape().map_err(|error| Error::invalid(format!("input \"{name}\": {error}")))?;
    let source = ElementSource::ProtobufContents(contents.unwrap_or_default());
    Ok(InputTensor {
        name: Cow::Borrowed(name),
        datatype: known,
        shape,
        source,
        base64: false,
        non_finite: NonFinite::Error,
    })
}

fn read_output(message: &[u8], index: usize) -> Result<RequestedOutput<'_>> {
    let mut fields = FieldReader::new(message);
    let mut output = RequestedOutput { name: Cow::Borrowed(""), binary_data: None, classification: None };
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => output.name = Cow::Borrowed(value.text("an output's name")?),
            2 => {
                let (key, value) = read_parameter(value.bytes("an output's parameters")?)?;
                refuse_shared_memory(key, || format!("outputs[{index}]"))?;
                if key == "classification" {
                    output.classification = Some(value.positive(key)?);
                }
            }
            _ => {}
        }
    }
    if output.name.is_empty() {
        return Err(Error::invalid(format!("outputs[{index}] has no name")));
    }
    Ok(output)
}

/// The dimensions of a shape that were read so far, packed or one by one.
#[derive(Default)]
struct ShapeBuilder {
    dims: [i64; MAX_RANK],
    rank: usize,
}

impl ShapeBuilder {
    fn add(&mut self, value: WireValue<'_>) -> Result<()> {
        match value {
            WireValue::Varint(dim) => self.push(dim as i64),
            WireValue::Bytes(packed) => {
                let mut packed = FieldReader::new(packed);
                while !packed.rest.is_empty() {
                    let dim = packed.varint()?;
                    self.push(dim as i64)?;
                }
                Ok(())
            }
            _ => Err(malformed("a shape with another wire type")),
        }
    }

    fn push(&mut self, dim: i64) -> Result<()> {
        let slot = self
            .dims
            .get_mut(self.rank)
            .ok_or_else(|| Error::invalid(format!("a shape has at most {MAX_RANK} dimensions")))?;
        *slot = dim;
        self.rank += 1;
        Ok(())
    }

    fn shape(&self) -> Result<Shape> {
        Shape::new(&self.dims[..self.rank])
    }
}

/// Reads an entry of a map: a name and an `InferParameter`.
pub(super) fn read_parameter(entry: &[u8]) -> Result<(&str, ParameterValue<'_>)> {
    let mut fields = FieldReader::new(entry);
    let (mut key, mut chosen) = ("", None);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => key = value.text("a parameter's name")?,
            2 => chosen = read_parameter_value(value.bytes("a parameter's value")?)?.or(chosen),
            _ => {}
        }
    }
    let value = chosen.ok_or_else(|| Error::invalid(format!("parameter \"{key}\" has no value")))?;
    Ok((key, value))
}

/// Reads the value of an `InferParameter`. If there are several, the last one counts.
fn read_parameter_value(message: &[u8]) -> Result<Option<ParameterValue<'_>>> {
    let mut fields = FieldReader::new(message);
    let mut chosen = None;
    while let Some(field) = fields.next()? {
        chosen = match field {
            (1, WireValue::Varint(flag)) => Some(ParameterValue::Bool(flag != 0)),
            (2, WireValue::Varint(integer)) => Some(ParameterValue::Integer(integer as i64)),
            (3, value) => Some(ParameterValue::Text(Cow::Borrowed(value.text("a parameter's string")?))),
            (4, WireValue::Fixed64(bits)) => Some(ParameterValue::Number(f64::from_le_bytes(bits))),
            (5, WireValue::Varint(integer)) => Some(match i64::try_from(integer) {
                Ok(integer) => ParameterValue::Integer(integer),
                Err(_) => ParameterValue::Number(integer as f64),
            }),
            (1 | 2 | 4 | 5, _) => return Err(malformed("a parameter with another wire type")),
            _ => chosen,
        };
    }
    Ok(chosen)
}

fn set_request_parameter<'a>(
    into: &mut Parameters<'a>,
    key: &'a str,
    value: ParameterValue<'a>,
) -> Result<()> {
    let repeated = match key {
        // Tensors of responses are always raw.
        "binary_data_output" => false,
        "timeout" => into.timeout_us.replace(value.unsigned(key)?).is_some(),
        "priority" => into.priority.replace(value.unsigned(key)?).is_some(),
        "triton_enable_empty_final_response" => {
            into.marks_final = value == ParameterValue::Bool(true);
            false
        }
        _ => into.add_custom(Cow::Borrowed(key), value)?,
    };
    if repeated { Err(Error::invalid(format!("parameter \"{key}\" is given twice"))) } else { Ok(()) }
}
