//! Proves by runs whether a model writes its outputs into buffers that it gets. This happens once, before a buffer is used for a
//! response.
//!
//! In one run the runtime allocates every output. Two more runs get buffers with a pattern, each with another one: an output that
//! is not written keeps the pattern, and two patterns cannot both equal the right output. Next: `shape_rule`.

use headgate_core::error::{Code, Result};
use headgate_core::tensor::Shape;

use crate::shape_rule::{OutputRules, Preallocation};

/// The patterns in the buffers.
const PATTERNS: [u8; 2] = [0x5A, 0xA5];

/// One output of a run.
pub(crate) struct ObservedOutput {
    /// The shape.
    pub(crate) shape: Shape,
    /// The elements; none for strings, which have no buffer.
    pub(crate) bytes: Vec<u8>,
    /// The shape that its rule predicts, if it has a rule.
    pub(crate) predicted: Option<Shape>,
    /// Whether it is in a buffer that was made before the run.
    pub(crate) is_preallocated: bool,
}

/// Runs the model, and marks the rule of each output as proven or wrong. `run` fills the buffers with the pattern.
///
/// # Errors
/// Those of `run` without buffers; with buffers, want of memory and cancellation only.
pub(crate) fn prove_rules(
    rules: &OutputRules,
    mut run: impl FnMut(Preallocation, u8) -> Result<Vec<ObservedOutput>>,
) -> Result<()> {
    if !rules.has_unproven() {
        return Ok(());
    }
    let expected = run(Preallocation::Nothing, 0)?;
    for (index, output) in expected.iter().enumerate() {
        if output.predicted.is_some_and(|shape| shape != output.shape) {
            rules.mark_wrong(index);
        }
    }
    let mut proven = vec![true; expected.len()];
    for pattern in PATTERNS {
        let found = match run(Preallocation::Unproven, pattern) {
            Ok(found) => found,
            Err(error) if error.code == Code::BackendFailed => {
                // The model has just run without buffers, so that they are the cause.
                rules.mark_all_wrong();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            proven[index] &= found.is_preallocated;
            if found.is_preallocated && (found.shape != expected.shape || found.bytes != expected.bytes) {
                rules.mark_wrong(index);
            }
        }
    }
    (0..proven.len()).filter(|&index| proven[index]).for_each(|index| rules.mark_proven(index));
    Ok(())
}

#[cfg(test)]
mod tests {
    use headgate_core::error::Error;
    use headgate_core::tensor::{DataType, Signature, TensorSpec};

    use super::*;

    fn rules(outputs: usize) -> OutputRules {
        let spec = |name| TensorSpec {
            name,
            datatype: DataType::Uint8,
            shape: vec![1],
            symbols: Vec::new(),
            any_rank: false,
            labels: Vec::new(),
        };
        let outputs = (0..outputs).map(|at| spec(format!("y{at}"))).collect();
        OutputRules::derive(
            &Signature { inputs: vec![spec("x".to_owned())], outputs, ..Signature::default() },
            &[],
        )
    }

    fn found(bytes: u8, is_preallocated: bool) -> ObservedOutput {
        let shape = Shape::new(&[1]).unwrap();
        ObservedOutput { shape, bytes: vec![bytes], predicted: Some(shape), is_preallocated }
    }

    fn trusted(rules: &OutputRules, outputs: usize) -> Vec<bool> {
        let shape = Shape::new(&[1]).unwrap();
        (0..outputs).map(|at| rules.shape(at, Preallocation::Proven, |_| &shape).is_some()).collect()
    }

    #[test]
    fn an_output_that_keeps_what_was_there_gets_no_buffer() {
        let rules = rules(3);
        assert_eq!(trusted(&rules, 3), [false; 3], "nothing before a run");
        // The second is not written, although its right value equals one of the patterns.
        let runs = |preallocation, pattern| {
            let ours = preallocation == Preallocation::Unproven;
            Ok(vec![found(7, ours), found(if ours { pattern } else { PATTERNS[0] }, ours), found(9, false)])
        };
        prove_rules(&rules, runs).unwrap();
        assert_eq!(trusted(&rules, 3), [true, false, false], "the third never had a buffer");
        rules.mark_proven(1);
        assert_eq!(trusted(&rules, 3), [true, false, false], "distrust is for good");
    }

    #[test]
    fn a_model_that_fails_with_buffers_gets_none_and_want_of_memory_proves_nothing() {
        for (code, is_error, unproven) in
            [(Code::BackendFailed, false, false), (Code::Overloaded, true, true)]
        {
            let rules = rules(1);
            let runs = |preallocation, _| match preallocation {
                Preallocation::Nothing => Ok(vec![found(7, false)]),
                _ => Err(Error::new(code, "no")),
            };
            assert_eq!(prove_rules(&rules, runs).is_err(), is_error);
            assert_eq!((trusted(&rules, 1), rules.has_unproven()), (vec![false], unproven));
        }
        let rules = rules(1);
        let other = Shape::new(&[2]).unwrap();
        prove_rules(&rules, |_, _| {
            Ok(vec![ObservedOutput { shape: other, bytes: vec![7; 2], ..found(7, false) }])
        })
        .unwrap();
        assert!(!rules.has_unproven() && trusted(&rules, 1) == [false]);
    }
}
