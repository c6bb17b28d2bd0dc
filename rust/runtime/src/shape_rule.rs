//! Rules that predict the shape of an output, so that its buffer is made before the run and used again.
//!
//! A rule may be wrong: a model may give another shape than it declares, or leave a buffer unwritten. So a rule is used only after
//! runs have proven it (`output_check`), and never again after a run for which it did not hold.
//!
//! Not here: the buffers (`binding`).

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use headgate_core::tensor::{MAX_RANK, Shape, Signature, TensorSpec};

/// Which outputs get a buffer before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preallocation {
    /// None: the runtime allocates all outputs.
    Nothing,
    /// Those whose rules are proven.
    Proven,
    /// Those whose rules are not known to be wrong.
    Unproven,
}

/// The rules of a session's outputs.
#[derive(Default)]
pub(crate) struct OutputRules(Vec<Option<OutputRule>>);

struct OutputRule {
    shape: ShapeRule,
    state: AtomicU8,
}

impl OutputRule {
    const UNPROVEN: u8 = 0;
    const PROVEN: u8 = 1;
    const WRONG: u8 = 2;
}

impl OutputRules {
    /// The rules that follow from a signature.
    ///
    /// There is no rule for an output that is an input of the graph, or an initialiser that a run may replace: the runtime returns
    /// that tensor, and leaves our buffer unwritten.
    pub(crate) fn derive(signature: &Signature, replaceable: &[String]) -> OutputRules {
        let rule = |output: &TensorSpec| {
            let inputs = signature.inputs.iter().map(|input| &input.name);
            if inputs.chain(replaceable).any(|name| *name == output.name) {
                return None;
            }
            let shape = ShapeRule::derive(output, &signature.inputs)?;
            Some(OutputRule { shape, state: AtomicU8::new(OutputRule::UNPROVEN) })
        };
        OutputRules(signature.outputs.iter().map(rule).collect())
    }

    /// The shape of an output for inputs of these shapes, if it gets a buffer.
    pub(crate) fn shape<'a>(
        &self,
        output: usize,
        preallocation: Preallocation,
        inputs: impl Fn(usize) -> &'a Shape,
    ) -> Option<Shape> {
        self.rule(output, preallocation)?.apply(inputs)
    }

    /// The rule of an output, if it gets a buffer.
    pub(crate) fn rule(&self, output: usize, preallocation: Preallocation) -> Option<&ShapeRule> {
        let rule = self.0[output].as_ref()?;
        let state = rule.state.load(Relaxed);
        let applies = match preallocation {
            Preallocation::Nothing => false,
            Preallocation::Proven => state == OutputRule::PROVEN,
            Preallocation::Unproven => state != OutputRule::WRONG,
        };
        applies.then_some(&rule.shape)
    }

    /// Whether some rule is neither proven nor wrong.
    pub(crate) fn has_unproven(&self) -> bool {
        self.0.iter().flatten().any(|rule| rule.state.load(Relaxed) == OutputRule::UNPROVEN)
    }

    /// Marks the rule of an output as proven, unless it is wrong.
    pub(crate) fn mark_proven(&self, output: usize) {
        if let Some(rule) = &self.0[output] {
            // A failed exchange is fine: the rule is proven already, or wrong for ever.
            let _ = rule.state.compare_exchange(OutputRule::UNPROVEN, OutputRule::PROVEN, Relaxed, Relaxed);
        }
    }

    /// Marks the rule of an output as wrong.
    pub(crate) fn mark_wrong(&self, output: usize) {
        if let Some(rule) = &self.0[output] {
            rule.state.store(OutputRule::WRONG, Relaxed);
        }
    }

    /// Marks all rules as wrong.
    pub(crate) fn mark_all_wrong(&self) {
        (0..self.0.len()).for_each(|output| self.mark_wrong(output));
    }
}

/// How the shape of an output follows from the shapes of the inputs.
pub(crate) struct ShapeRule(Vec<DimRule>);

enum DimRule {
    Fixed(i64),
    SameAs { input: usize, axis: usize },
}

impl ShapeRule {
    /// The rule of an output, if each of its dimensions is fixed or has the name of an input's dimension.
    fn derive(output: &TensorSpec, inputs: &[TensorSpec]) -> Option<ShapeRule> {
        output.datatype.size()?;
        let dims = output.shape.iter().enumerate().map(|(axis, &size)| {
            if size >= 0 {
                return Some(DimRule::Fixed(size));
            }
            let symbol = output.symbols.get(axis).filter(|symbol| !symbol.is_empty())?;
            inputs.iter().enumerate().find_map(|(input, spec)| {
                let axis = spec.symbols.iter().position(|other| other == symbol)?;
                Some(DimRule::SameAs { input, axis })
            })
        });
        dims.collect::<Option<Vec<_>>>().map(ShapeRule)
    }

    /// Whether this is the output's shape for inputs of these shapes. That is mostly so, and to make a shape costs more.
    pub(crate) fn gives<'a>(&self, shape: &Shape, inputs: impl Fn(usize) -> &'a Shape) -> bool {
        let dims = shape.dims();
        dims.len() == self.0.len()
            && dims.iter().zip(&self.0).all(|(size, dim)| match *dim {
                DimRule::Fixed(fixed) => *size == fixed,
                DimRule::SameAs { input, axis } => inputs(input).dims().get(axis) == Some(size),
            })
    }

    /// The output's shape for inputs of these shapes; `None` if an input lacks a dimension, or the shape would be too large.
    pub(crate) fn apply<'a>(&self, inputs: impl Fn(usize) -> &'a Shape) -> Option<Shape> {
        let mut dims = [0i64; MAX_RANK];
        for (slot, dim) in dims.iter_mut().zip(&self.0) {
            *slot = match *dim {
                DimRule::Fixed(size) => size,
                DimRule::SameAs { input, axis } => *inputs(input).dims().get(axis)?,
            };
        }
        Shape::new(dims.get(..self.0.len())?).ok()
    }
}
