//! Outputs whose shape is known before the run: their buffers are made once and used again.
//!
//! Not here: the buffers (`binding`), and the distrust of a model that gives another shape than it declares (`session`).

use headgate_core::tensor::{MAX_RANK, Shape, TensorSpec};

/// How an output's shape follows from the inputs'.
pub(crate) struct ShapeRule(Vec<Dim>);

enum Dim {
    Fixed(i64),
    SameAs { input: usize, axis: usize },
}

impl ShapeRule {
    /// The rule of an output if each of its dimensions is fixed or bears the name of an input's dimension.
    ///
    /// There is none for an output that is an input of the graph: the runtime answers with the input's tensor and leaves a buffer
    /// that it was given as it is.
    pub(crate) fn derive(output: &TensorSpec, inputs: &[TensorSpec]) -> Option<ShapeRule> {
        if inputs.iter().any(|input| input.name == output.name) {
            return None;
        }
        output.datatype.size()?;
        let dims = output.shape.iter().enumerate().map(|(axis, &size)| {
            if size >= 0 {
                return Some(Dim::Fixed(size));
            }
            let symbol = output.symbols.get(axis).filter(|symbol| !symbol.is_empty())?;
            inputs.iter().enumerate().find_map(|(input, spec)| {
                let axis = spec.symbols.iter().position(|other| other == symbol)?;
                Some(Dim::SameAs { input, axis })
            })
        });
        dims.collect::<Option<Vec<_>>>().map(ShapeRule)
    }

    /// The output's shape for inputs of these shapes; `None` if an input lacks a dimension, or the shape would be too large.
    pub(crate) fn apply<'a>(&self, inputs: impl Fn(usize) -> &'a Shape) -> Option<Shape> {
        let mut dims = [0i64; MAX_RANK];
        for (slot, dim) in dims.iter_mut().zip(&self.0) {
            *slot = match *dim {
                Dim::Fixed(size) => size,
                Dim::SameAs { input, axis } => *inputs(input).dims().get(axis)?,
            };
        }
        Shape::new(dims.get(..self.0.len())?).ok()
    }
}
