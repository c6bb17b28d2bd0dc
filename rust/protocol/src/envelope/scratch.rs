//! The memory of past envelopes: their lists, and the JSON that repeats.
//!
//! Next: `envelope/skeleton`.

use std::borrow::Cow;

use headgate_core::reuse::reuse_allocation;

use super::skeleton::Skeletons;
use super::types::{Envelope, InputTensor, ParameterValue, RequestedOutput};

/// Memory of past envelopes for the next one, so that an ordinary request allocates nothing.
#[derive(Debug, Default)]
pub struct EnvelopeScratch {
    inputs: Vec<InputTensor<'static>>,
    outputs: Vec<RequestedOutput<'static>>,
    custom: Vec<(Cow<'static, str>, ParameterValue<'static>)>,
    raw: Vec<&'static [u8]>,
    /// The JSON of past requests.
    pub(super) skeletons: Skeletons,
}

impl EnvelopeScratch {
    /// An empty envelope in the memory of a past one.
    pub(crate) fn take<'a>(&mut self) -> Envelope<'a> {
        let mut envelope = Envelope::default();
        self.lend(&mut envelope);
        envelope
    }

    /// Gives the memory of a past envelope to one that has nothing yet.
    pub(super) fn lend(&mut self, envelope: &mut Envelope<'_>) {
        envelope.parameters.custom = std::mem::take(&mut self.custom);
        envelope.inputs = std::mem::take(&mut self.inputs);
        envelope.outputs = std::mem::take(&mut self.outputs);
    }

    /// Takes back the memory of an envelope that is no longer needed.
    pub fn recycle(&mut self, envelope: &mut Envelope<'_>) {
        self.inputs = reuse_allocation(std::mem::take(&mut envelope.inputs));
        self.outputs = reuse_allocation(std::mem::take(&mut envelope.outputs));
        self.custom = reuse_allocation(std::mem::take(&mut envelope.parameters.custom));
    }

    /// An empty list of raw contents in the memory of a past one.
    pub(crate) fn take_raw<'a>(&mut self) -> Vec<&'a [u8]> {
        std::mem::take(&mut self.raw)
    }

    pub(crate) fn recycle_raw(&mut self, raw: Vec<&[u8]>) {
        self.raw = reuse_allocation(raw);
    }
}
