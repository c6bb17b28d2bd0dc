//! One pass over the JSON of a request, keys in any order.
//!
//! Next: `envelope/values`.

use std::borrow::Cow;

use headgate_core::error::{Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, MAX_TENSORS, Shape};

use super::scratch::EnvelopeScratch;
use super::types::{ElementSource, Envelope, InputForm, InputTensor, RequestedOutput};
use super::values::{
    datatype, expect_kind, flag, positive, refuse_byte_order_mark, repeated_key, request_parameters, shape,
    skip, tensor_parameters, text, unsigned,
};
use crate::binary::{self, BlobReader, BodyParts};
use crate::fault_context;
use crate::json_cursor::{JsonCursor, JsonKind};
use crate::json_fault::FaultKind;

impl<'a> Envelope<'a> {
    /// Parses the JSON of a body and attaches its binary tensors.
    ///
    /// Takes memory out of `scratch`; [`EnvelopeScratch::recycle`] puts it back.
    ///
    /// # Errors
    /// `invalid_argument` for everything that is not a well-formed request; `unsupported` for shared memory and
    /// sequences.
    pub fn parse(body: BodyParts<'a>, scratch: &mut EnvelopeScratch) -> Result<Envelope<'a>> {
        let mut envelope = Envelope::default();
        envelope.read(body, scratch)?;
        Ok(envelope)
    }

    /// As [`Envelope::parse`], into an envelope that has nothing yet: one that is returned is copied with all its parts.
    ///
    /// # Errors
    /// As [`Envelope::parse`]. Then the envelope has nothing.
    pub fn read(&mut self, body: BodyParts<'a>, scratch: &mut EnvelopeScratch) -> Result<()> {
        scratch.lend(self);
        if scratch.skeletons.read(body, self) {
            return Ok(());
        }
        match request(body, self) {
            Ok(()) => {
                scratch.skeletons.learn(body.json, self);
                Ok(())
            }
            Err(error) => {
                scratch.recycle(self);
                *self = Envelope::default();
                Err(error)
            }
        }
    }
}

/// Reads a whole request into an empty envelope.
fn request<'a>(body: BodyParts<'a>, into: &mut Envelope<'a>) -> Result<()> {
    let mut cursor = JsonCursor::new(body.json);
    let mut blobs = BlobReader::new(body);
    let (mut has_parameters, mut has_inputs, mut has_outputs) = (false, false, false);
    if body.json.is_empty() && body.tail.is_some() {
        into.form = InputForm::Raw(body.tail.unwrap_or_default());
        into.parameters.binary_data_output = Some(true);
        return Ok(());
    }
    if cursor.kind() != JsonKind::Object {
        refuse_byte_order_mark(body.json)?;
    }
    expect_kind(&mut cursor, JsonKind::Object, || "the request".into())?;
    cursor.present_members(|cursor, key| {
        let repeated = match &*key {
            "id" => into.id.replace(text(cursor, || "\"id\"".into())?).is_some(),
            "parameters" if !has_parameters => {
                request_parameters(cursor, &mut into.parameters)?;
                std::mem::replace(&mut has_parameters, true)
            }
            "inputs" if !has_inputs => {
                inputs(cursor, &mut blobs, &mut into.inputs)?;
                std::mem::replace(&mut has_inputs, true)
            }
            "outputs" if !has_outputs => {
                outputs(cursor, &mut into.outputs)?;
                std::mem::replace(&mut has_outputs, true)
            }
            "parameters" | "inputs" | "outputs" => true,
            _ => {
                skip(cursor)?;
                false
            }
        };
        if repeated { Err(repeated_key("the request", &key)) } else { Ok(()) }
    })?;
    if !has_inputs {
        return Err(Error::invalid("the request has no \"inputs\"; it needs a list of tensors"));
    }
    cursor.expect_end().map_err(|fault| match blobs.has_header() {
        true => fault.into(),
        false => Error::invalid(format!(
            "{} bytes follow the JSON at byte {}; if they are binary tensors, \
             Inference-Header-Content-Length must say how long \
             the JSON is",
            body.json.len() - fault.at,
            fault.at
        )),
    })?;
    blobs.finish()
}

fn inputs<'a>(
    cursor: &mut JsonCursor<'a>,
    blobs: &mut BlobReader<'a>,
    into: &mut Vec<InputTensor<'a>>,
) -> Result<()> {
    expect_kind(cursor, JsonKind::List, || "\"inputs\"".into())?;
    cursor.elements(|cursor, index| {
        expect_kind(cursor, JsonKind::Object, || format!("inputs[{index}]"))?;
        let mut draft = InputBuilder { index, ..InputBuilder::default() };
        cursor.present_members(|cursor, key| draft.member(cursor, &key))?;
        let input = draft.finish(blobs)?;
        check_new("inputs", &input.name, into.iter().map(|earlier| &*earlier.name))?;
        into.push(input);
        Ok(())
    })
}

/// Refuses a name that the list has already, and a list beyond the limit.
fn check_new<'n>(list: &str, name: &str, mut earlier: impl ExactSizeIterator<Item = &'n str>) -> Result<()> {
    if earlier.len() == MAX_TENSORS {
        return Err(Error::invalid(format!("\"{list}\" has more than {MAX_TENSORS} entries")));
    }
    if earlier.any(|known| known == name) {
        return Err(Error::invalid(format!("\"{list}\" has \"{name}\" twice")));
    }
    Ok(())
}

/// The keys of an input that were read so far.
#[derive(Default)]
struct InputBuilder<'a> {
    index: usize,
    name: Option<Cow<'a, str>>,
    datatype: Option<DataType>,
    shape: Option<Shape>,
    data: Option<&'a [u8]>,
    binary_size: Option<u64>,
    base64: bool,
    has_parameters: bool,
}

impl<'a> InputBuilder<'a> {
    /// The name of this input in messages.
    fn location(&self) -> String {
        match &self.name {
            Some(name) => format!("input \"{name}\""),
            None => format!("inputs[{}]", self.index),
        }
    }

    /// Reads the value of one key.
    fn member(&mut self, cursor: &mut JsonCursor<'a>, key: &str) -> Result<()> {
        let repeated = match key {
            "name" => {
                let index = self.index;
                self.name.replace(text(cursor, || format!("inputs[{index}]: \"name\""))?).is_some()
            }
            "datatype" => {
                let datatype = datatype(cursor, || self.location())?;
                self.datatype.replace(datatype).is_some()
            }
            "shape" => {
                let repeated = self.shape.is_some();
                self.shape = Some(shape(cursor, || self.location())?);
                repeated
            }
            "data" => {
                let data = self.data(cursor)?;
                self.data.replace(data).is_some()
            }
            "parameters" => {
                self.parameters(cursor)?;
                std::mem::replace(&mut self.has_parameters, true)
            }
            _ => {
                skip(cursor)?;
                false
            }
        };
        if repeated { Err(repeated_key(&self.location(), key)) } else { Ok(()) }
    }

    /// The extent of the elements: a list, or a value without brackets.
    fn data(&self, cursor: &mut JsonCursor<'a>) -> Result<&'a [u8]> {
        if matches!(cursor.kind(), JsonKind::Number | JsonKind::Text | JsonKind::Bool) {
            return Ok(cursor.value_extent()?);
        }
        expect_kind(cursor, JsonKind::List, || format!("{}: \"data\"", self.location()))?;
        cursor.list_extent().map_err(|fault| match fault.kind {
            FaultKind::Depth => {
                Error::invalid(format!("{}: \"data\" is nested too deep: {fault}", self.location()))
            }
            _ => Error::invalid(format!("{}: \"data\" has no end: {fault}", self.location())),
        })
    }

    fn parameters(&mut self, cursor: &mut JsonCursor<'a>) -> Result<()> {
        let (mut size, mut encoding) = (self.binary_size, None);
        tensor_parameters(
            cursor,
            || self.location(),
            |cursor, key| {
                let location = || format!("{}: \"{key}\"", self.location());
                let repeated = match key {
                    "binary_data_size" => size.replace(unsigned(cursor, location)?).is_some(),
                    "encoding" => encoding.replace(text(cursor, location)?).is_some(),
                    _ => return Ok(false),
                };
                if repeated { Err(repeated_key(&self.location(), key)) } else { Ok(true) }
            },
        )?;
        self.binary_size = size;
        self.base64 = match encoding.as_deref() {
            None | Some("utf-8") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "{}: \"encoding\" is \"{other}\"; it must be \"base64\" or \"utf-8\"",
                    self.location()
                )));
            }
        };
        Ok(())
    }

    /// Checks that the keys fit together, and takes the blob of the input.
    fn finish(mut self, blobs: &mut BlobReader<'a>) -> Result<InputTensor<'a>> {
        let Some(name) = self.name.take().filter(|name| !name.is_empty()) else {
            return Err(Error::invalid(format!("inputs[{}] has no \"name\"", self.index)));
        };
        let missing = |key: &str, example: &str| {
            Error::invalid(format!("input \"{name}\" has no \"{key}\", such as {example}"))
        };
        let datatype = self.datatype.ok_or_else(|| missing("datatype", "\"FP32\""))?;
        let shape = self.shape.ok_or_else(|| missing("shape", "[1, 64]"))?;
        let source = match (self.data, self.binary_size) {
            (Some(data), None) => json(data, &shape, &name)?,
            (None, Some(size)) => {
                binary::check_size(size, datatype, &shape, &name)?;
                ElementSource::Binary(blobs.next(size, &name)?)
            }
            (Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "input \"{name}\" has both \"data\" and \"binary_data_size\"; send one of them"
                )));
            }
            (None, None) => {
                return Err(Error::invalid(format!(
                    "input \"{name}\" has neither \"data\" nor the parameter \"binary_data_size\"; send \
                     one of them"
                )));
            }
        };
        let non_finite = NonFinite::Error;
        Ok(InputTensor { name, datatype, shape, source, base64: self.base64, non_finite })
    }
}

/// Refuses JSON data that cannot have as many elements as its shape, before a buffer of that shape is made.
fn json<'a>(data: &'a [u8], shape: &Shape, name: &str) -> Result<ElementSource<'a>> {
    if data.first() != Some(&b'[') {
        if shape.dims().is_empty() {
            return Ok(ElementSource::JsonScalar(data));
        }
        return Err(Error::invalid(format!(
            "input \"{name}\": \"data\" must be a list for shape {shape:?}; only a tensor of shape [] may be a value \
             without brackets"
        )));
    }
    // Each element takes a byte and a comma or bracket, and the list has one bracket more.
    if shape.count() > (data.len() - 1) / 2 {
        let text = fault_context::count_message(shape, fault_context::count(data));
        return Err(Error::invalid(format!("input \"{name}\": {text}")));
    }
    Ok(ElementSource::JsonList(data))
}

fn outputs<'a>(cursor: &mut JsonCursor<'a>, into: &mut Vec<RequestedOutput<'a>>) -> Result<()> {
    expect_kind(cursor, JsonKind::List, || "\"outputs\"".into())?;
    cursor.elements(|cursor, index| {
        expect_kind(cursor, JsonKind::Object, || format!("outputs[{index}]"))?;
        let output = output(cursor, index)?;
        check_new("outputs", &output.name, into.iter().map(|earlier| &*earlier.name))?;
        into.push(output);
        Ok(())
    })
}

fn output<'a>(cursor: &mut JsonCursor<'a>, index: usize) -> Result<RequestedOutput<'a>> {
    let mut name: Option<Cow<'a, str>> = None;
    let mut options = OutputOptions::default();
    let mut has_parameters = false;
    cursor.present_members(|cursor, key| {
        let location = || match &name {
            Some(name) => format!("output \"{name}\""),
            None => format!("outputs[{index}]"),
        };
        let repeated = match &*key {
            "name" => {
                let text = text(cursor, || format!("outputs[{index}]: \"name\""))?;
                name.replace(text).is_some()
            }
            "parameters" => {
                output_parameters(cursor, location, &mut options)?;
                std::mem::replace(&mut has_parameters, true)
            }
            _ => {
                skip(cursor)?;
                false
            }
        };
        if repeated { Err(repeated_key(&format!("outputs[{index}]"), &key)) } else { Ok(()) }
    })?;
    match name.filter(|name| !name.is_empty()) {
        Some(name) => {
            let OutputOptions { binary_data, classification } = options;
            Ok(RequestedOutput { name, binary_data, classification })
        }
        None => Err(Error::invalid(format!("outputs[{index}] has no \"name\""))),
    }
}

/// How the request wants an output to be sent.
#[derive(Default)]
struct OutputOptions {
    binary_data: Option<bool>,
    classification: Option<u64>,
}

fn output_parameters<'a>(
    cursor: &mut JsonCursor<'a>,
    location: impl Fn() -> String,
    options: &mut OutputOptions,
) -> Result<()> {
    tensor_parameters(cursor, &location, |cursor, key| {
        let value_location = || format!("{}: \"{key}\"", location());
        let repeated = match key {
            "binary_data" => options.binary_data.replace(flag(cursor, value_location)?).is_some(),
            "classification" => options.classification.replace(positive(cursor, value_location)?).is_some(),
            _ => return Ok(false),
        };
        if repeated { Err(repeated_key(&location(), key)) } else { Ok(true) }
    })
}
