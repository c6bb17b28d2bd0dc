//! From the wire to the runtime: which input goes where, and as which type. Elements are decoded straight into the buffer that
//! the run reads.
//!
//! Not here: the way back (`outputs`).

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, TensorSpec};
use headgate_engine::Lease;
use headgate_engine::runtime::{Binding, Tensor};
use headgate_protocol::envelope::{self, Envelope, Form, InputEnvelope, Selection, Source};
use headgate_protocol::strings::StringTable;
use headgate_protocol::{TypedMut, binary, predict};

use crate::body::Counted;

/// The most bytes of a scratch buffer that are kept for the next request.
const KEPT: usize = 1 << 20;
/// What the runtime takes for each string, beside its characters: a `std::string`.
const STRING_BYTES: usize = 32;

/// Where strings are decoded to, and what counts the memory that they take.
type Strings<'a> = (&'a mut StringTable, &'a mut Counted);

/// Memory of past requests for the next one.
#[derive(Default)]
pub struct Scratch {
    /// The envelope's lists.
    pub envelope: envelope::Scratch,
    /// Decoded BYTES elements.
    pub strings: StringTable,
    /// The outputs that were asked for.
    pub selection: Vec<Selection>,
    /// The JSON of inputs that a request does not list.
    pub rearranged: Vec<u8>,
}

/// Decodes every input of the request into the lease's buffers.
///
/// # Errors
/// `invalid_argument` for an input that is missing, unknown, of another type or shape, or has wrong elements.
///
/// `body` is what the envelope borrows from: a large tensor in it that is aligned is read where it is.
pub fn decode(
    envelope: &Envelope<'_>,
    body: &Bytes,
    lease: &mut Lease,
    scratch: &mut Scratch,
    counted: &mut Counted,
) -> Result<()> {
    let Scratch { strings, rearranged, .. } = scratch;
    let result = decode_form(envelope, body, lease, rearranged, (strings, counted));
    strings.shrink(KEPT);
    if rearranged.capacity() > KEPT {
        *rearranged = Vec::new();
    }
    result
}

fn decode_form(
    envelope: &Envelope<'_>,
    body: &Bytes,
    lease: &mut Lease,
    rearranged: &mut Vec<u8>,
    strings: Strings<'_>,
) -> Result<()> {
    let (signature, binding) = lease.parts();
    let specs = &signature.inputs;
    match envelope.form {
        Form::Listed => decode_listed(&envelope.inputs, body, specs, binding, strings),
        Form::Raw(bytes) => {
            let input = [InputEnvelope {
                shape: binary::raw_shape(bytes, specs)?,
                datatype: specs[0].datatype,
                name: specs[0].name.as_str().into(),
                source: Source::Binary(bytes),
                base64: false,
            }];
            // A BYTES element without JSON has no length in front of it either.
            if specs[0].datatype == DataType::Bytes {
                check_input(&input[0], &specs[0])?;
                let tensor = binding.input_mut(0);
                tensor.reshape(&input[0].shape)?;
                return tensor.set_string(0, bytes);
            }
            decode_listed(&input, body, specs, binding, strings)
        }
        Form::Rows(_) | Form::Columns(_) => {
            let inputs = predict::inputs(envelope.form, specs, rearranged)?;
            decode_listed(&inputs, body, specs, binding, strings)
        }
    }
}

fn decode_listed(
    inputs: &[InputEnvelope<'_>],
    body: &Bytes,
    specs: &[TensorSpec],
    binding: &mut Binding,
    (strings, counted): Strings<'_>,
) -> Result<()> {
    if inputs.len() != specs.len() {
        check_names(inputs, specs)?;
    }
    for (index, spec) in specs.iter().enumerate() {
        let Some(input) = inputs.iter().find(|input| input.name == spec.name) else {
            return check_names(inputs, specs);
        };
        check_input(input, spec)?;
        let tensor = binding.input_mut(index);
        if let Some(bytes) = adoptable(input, body, tensor) {
            tensor.adopt(&input.shape, bytes)?;
            continue;
        }
        if spec.datatype == DataType::Bytes {
            // Their number is known to be right before the runtime makes an object for each.
            input.decode_strings(strings)?;
            counted.hold(input.shape.count().saturating_mul(STRING_BYTES))?;
            tensor.reshape(&input.shape)?;
            for (element, bytes) in strings.view().iter().enumerate() {
                tensor.set_string(element, bytes)?;
            }
        } else {
            tensor.reshape(&input.shape)?;
            input.decode_into(typed(tensor)?)?;
        }
    }
    Ok(())
}

/// Tensors below this are copied: that costs less than a new value of the runtime, and keeps no body.
const ADOPT_FROM: usize = 16 << 10;

/// The bytes of a large tensor in the body that can be read where they are.
fn adoptable(input: &InputEnvelope<'_>, body: &Bytes, tensor: &Tensor) -> Option<Bytes> {
    match input.source {
        Source::Binary(bytes) if bytes.len() >= ADOPT_FROM && tensor.can_adopt(bytes) => {
            // Only what lies in this body can be kept alive by it.
            body.as_ptr_range().contains(&bytes.as_ptr()).then(|| body.slice_ref(bytes))
        }
        _ => None,
    }
}

/// Says which inputs are missing and which are too many.
fn check_names(inputs: &[InputEnvelope<'_>], specs: &[TensorSpec]) -> Result<()> {
    let known = || specs.iter().map(|spec| format!("{:?}", spec.name)).collect::<Vec<_>>().join(", ");
    if let Some(input) = inputs.iter().find(|input| specs.iter().all(|spec| spec.name != input.name)) {
        return Err(Error::invalid(format!("input {:?} is not one of the model's: {}", input.name, known())));
    }
    match specs.iter().find(|spec| inputs.iter().all(|input| input.name != spec.name)) {
        Some(spec) => {
            Err(Error::invalid(format!("input {:?} is missing; the model takes {}", spec.name, known())))
        }
        None => Ok(()),
    }
}

fn check_input(input: &InputEnvelope<'_>, spec: &TensorSpec) -> Result<()> {
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
fn typed(tensor: &mut Tensor) -> Result<TypedMut<'_>> {
    macro_rules! by_type {
        ($($datatype:ident),+) => {
            match tensor.datatype() {
                $(DataType::$datatype => tensor.elements_mut().map(TypedMut::$datatype),)+
                DataType::Bytes => None,
            }
        };
    }
    by_type!(Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64)
        .ok_or_else(|| Error::new(Code::Internal, "a tensor without elements of its own type"))
}
