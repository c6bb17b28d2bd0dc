//! The types of an envelope, and the questions that they answer by themselves.
//!
//! Next: `envelope/parse`.

use std::borrow::Cow;

use headgate_core::error::{Error, Result};
use headgate_core::reuse::reuse_allocation;
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape, TensorSpec};

use super::reserved::refuse_reserved;
use crate::classification;

/// The most parameters that a request may carry besides those with a meaning here.
pub const MAX_PARAMETERS: usize = 64;

/// A parsed request that borrows from its body.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    /// The client's name for this request, to be sent back.
    pub id: Option<Cow<'a, str>>,
    /// The parameters of the request.
    pub parameters: Parameters<'a>,
    /// The inputs, in the client's order, each name once.
    pub inputs: Vec<InputTensor<'a>>,
    /// The outputs that are asked for, each name once; empty means all of them.
    pub outputs: Vec<RequestedOutput<'a>>,
    /// Whether the inputs are listed, or only the model's signature says what they are.
    pub form: InputForm<'a>,
    /// What stands in JSON for a value that is no finite number, for inputs that are not listed.
    pub non_finite: NonFinite,
}

/// How a request says what its inputs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputForm<'a> {
    /// It lists them.
    #[default]
    Listed,
    /// The bytes of the only input, without a word.
    Raw(&'a [u8]),
    /// A JSON list with a row or an object of rows each: TensorFlow Serving's row form.
    Rows(&'a [u8]),
    /// A JSON list, or an object of lists by input: TensorFlow Serving's column form.
    Columns(&'a [u8]),
}

/// The parameters of a request: those with a meaning, typed, and the others.
#[derive(Debug, Default)]
pub struct Parameters<'a> {
    /// Whether outputs without a flag of their own are sent as binary data.
    pub binary_data_output: Option<bool>,
    /// How long the client would wait, in microseconds.
    pub timeout_us: Option<u64>,
    /// The client's priority: 0 is the default, 1 the highest.
    pub priority: Option<u64>,
    /// Whether a streaming client wants the last answer to a request marked as such.
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

/// One input as the request declares it. Its shape fits the size of its source, so that a buffer of
/// `shape.count()` elements is at most a small multiple of the body.
#[derive(Debug)]
pub struct InputTensor<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its element type.
    pub datatype: DataType,
    /// Its shape.
    pub shape: Shape,
    /// Where its elements are.
    pub source: ElementSource<'a>,
    /// Whether the JSON strings of a BYTES input are base64.
    pub base64: bool,
    /// What stands in its JSON for a value that is no finite number; nothing does until [`Envelope::set_non_finite`].
    pub non_finite: NonFinite,
}

/// Where the elements of an input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementSource<'a> {
    /// A JSON list, brackets included, not yet checked inside.
    JsonList(&'a [u8]),
    /// The only element of a tensor without dimensions: a JSON value without brackets.
    JsonScalar(&'a [u8]),
    /// Binary data; of `shape` times the element size, or for BYTES at least 4 bytes for each element.
    Binary(&'a [u8]),
    /// A protobuf message with a list of elements, not yet checked inside.
    ProtobufContents(&'a [u8]),
}

/// One output that the request asks for.
#[derive(Debug)]
pub struct RequestedOutput<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Whether it is to be sent as binary data, where the request says so.
    pub binary_data: Option<bool>,
    /// How many of the highest values to send as class strings in place of the tensor, where the request says so.
    pub classification: Option<u64>,
}

/// An output that will be sent: its index among the model's outputs, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectedOutput {
    /// The index in the model's order.
    pub index: usize,
    /// Whether as binary data.
    pub binary: bool,
    /// How many of the highest values to send as class strings in place of the tensor.
    pub classification: Option<u64>,
}

/// The memory of past envelopes, for the next one: with it, an ordinary request allocates nothing.
#[derive(Debug, Default)]
pub struct EnvelopeScratch {
    inputs: Vec<InputTensor<'static>>,
    outputs: Vec<RequestedOutput<'static>>,
    custom: Vec<(Cow<'static, str>, ParameterValue<'static>)>,
    raw: Vec<&'static [u8]>,
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// Takes missing and infinite values in JSON inputs, in the words in which the endpoint's answers have them.
    pub fn set_non_finite(&mut self, non_finite: NonFinite) {
        self.non_finite = non_finite;
        self.inputs.iter_mut().for_each(|input| input.non_finite = non_finite);
    }

    /// Whether an output is to be sent as binary data: its own flag if it has one, else the request's, else
    /// no.
    pub fn wants_binary(&self, requested: Option<&RequestedOutput<'_>>) -> bool {
        requested
            .and_then(|output| output.binary_data)
            .or(self.parameters.binary_data_output)
            .unwrap_or(false)
    }

    /// Refuses outputs that the model cannot give as they are asked for, before anything is run.
    ///
    /// # Errors
    /// `invalid_argument` for a requested output that the model does not have, naming those it has, and for classes
    /// of an output whose values have no order.
    pub fn check_outputs(&self, specs: &[TensorSpec]) -> Result<()> {
        for wanted in &self.outputs {
            let Some(spec) = specs.iter().find(|spec| spec.name == wanted.name) else {
                let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                return Err(Error::invalid(format!(
                    "output \"{}\" does not exist; the model gives \"{}\"",
                    wanted.name,
                    known.join("\", \"")
                )));
            };
            if wanted.classification.is_some() && spec.datatype == DataType::Bytes {
                return Err(classification::refuse_unordered(&spec.name));
            }
        }
        Ok(())
    }

    /// Which of the model's outputs to send, in the model's order, into `chosen` (cleared first).
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
    /// Keeps a parameter without a meaning here; true when its name was there before.
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
    /// The value as a whole number that is not negative.
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

// === impl Scratch ===

impl EnvelopeScratch {
    /// An empty envelope in the memory of past ones.
    pub(crate) fn take<'a>(&mut self) -> Envelope<'a> {
        Envelope {
            id: None,
            parameters: Parameters { custom: std::mem::take(&mut self.custom), ..Parameters::default() },
            inputs: std::mem::take(&mut self.inputs),
            outputs: std::mem::take(&mut self.outputs),
            form: InputForm::Listed,
            non_finite: NonFinite::Error,
        }
    }

    /// Takes back the memory of an envelope that is no longer needed.
    pub fn recycle(&mut self, envelope: Envelope<'_>) {
        self.inputs = reuse_allocation(envelope.inputs);
        self.outputs = reuse_allocation(envelope.outputs);
        self.custom = reuse_allocation(envelope.parameters.custom);
    }

    /// An empty list of raw contents in the memory of past ones.
    pub(crate) fn take_raw<'a>(&mut self) -> Vec<&'a [u8]> {
        std::mem::take(&mut self.raw)
    }

    pub(crate) fn recycle_raw(&mut self, raw: Vec<&[u8]>) {
        self.raw = reuse_allocation(raw);
    }
}
