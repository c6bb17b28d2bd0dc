//! Between the wire and the runtime: which input goes where, as which type, and back.
//!
//! Elements are decoded straight into the buffer that the run reads, and written straight from the one it filled.

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, TensorSpec};
use headgate_engine::Lease;
use headgate_engine::runtime::tensor::Data;
use headgate_engine::runtime::{Tensor, View};
use headgate_protocol::envelope::{self, Envelope, InputEnvelope, Selection};
use headgate_protocol::reply::{self, OutputTensor, ReplyHead, TensorData};
use headgate_protocol::strings::{StringTable, Strings};
use headgate_protocol::{TypedMut, protobuf};

use crate::grpc::message;
use crate::infer::{Dialect, Sent};

/// Memory of past requests for the next one.
#[derive(Default)]
pub struct Scratch {
    /// The envelope's lists.
    pub envelope: envelope::Scratch,
    /// Decoded BYTES elements.
    pub strings: StringTable,
    /// The outputs that were asked for.
    pub selection: Vec<Selection>,
}

/// Decodes every input of the request into the lease's buffers.
///
/// # Errors
/// `invalid_argument` for an input that is missing, unknown, of another type or shape, or has wrong elements.
pub fn decode(envelope: &Envelope<'_>, lease: &mut Lease, strings: &mut StringTable) -> Result<()> {
    let (signature, binding) = lease.parts();
    let specs = &signature.inputs;
    if envelope.inputs.len() != specs.len() {
        check_names(&envelope.inputs, specs)?;
    }
    for (index, spec) in specs.iter().enumerate() {
        let Some(input) = envelope.inputs.iter().find(|input| input.name == spec.name) else {
            return check_names(&envelope.inputs, specs);
        };
        check_input(input, spec)?;
        let tensor = binding.input_mut(index);
        tensor.reshape(&input.shape)?;
        if spec.datatype == DataType::Bytes {
            input.decode_strings(strings)?;
            for (element, bytes) in strings.view().iter().enumerate() {
                tensor.set_string(element, bytes)?;
            }
        } else {
            input.decode_into(typed(tensor)?)?;
        }
    }
    Ok(())
}

/// The selected outputs of a run as writers take them; the views must outlive what is made of them.
pub struct Outputs<'a> {
    specs: &'a [TensorSpec],
    views: Vec<(Selection, View<'a>)>,
}

/// The selected outputs of a run.
///
/// # Errors
/// `internal` for an output that the runtime cannot show.
pub fn outputs<'a>(selection: &[Selection], lease: &'a Lease, dialect: Dialect) -> Result<Outputs<'a>> {
    let specs = &lease.model().signature().outputs;
    let view = |&selected: &Selection| {
        let binary = selected.binary || dialect != Dialect::Rest;
        Ok((Selection { binary, ..selected }, lease.binding().output(selected.index)?))
    };
    Ok(Outputs { specs, views: selection.iter().map(view).collect::<Result<_>>()? })
}

impl Outputs<'_> {
    fn tensors(&self) -> Result<Vec<OutputTensor<'_>>> {
        let views = self.views.iter();
        views
            .map(|(selected, view)| {
                let data = if selected.binary { blob(view)? } else { elements(view)? };
                let name = &self.specs[selected.index].name;
                let (datatype, shape, binary) = (view.datatype, view.shape, selected.binary);
                Ok(OutputTensor { name, datatype, shape, data, binary })
            })
            .collect()
    }
}

/// Writes an answer as JSON, with binary data behind it where that is asked for.
///
/// # Errors
/// As [`reply::write`].
pub fn write_json(head: &ReplyHead<'_>, outputs: &Outputs<'_>, out: &mut Vec<u8>) -> Result<Sent> {
    let written = reply::write(out, head, &outputs.tensors()?)?;
    // An empty tensor sent as binary data leaves no byte behind the JSON, and still is binary data.
    let binary = outputs.views.iter().any(|(selected, _)| selected.binary);
    Ok(Sent { json_length: binary.then_some(written.json_len) })
}

/// Writes an answer as protobuf.
///
/// # Errors
/// As [`protobuf::write`].
pub fn write_protobuf(
    head: &ReplyHead<'_>,
    outputs: &Outputs<'_>,
    marks_final: bool,
    out: &mut Vec<u8>,
) -> Result<Sent> {
    protobuf::write(out, head, &outputs.tensors()?, marks_final)?;
    Ok(Sent { json_length: None })
}

/// Writes an answer as a gRPC message: protobuf behind its prefix.
///
/// # Errors
/// As [`protobuf::write`]; `payload_too_large` beyond 4 GiB.
pub fn write_message(
    head: &ReplyHead<'_>,
    outputs: &Outputs<'_>,
    marks_final: bool,
    out: &mut Vec<u8>,
) -> Result<Sent> {
    message::begin(out);
    let sent = write_protobuf(head, outputs, marks_final, out)?;
    message::end(out)?;
    Ok(sent)
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

/// A view's elements as the writers of binary data take them: in one piece.
fn blob<'a>(view: &'a View<'a>) -> Result<TensorData<'a>> {
    match &view.data {
        Data::Bytes(bytes) => Ok(TensorData::Raw(bytes)),
        Data::Strings { bytes, offsets } => Strings::new(bytes, offsets).map(TensorData::Strings),
    }
}

/// A view's elements as the writer of JSON takes them.
fn elements<'a>(view: &'a View<'a>) -> Result<TensorData<'a>> {
    if let Data::Strings { bytes, offsets } = &view.data {
        return Strings::new(bytes, offsets).map(TensorData::Strings);
    }
    let typed = match view.datatype {
        DataType::Bool | DataType::Uint8 => view.elements().map(TensorData::Uint8),
        DataType::Uint16 | DataType::Fp16 | DataType::Bf16 => view.elements().map(TensorData::Uint16),
        DataType::Uint32 => view.elements().map(TensorData::Uint32),
        DataType::Uint64 => view.elements().map(TensorData::Uint64),
        DataType::Int8 => view.elements().map(TensorData::Int8),
        DataType::Int16 => view.elements().map(TensorData::Int16),
        DataType::Int32 => view.elements().map(TensorData::Int32),
        DataType::Int64 => view.elements().map(TensorData::Int64),
        DataType::Fp32 => view.elements().map(TensorData::Fp32),
        DataType::Fp64 => view.elements().map(TensorData::Fp64),
        DataType::Bytes => None,
    };
    match (typed, &view.data) {
        (Some(elements), _) => Ok(elements),
        // Memory that is not aligned for its type is still good bytes.
        (None, Data::Bytes(bytes)) => Ok(TensorData::Raw(bytes)),
        (None, Data::Strings { .. }) => Err(Error::new(Code::Internal, "strings under a number's type")),
    }
}
