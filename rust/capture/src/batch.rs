//! The rows of one record batch, column by column, until they are encoded.
//!
//! Fixed columns come first, then for each tensor its shape and its elements:
//!
//! ```text
//! time  request  version  digest  revision  unit  reason  rule  code  run_ns  total_ns  [input_shape.X  input.X] ...
//! ```
//! What is left out of a tensor never reaches a buffer of a batch. Next: `ipc`.

use std::sync::Arc;

use crate::columns::{Body, Numbers, Texts};
use crate::ipc;
use crate::layout::FileLayout;
use crate::row::CapturedRow;
use crate::tensor_column::TensorColumn;

/// The most bytes of a row: offsets within a batch have 32 bits.
pub(crate) const MAX_ROW_BYTES: usize = 1 << 30;

/// Why a row cannot be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    /// It has more than [`MAX_ROW_BYTES`].
    #[error("the request has more than 1 GiB")]
    TooLarge,
    /// A tensor is not what the layout says of it.
    #[error("a tensor of the request does not have the shape and the type that its version declares")]
    Mismatch,
}

/// The rows of one record batch.
pub(crate) struct BatchBuilder {
    layout: Arc<FileLayout>,
    rows: usize,
    bytes: usize,
    time: Numbers<i64>,
    request: Numbers<u64>,
    version: Texts,
    digest: Texts,
    revision: Numbers<u64>,
    unit: Numbers<u64>,
    reason: Texts,
    rule: Numbers<u16>,
    code: Texts,
    run_ns: Numbers<u64>,
    total_ns: Numbers<u64>,
    tensors: Vec<TensorColumn>,
}

impl BatchBuilder {
    /// An empty batch of a file with that layout.
    pub(crate) fn new(layout: Arc<FileLayout>) -> BatchBuilder {
        BatchBuilder {
            rows: 0,
            bytes: 0,
            time: Numbers::default(),
            request: Numbers::default(),
            version: Texts::default(),
            digest: Texts::default(),
            revision: Numbers::default(),
            unit: Numbers::default(),
            reason: Texts::default(),
            rule: Numbers::default(),
            code: Texts::default(),
            run_ns: Numbers::default(),
            total_ns: Numbers::default(),
            tensors: layout.tensors.iter().map(TensorColumn::new).collect(),
            layout,
        }
    }

    /// The layout.
    pub(crate) fn layout(&self) -> &Arc<FileLayout> {
        &self.layout
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of the rows, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a row with so many bytes fits into the batch, beside those that it has.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= MAX_ROW_BYTES
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The batch is as it was then.
    pub(crate) fn push(&mut self, row: &CapturedRow<'_>) -> Result<(), RowError> {
        let bytes = row.bytes();
        if !self.has_room(bytes) {
            return Err(RowError::TooLarge);
        }
        let fits = row.tensors.len() == self.tensors.len()
            && self.tensors.iter().zip(&row.tensors).all(|(column, data)| column.fits(data.as_ref()));
        if !fits {
            return Err(RowError::Mismatch);
        }
        self.push_facts(row);
        for (column, data) in self.tensors.iter_mut().zip(&row.tensors) {
            column.push(data.as_ref());
        }
        self.rows += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn push_facts(&mut self, row: &CapturedRow<'_>) {
        let facts = &row.facts;
        self.time.push(Some(facts.time_us));
        self.request.push(Some(facts.request));
        self.version.push(&self.layout.version.version);
        self.digest.push(&self.layout.version.digest);
        self.revision.push(Some(facts.revision));
        self.unit.push(facts.unit);
        self.reason.push(facts.reason);
        self.rule.push(facts.rule);
        self.code.push(facts.code);
        self.run_ns.push(facts.run_ns);
        self.total_ns.push(Some(facts.total_ns));
    }

    /// The message of the batch as the stream has it. The batch is empty afterwards.
    pub(crate) fn encode(&mut self) -> Vec<u8> {
        let mut body = Body::default();
        self.time.write(&mut body);
        self.request.write(&mut body);
        self.version.write(&mut body);
        self.digest.write(&mut body);
        self.revision.write(&mut body);
        self.unit.write(&mut body);
        self.reason.write(&mut body);
        self.rule.write(&mut body);
        self.code.write(&mut body);
        self.run_ns.write(&mut body);
        self.total_ns.write(&mut body);
        for tensor in &self.tensors {
            tensor.write(&mut body);
        }
        let message = ipc::batch(self.rows, &body);
        *self = BatchBuilder::new(self.layout.clone());
        message
    }
}
