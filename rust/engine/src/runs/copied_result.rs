//! The inputs and outputs of a request that left its batch: copied, so that they keep no slab in use.

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, Shape};
use headgate_runtime::{Elements, TensorView};

use crate::models::Model;

/// Copies of the inputs and outputs of a request.
pub struct CopiedResult {
    model: Arc<Model>,
    rows: usize,
    /// The inputs, and then the outputs.
    tensors: Vec<CopiedTensor>,
    inputs: usize,
    /// The elements of all tensors. Each tensor begins with a word, so that it is aligned for its type.
    words: Vec<u64>,
}

struct CopiedTensor {
    datatype: DataType,
    shape: Shape,
    first_word: usize,
    bytes: usize,
}

impl CopiedResult {
    /// Copies tensors of `rows` rows, the inputs before the outputs.
    ///
    /// # Errors
    /// `internal` for strings, which no batch has.
    pub(super) fn of(
        model: Arc<Model>,
        rows: usize,
        inputs: &[TensorView<'_>],
        outputs: &[TensorView<'_>],
    ) -> Result<CopiedResult> {
        let mut copied =
            CopiedResult { model, rows, tensors: Vec::new(), inputs: inputs.len(), words: Vec::new() };
        copied.tensors.reserve_exact(inputs.len() + outputs.len());
        copied.words.reserve_exact(inputs.iter().chain(outputs).map(words_of).sum());
        inputs.iter().chain(outputs).try_for_each(|view| copied.push(view))?;
        Ok(copied)
    }

    fn push(&mut self, view: &TensorView<'_>) -> Result<()> {
        let Elements::Bytes(bytes) = view.data else {
            return Err(Error::new(Code::Internal, "strings in a batch"));
        };
        let (datatype, shape, first_word) = (view.datatype, view.shape.to_shape(), self.words.len());
        let (whole, rest) = bytes.as_chunks::<8>();
        self.words.extend(whole.iter().map(|word| u64::from_ne_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.words.push(u64::from_ne_bytes(word));
        }
        self.tensors.push(CopiedTensor { datatype, shape, first_word, bytes: bytes.len() });
        Ok(())
    }

    /// The model.
    pub(super) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes that it keeps in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// An input.
    pub(super) fn input(&self, index: usize) -> Result<TensorView<'_>> {
        self.tensor(index)
    }

    /// An output.
    pub(super) fn output(&self, index: usize) -> Result<TensorView<'_>> {
        self.tensor(self.inputs + index)
    }

    #[allow(unsafe_code, reason = "words are read as the bytes that they were made of")]
    fn tensor(&self, index: usize) -> Result<TensorView<'_>> {
        let missing = || Error::new(Code::Internal, "a tensor that was not copied");
        let CopiedTensor { datatype, shape, first_word, bytes } =
            self.tensors.get(index).ok_or_else(missing)?;
        let words = &self.words[*first_word..];
        // SAFETY: a word is eight bytes without padding, and `bytes` bytes lie in the words from `first_word` on.
        let all = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words)) };
        Ok(TensorView { datatype: *datatype, shape: shape.view(), data: Elements::Bytes(&all[..*bytes]) })
    }
}

fn words_of(view: &TensorView<'_>) -> usize {
    match view.data {
        Elements::Bytes(bytes) => bytes.len().div_ceil(size_of::<u64>()),
        Elements::Strings { .. } => 0,
    }
}
