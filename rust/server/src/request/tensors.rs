//! From the wire to the runtime: which input goes where, and as which type. Elements are decoded straight into the buffer that
//! the run reads.
//!
//! Not here: the way back (`outputs`).

use std::cell::RefCell;

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};
use headgate_engine::runtime::element::cast_mut;
use headgate_engine::runtime::{Binding, Tensor};
use headgate_engine::{BatchedRun, BufferLease, LoadedModel, Placement, Waiter};
use headgate_protocol::envelope::{self, ElementSource, Envelope, InputForm, InputTensor, SelectedOutput};
use headgate_protocol::strings::StringTable;
use headgate_protocol::{TypedSliceMut, binary, predict};

use crate::request::outputs;

/// The most bytes of a scratch buffer that are kept for the next request.
const MAX_SPARE_BYTES: usize = 1 << 20;
/// What the runtime takes for each string, beside its characters: a `std::string`.
const STRING_BYTES: usize = 32;

/// Memory of past requests for the next one.
#[derive(Default)]
pub struct Scratch {
    /// The envelope's lists.
    pub envelope: envelope::EnvelopeScratch,
    /// Decoded BYTES elements.
    pub strings: StringTable,
    /// The outputs that the request wants.
    pub selection: Vec<SelectedOutput>,
    /// The outputs that are written.
    pub outputs: outputs::OutputLists,
    /// The JSON of inputs that a request does not list.
    pub rearranged: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends this thread's memory of past requests, for one phase at a time.
pub fn with_scratch<R>(use_it: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(use_it)
}

/// Counts bytes that a request is about to take, or refuses it.
pub type CountBytes<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// What a request is decoded for.
pub struct RunTarget {
    /// The model, in memory for as long as the request needs it.
    pub loaded: LoadedModel,
    /// The request as the engine queues it.
    pub waiter: Waiter,
}

/// Where a request's inputs are, ready to be run.
pub enum DecodedInputs {
    /// In buffers of its own.
    Own(BufferLease),
    /// Among the rows of a batch.
    Batched(BatchedRun),
}

/// Decodes every input of the request to where the model reads it: its own buffers, or the rows of a batch.
///
/// # Errors
/// `invalid_argument` for an input that is missing, unknown, of another type or shape, or has wrong elements; `overloaded`.
///
/// `body` is what the envelope borrows from: a run reads a large, aligned tensor in place.
pub fn decode(
    envelope: &Envelope<'_>,
    body: &Bytes,
    target: RunTarget,
    scratch: &mut Scratch,
    count_bytes: CountBytes<'_>,
) -> Result<DecodedInputs> {
    let decoded = match envelope.form {
        InputForm::Listed => decode_listed(&envelope.inputs, body, target, &mut scratch.strings, count_bytes),
        _ => decode_unlisted(envelope, body, target, scratch, count_bytes),
    };
    scratch.strings.shrink(MAX_SPARE_BYTES);
    if scratch.rearranged.capacity() > MAX_SPARE_BYTES {
        scratch.rearranged = Vec::new();
    }
    decoded
}

/// A request that does not list its inputs: their names are the model's.
fn decode_unlisted(
    envelope: &Envelope<'_>,
    body: &Bytes,
    target: RunTarget,
    scratch: &mut Scratch,
    count_bytes: CountBytes<'_>,
) -> Result<DecodedInputs> {
    let Scratch { strings, rearranged, .. } = scratch;
    let model = target.loaded.model().clone();
    let signature = model.signature();
    let specs = &signature.inputs;
    if let InputForm::Raw(bytes) = envelope.form {
        let input = raw_input(bytes, specs)?;
        return match specs[0].datatype {
            DataType::Bytes => decode_raw_string(&input, bytes, target),
            _ => decode_listed(&[input], body, target, strings, count_bytes),
        };
    }
    let inputs = predict::inputs(envelope, signature, rearranged)?;
    decode_listed(&inputs, body, target, strings, count_bytes)
}

/// The only input of a request that is nothing but its bytes.
fn raw_input<'a>(bytes: &'a [u8], specs: &'a [TensorSpec]) -> Result<InputTensor<'a>> {
    Ok(InputTensor {
        shape: binary::raw_shape(bytes, specs)?,
        datatype: specs[0].datatype,
        name: specs[0].name.as_str().into(),
        source: ElementSource::Binary(bytes),
        base64: false,
        non_finite: NonFinite::Error,
    })
}

/// A BYTES element without JSON has no length in front of it either.
fn decode_raw_string(input: &InputTensor<'_>, bytes: &[u8], target: RunTarget) -> Result<DecodedInputs> {
    check_input(input, &target.loaded.signature().inputs[0])?;
    let mut lease = BufferLease::acquire(target.loaded, target.waiter.thread);
    let tensor = lease.binding_mut().input_mut(0);
    tensor.reshape(&input.shape)?;
    tensor.set_string(0, bytes)?;
    Ok(DecodedInputs::Own(lease))
}

fn decode_listed(
    inputs: &[InputTensor<'_>],
    body: &Bytes,
    target: RunTarget,
    strings: &mut StringTable,
    count_bytes: CountBytes<'_>,
) -> Result<DecodedInputs> {
    // A valid request with another number of inputs than the required ones has optional inputs.
    let has_optional = inputs.len() != target.loaded.signature().inputs.len();
    if has_optional {
        check_names(inputs, target.loaded.signature())?;
    }
    if target.loaded.placement() == Placement::Batch
        && !has_optional
        && let Some(shapes) = batchable(inputs, &target.loaded)?
    {
        return decode_into_batch(inputs, &shapes, target).map(DecodedInputs::Batched);
    }
    let mut lease = BufferLease::acquire(target.loaded, target.waiter.thread);
    let (signature, binding) = lease.signature_and_binding();
    for (index, spec) in signature.inputs.iter().enumerate() {
        let input = find(inputs, spec, signature)?;
        decode_tensor(input, binding.input_mut(index), body, strings, count_bytes)?;
    }
    if has_optional {
        decode_optional(inputs, OptionalInputs { signature, binding }, body, strings, count_bytes)?;
    }
    Ok(DecodedInputs::Own(lease))
}

/// Where the optional inputs of a run go.
struct OptionalInputs<'a> {
    signature: &'a Signature,
    binding: &'a mut Binding,
}

/// The optional inputs of a request whose names are known to be right.
#[cold]
fn decode_optional(
    inputs: &[InputTensor<'_>],
    OptionalInputs { signature, binding }: OptionalInputs<'_>,
    body: &Bytes,
    strings: &mut StringTable,
    count_bytes: CountBytes<'_>,
) -> Result<()> {
    for input in inputs {
        let specs = signature.optional_inputs.iter().enumerate();
        let Some((index, spec)) = specs.into_iter().find(|(_, spec)| spec.name == input.name) else {
            continue;
        };
        check_input(input, spec)?;
        decode_tensor(input, binding.optional_input_mut(index), body, strings, count_bytes)?;
    }
    Ok(())
}

// Inlined, because every request passes here: a call costs a small request more than the code does.
#[inline(always)]
fn decode_tensor(
    input: &InputTensor<'_>,
    tensor: &mut Tensor,
    body: &Bytes,
    strings: &mut StringTable,
    count_bytes: CountBytes<'_>,
) -> Result<()> {
    if let Some(bytes) = adoptable(input, body, tensor) {
        return tensor.adopt(&input.shape, bytes, body.len());
    }
    if tensor.datatype() != DataType::Bytes {
        tensor.reshape(&input.shape)?;
        return input.decode_into(typed(tensor)?);
    }
    // Their number is known to be right before the runtime makes an object for each.
    input.decode_strings(strings)?;
    count_bytes(input.shape.count().saturating_mul(STRING_BYTES))?;
    tensor.reshape(&input.shape)?;
    strings.view().iter().enumerate().try_for_each(|(element, bytes)| tensor.set_string(element, bytes))
}

/// The shapes of the inputs, in the signature's order, if the request may be part of a batch.
fn batchable(inputs: &[InputTensor<'_>], loaded: &LoadedModel) -> Result<Option<Vec<Shape>>> {
    let signature = loaded.signature();
    let shapes = signature.inputs.iter().map(|spec| Ok(find(inputs, spec, signature)?.shape));
    let shapes = shapes.collect::<Result<Vec<Shape>>>()?;
    Ok(loaded.batcher().is_some_and(|batcher| batcher.accepts(&shapes)).then_some(shapes))
}

fn decode_into_batch(inputs: &[InputTensor<'_>], shapes: &[Shape], target: RunTarget) -> Result<BatchedRun> {
    let model = target.loaded.model().clone();
    let signature = model.signature();
    let mut batched = BatchedRun::reserve(target.loaded, shapes, target.waiter)?;
    for (index, spec) in signature.inputs.iter().enumerate() {
        let rows = typed_bytes(batched.input_mut(index), spec.datatype)?;
        find(inputs, spec, signature)?.decode_into(rows)?;
    }
    Ok(batched)
}

/// The request's input of that name, of a type and a shape that the model takes.
fn find<'a, 'b>(
    inputs: &'a [InputTensor<'b>],
    spec: &TensorSpec,
    signature: &Signature,
) -> Result<&'a InputTensor<'b>> {
    let Some(input) = inputs.iter().find(|input| input.name == spec.name) else {
        // If another name stands in its place, the message names that.
        return Err(check_names(inputs, signature).err().unwrap_or_else(|| missing(spec, signature)));
    };
    check_input(input, spec)?;
    Ok(input)
}

/// Tensors below this are copied: that costs less than a new value of the runtime, and keeps no body.
const ADOPT_FROM: usize = 16 << 10;

/// The bytes of a large tensor in the body that can be read where they are.
fn adoptable(input: &InputTensor<'_>, body: &Bytes, tensor: &Tensor) -> Option<Bytes> {
    match input.source {
        ElementSource::Binary(bytes) if bytes.len() >= ADOPT_FROM && tensor.can_adopt(bytes) => {
            // Only what lies in this body can be kept alive by it.
            body.as_ptr_range().contains(&bytes.as_ptr()).then(|| body.slice_ref(bytes))
        }
        _ => None,
    }
}

/// Says which inputs are missing and which are too many.
fn check_names(inputs: &[InputTensor<'_>], signature: &Signature) -> Result<()> {
    let is_unknown = |input: &&InputTensor<'_>| signature.all_inputs().all(|spec| spec.name != input.name);
    if let Some(input) = inputs.iter().find(is_unknown) {
        return Err(Error::invalid(format!(
            "input {:?} is not one of the model's: {}",
            input.name,
            signature.input_names()
        )));
    }
    match signature.inputs.iter().find(|spec| inputs.iter().all(|input| input.name != spec.name)) {
        Some(spec) => Err(missing(spec, signature)),
        None => Ok(()),
    }
}

fn missing(spec: &TensorSpec, signature: &Signature) -> Error {
    Error::invalid(format!("input {:?} is missing; the model takes {}", spec.name, signature.input_names()))
}

fn check_input(input: &InputTensor<'_>, spec: &TensorSpec) -> Result<()> {
    if input.datatype != spec.datatype {
        return Err(Error::invalid(format!(
            "input {:?} is {}, the request says {}",
            spec.name, spec.datatype, input.datatype
        )));
    }
    if !spec.accepts(&input.shape) {
        return Err(Error::invalid(format!(
            "input {:?} has shape {:?}, the model takes {:?} (-1 is any size)",
            spec.name, input.shape, spec.shape
        )));
    }
    Ok(())
}

/// A tensor's elements under the protocol's types.
fn typed(tensor: &mut Tensor) -> Result<TypedSliceMut<'_>> {
    let datatype = tensor.datatype();
    let bytes = tensor.bytes_mut().ok_or_else(not_its_type)?;
    typed_bytes(bytes, datatype)
}

/// The elements in a buffer under the protocol's types.
fn typed_bytes(bytes: &mut [u8], datatype: DataType) -> Result<TypedSliceMut<'_>> {
    macro_rules! by_type {
        ($($datatype:ident),+) => {
            match datatype {
                $(DataType::$datatype => cast_mut(bytes).map(TypedSliceMut::$datatype),)+
                DataType::Bytes => None,
            }
        };
    }
    by_type!(Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64)
        .ok_or_else(not_its_type)
}

fn not_its_type() -> Error {
    Error::new(Code::Internal, "a tensor without elements of its own type")
}
