//! A captured request as a pair: what was asked and what was answered, from a row of a file.
//!
//! Next: `source`.

use headgate_capture::layout::{FileLayout, Redaction, Side, TensorLayout};
use headgate_capture::reader::{RecordedElements, RecordedRow, RecordedTensor};
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{ShapeRef, Signature, TensorSpec};
use headgate_engine::runtime::{Elements, TensorView};

use crate::shadow::pair::{OutputTensors, RecordedPair};

/// The tensors of a file's rows: which of them a version is asked with, and which answers are compared.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordedTensors {
    /// As the version that answered declares them, without outputs that were left out.
    pub signature: Signature,
    /// Where each output of the signature is in a row.
    outputs: Vec<usize>,
}

impl RecordedTensors {
    /// The tensors of a layout.
    ///
    /// # Errors
    /// The first input of which something was left out: a version that is asked without it is asked something else.
    pub fn of(layout: &FileLayout) -> std::result::Result<RecordedTensors, String> {
        let mut tensors = RecordedTensors { signature: Signature::default(), outputs: Vec::new() };
        for (index, tensor) in layout.tensors.iter().enumerate() {
            match (tensor.side, &tensor.redacted) {
                (Side::Input, Redaction::None) if tensor.optional => {
                    tensors.signature.optional_inputs.push(spec(tensor));
                }
                (Side::Input, Redaction::None) => tensors.signature.inputs.push(spec(tensor)),
                (Side::Input, _) => {
                    return Err(format!(
                        "what was captured leaves out values of the input {:?} (capture.redact)",
                        tensor.name
                    ));
                }
                (Side::Output, Redaction::None) => {
                    tensors.signature.outputs.push(spec(tensor));
                    tensors.outputs.push(index);
                }
                (Side::Output, _) => {}
            }
        }
        Ok(tensors)
    }
}

fn spec(tensor: &TensorLayout) -> TensorSpec {
    TensorSpec {
        name: tensor.name.clone(),
        datatype: tensor.datatype,
        shape: tensor.shape.clone(),
        symbols: Vec::new(),
        any_rank: tensor.any_rank,
        labels: Vec::new(),
    }
}

/// A row with the tensors of its file.
pub struct RecordedRequest<'a> {
    /// The tensors.
    pub tensors: &'a RecordedTensors,
    /// The row.
    pub row: &'a RecordedRow,
}

impl RecordedRequest<'_> {
    /// Whether the version answered, whether or not a response could be written from its outputs: JSON has no NaN, for example.
    pub fn is_answered(&self) -> bool {
        let outputs = &self.tensors.outputs;
        let has_output = |&index: &usize| self.row.tensors.get(index).is_some_and(Option::is_some);
        // Without an output in the file only the code says it.
        self.row.code == "ok" || !outputs.is_empty() && outputs.iter().all(has_output)
    }

    fn view(&self, spec: &TensorSpec, index: usize) -> Result<TensorView<'_>> {
        let tensor = self.row.tensors.get(index).and_then(Option::as_ref);
        let tensor = tensor.ok_or_else(|| {
            Error::new(Code::Internal, format!("the captured request has no tensor {:?}", spec.name))
        })?;
        view(spec, tensor)
    }
}

fn view<'a>(spec: &TensorSpec, tensor: &'a RecordedTensor) -> Result<TensorView<'a>> {
    let data = match &tensor.elements {
        RecordedElements::Fixed(bytes) => Elements::Bytes(bytes),
        RecordedElements::Strings { bytes, offsets } => {
            Elements::Strings { bytes: bytes.clone(), offsets: offsets.clone() }
        }
    };
    Ok(TensorView { datatype: spec.datatype, shape: ShapeRef::new(&tensor.shape)?, data })
}

impl RecordedPair for RecordedRequest<'_> {
    fn signature(&self) -> &Signature {
        &self.tensors.signature
    }

    fn rows(&self) -> usize {
        let first = self.row.tensors.first().and_then(Option::as_ref);
        first.and_then(|tensor| tensor.shape.first()).map_or(1, |&rows| rows as usize)
    }

    fn input(&self, index: usize) -> Result<TensorView<'_>> {
        self.view(&self.tensors.signature.inputs[index], index)
    }

    fn optional_inputs(&self) -> Result<Vec<(usize, TensorView<'_>)>> {
        let required = self.tensors.signature.inputs.len();
        let optional = self.tensors.signature.optional_inputs.iter().enumerate();
        optional
            .filter_map(|(index, spec)| {
                let tensor = self.row.tensors.get(required + index)?.as_ref()?;
                Some(view(spec, tensor).map(|view| (index, view)))
            })
            .collect()
    }
}

impl OutputTensors for RecordedRequest<'_> {
    fn output(&self, index: usize) -> Result<TensorView<'_>> {
        self.view(&self.tensors.signature.outputs[index], self.tensors.outputs[index])
    }
}
