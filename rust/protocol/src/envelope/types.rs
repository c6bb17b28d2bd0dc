//! The types of an envelope, and what follows from them without decoding.
//!
//! Next: `envelope/parse`.

use std::borrow::Cow;

use headgate_core::error::{Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape, TensorSpec};

use super::reserved::refuse_reserved;
use crate::classification;

/// The most parameters without a meaning here that a request may have.
pub const MAX_PARAMETERS: usize = 64;

/// A parsed request that borrows from its body.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    /// The client's name for this request; the response repeats it.
    pub id: Option<Cow<'a, str>>,
    /// The parameters of the request.
    pub parameters: Parameters<'a>,
    /// The inputs in the client's order. Each name occurs once.
    pub inputs: Vec<InputTensor<'a>>,
    /// The outputs that the request names, each once. If there are none, all outputs are sent.
    pub outputs: Vec<RequestedOutput<'a>>,
    /// Whether the request lists its inputs, or they follow from the model's signature.
    pub form: InputForm<'a>,
    /// How JSON inputs that are not listed write NaN and infinities.
    pub non_finite: NonFinite,
}

/// The form in which a request has its inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputForm<'a> {
    /// A list of tensors with names, types and shapes.
    #[default]
    Listed,
    /// The bytes of the only input, without JSON.
    Raw(&'a [u8]),
    /// A JSON list with a row or an object of rows each: TensorFlow Serving's row form.
    Rows(&'a [u8]),
    /// A JSON list, or an object of lists by input: TensorFlow Serving's column form.
    Columns(&'a [u8]),
}

/// The parameters of a request.
#[derive(Debug, Default)]
pub struct Parameters<'a> {
    /// Whether outputs without a flag of their own are sent as binary data.
    pub binary_data_output: Option<bool>,
    /// How long the client waits, in microseconds.
    pub timeout_us: Option<u64>,
    /// The client's priority: 0 is the default, 1 the highest.
    pub priority: Option<u64>,
    /// Whether the last response to a request on a stream must be marked.
    pub marks_final: bool,
    /// Parameters without a meaning here, each name once.
    pub custom: Vec<(Cow<'a, str>, ParameterValue<'a>)>,
}

/// A parameter's value: the protocol allows strings, numbers and booleans.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A whole number within 64 bits, signed.
    Integer(i64),
    /// Any other finite number.
    Number(f64),
    /// True or false.
    Bool(bool),
}

/// One input as the request declares it.
///
/// Its shape fits the size of its source, so that a buffer of `shape.count()` elements is at most a small multiple of the
/// body.
#[derive(Debug)]
pub struct InputTensor<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its element type.
    pub datatype: DataType,
    /// Its shape.
    pub shape: Shape,
    /// The bytes of its elements.
    pub source: ElementSource<'a>,
    /// Whether the JSON strings of a BYTES input are base64.
    pub base64: bool,
    /// How its JSON writes NaN and infinities; they are refused until [`Envelope::set_non_finite`].
    pub non_finite: NonFinite,
}

/// The elements of an input, not yet decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementSource<'a> {
    /// A JSON list, brackets included. Its inside is not yet checked.
    JsonList(&'a [u8]),
    /// The only element of a tensor without dimensions, as a JSON value without brackets.
    JsonScalar(&'a [u8]),
    /// Binary data. Its length is the number of elements times their size, or for BYTES at least 4 bytes for each element.
    Binary(&'a [u8]),
    /// A protobuf message with a list of elements. Its inside is not yet checked.
    ProtobufContents(&'a [u8]),
}

/// One output that the request names.
#[derive(Debug)]
pub struct RequestedOutput<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Whether it must be sent as binary data, if the request says so.
    pub binary_data: Option<bool>,
    /// How many of the highest values to send as class strings in place of the tensor, if the request says so.
    pub classification: Option<u64>,
}

/// An output that the response must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectedOutput {
    /// Its index among the model's outputs.
    pub index: usize,
    /// Whether it is sent as binary data.
    pub binary: bool,
    /// How many of the highest values to send as class strings in place of the tensor.
    pub classification: Option<u64>,
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// Allows NaN and infinities in JSON inputs, written as the endpoint writes them in responses.
    pub fn set_non_finite(&mut self, non_finite: NonFinite) {
        self.non_finite = non_finite;
        self.inputs.iter_mut().for_each(|input| input.non_finite = non_finite);
    }

    /// Whether an output must be sent as binary data: its own flag if it has one, else the request's, else no.
    pub fn wants_binary(&self, requested: Option<&RequestedOutput<'_>>) -> bool {
        requested
            .and_then(|output| output.binary_data)
            .or(self.parameters.binary_data_output)
            .unwrap_or(false)
    }

    /// Refuses outputs that the model cannot give in the form that the request wants, before anything runs.
    ///
    /// # Errors
    /// `invalid_argument` for a requested output that the model does not have, naming those it has, and for classes
    /// of an output whose values have no order.
    pub fn check_outputs(&self, specs: &[TensorSpec]) -> Result<()> {
        for requested_output in &self.outputs {
            let Some(spec) = specs.iter().find(|spec| spec.name == requested_output.name) else {
                let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                return Err(Error::invalid(format!(
                    "output \"{}\" does not exist; the model gives \"{}\"",
                    requested_output.name,
                    known.join("\", \"")
                )));
            };
            if requested_output.classification.is_some() && spec.datatype == DataType::Bytes {
                return Err(classification::refuse_unordered(&spec.name));
            }
        }
        Ok(())
    }

    /// Writes the outputs that the response must have into `chosen` (cleared first), in the model's order.
    ///
    /// # Errors
    /// As [`Envelope::check_outputs`].
    pub fn select_outputs(&self, specs: &[TensorSpec], chosen: &mut Vec<SelectedOutput>) -> Result<()> {
        chosen.clear();
        self.check_outputs(specs)?;
        for (index, spec) in specs.iter().enumerate() {
            let requested = self.outputs.iter().find(|want| want.name == spec.name);
            if requested.is_some() || self.outputs.is_empty() {
                let classification = requested.and_then(|output| output.classification);
                chosen.push(SelectedOutput { index, binary: self.wants_binary(requested), classification });
            }
        }
        Ok(())
    }
}

// === impl Parameters ===

impl<'a> Parameters<'a> {
    /// Adds a parameter without a meaning here. Returns true if its name was there already.
    ///
    /// # Errors
    /// `invalid_argument` for reserved names and beyond [`MAX_PARAMETERS`]; `unsupported` for sequences.
    pub(crate) fn add_custom(&mut self, key: Cow<'a, str>, value: ParameterValue<'a>) -> Result<bool> {
        refuse_reserved(&key)?;
        if self.custom.iter().any(|(known, _)| *known == key) {
            return Ok(true);
        }
        if self.custom.len() == MAX_PARAMETERS {
            return Err(Error::invalid(format!("a request has at most {MAX_PARAMETERS} parameters")));
        }
        self.custom.push((key, value));
        Ok(false)
    }
}

impl ParameterValue<'_> {
    /// The value as a whole number of 0 or more.
    pub(crate) fn unsigned(&self, key: &str) -> Result<u64> {
        let whole = match self {
            ParameterValue::Integer(integer) => u64::try_from(*integer).ok(),
            _ => None,
        };
        whole.ok_or_else(|| {
            Error::invalid(format!("parameter \"{key}\" must be a whole number that is not negative"))
        })
    }

    /// The value as a whole number above 0.
    pub(crate) fn positive(&self, key: &str) -> Result<u64> {
        self.unsigned(key)
            .ok()
            .filter(|&number| number > 0)
            .ok_or_else(|| Error::invalid(format!("parameter \"{key}\" must be a whole number above 0")))
    }
}
