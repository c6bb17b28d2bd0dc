//! A captured request as a row of a file.
//!
//! Next: `headgate_capture::batch`.

use headgate_capture::layout::{FileLayout, Side};
use headgate_capture::row::{CapturedRow, Elements, RowFacts, TensorData};
use headgate_core::error::Result;
use headgate_core::tensor::{Shape, Signature};
use headgate_engine::RunResult;
use headgate_engine::runtime::{self, TensorView};

use crate::capture::queue::CapturedRequest;
use crate::copied_run::Answer;

/// The tensors of a request, in the order of a layout.
pub struct RowTensors<'a>(Vec<Option<RowTensor<'a>>>);

struct RowTensor<'a> {
    view: TensorView<'a>,
    shape: Shape,
}

impl<'a> From<TensorView<'a>> for RowTensor<'a> {
    fn from(view: TensorView<'a>) -> RowTensor<'a> {
        RowTensor { shape: view.shape.to_shape(), view }
    }
}

impl<'a> RowTensors<'a> {
    /// Views the tensors of a request.
    ///
    /// # Errors
    /// `internal` if one cannot be viewed.
    pub fn of(request: &'a CapturedRequest) -> Result<RowTensors<'a>> {
        let layout = &request.destination.target.layout;
        let Some(copied) = &request.run else { return Ok(RowTensors(none_of(layout))) };
        let signature = copied.run.model().signature();
        let mut views = inputs(&copied.run, signature)?;
        match copied.answer {
            Answer::Outputs => {
                for index in 0..signature.outputs.len() {
                    views.push(Some(copied.run.output(index)?.into()));
                }
            }
            Answer::Failed(_) => views.extend(signature.outputs.iter().map(|_| None)),
        }
        Ok(RowTensors(views))
    }

    /// The row with these tensors.
    pub fn row(&self, facts: RowFacts) -> CapturedRow<'_> {
        CapturedRow { facts, tensors: self.0.iter().map(|tensor| tensor.as_ref().map(data)).collect() }
    }
}

/// The required inputs and the optional ones, some of which the request did not give.
fn inputs<'a>(run: &'a RunResult, signature: &Signature) -> Result<Vec<Option<RowTensor<'a>>>> {
    let required = signature.inputs.len();
    let mut views = Vec::with_capacity(required + signature.optional_inputs.len() + signature.outputs.len());
    for index in 0..required {
        views.push(Some(run.input(index)?.into()));
    }
    views.extend(signature.optional_inputs.iter().map(|_| None));
    for (index, tensor) in run.optional_inputs() {
        views[required + index] = Some(tensor.view()?.into());
    }
    Ok(views)
}

fn none_of<'a>(layout: &FileLayout) -> Vec<Option<RowTensor<'a>>> {
    debug_assert!(
        layout.tensors.iter().map(|tensor| tensor.side).is_sorted_by_key(|side| side == Side::Output)
    );
    layout.tensors.iter().map(|_| None).collect()
}

fn data<'a>(tensor: &'a RowTensor<'_>) -> TensorData<'a> {
    let elements = match &tensor.view.data {
        runtime::Elements::Bytes(bytes) => Elements::Fixed(bytes),
        runtime::Elements::Strings { bytes, offsets } => Elements::Strings { bytes, offsets },
    };
    TensorData { shape: tensor.shape.dims(), elements }
}
