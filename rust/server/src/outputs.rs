//! From the runtime to the wire: the outputs that are wanted, in the form in which they are wanted. Elements are written
//! straight from the buffer that the run filled.

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape, TensorSpec};
use headgate_engine::Ran;
use headgate_engine::runtime::View;
use headgate_engine::runtime::tensor::Data;
use headgate_protocol::classification::classify;
use headgate_protocol::envelope::{Form, Selection};
use headgate_protocol::reply::{self, OutputTensor, ReplyHead, TensorData};
use headgate_protocol::strings::{StringTable, Strings};
use headgate_protocol::{predict, protobuf};

use crate::grpc::message;
use crate::infer::{Dialect, Sent};
use crate::io::LiveEndpoint;

/// The selected outputs of a run; writers borrow from them.
pub struct Outputs<'a> {
    specs: &'a [TensorSpec],
    shown: Vec<Shown<'a>>,
    non_finite: NonFinite,
}

/// One output.
struct Shown<'a> {
    selected: Selection,
    view: View<'a>,
    /// Its highest values as strings, where they are wanted in its place.
    classes: Option<(StringTable, Shape)>,
}

impl<'a> Outputs<'a> {
    /// The selected outputs of a run.
    ///
    /// # Errors
    /// `internal` for an output that the runtime cannot show; `invalid_argument` for classes of what has no order.
    pub fn of(
        selection: &[Selection],
        ran: &'a Ran,
        endpoint: &LiveEndpoint,
        dialect: Dialect,
    ) -> Result<Outputs<'a>> {
        let specs = &ran.model().signature().outputs;
        let show = |&selected: &Selection| {
            // Protobuf answers are always raw.
            let binary = selected.binary || dialect != Dialect::Rest;
            let view = ran.output(selected.index)?;
            let most = selected.classification;
            let classes = most.map(|most| classes(&view, &specs[selected.index].name, most, endpoint));
            let classes = classes.transpose()?;
            Ok(Shown { selected: Selection { binary, ..selected }, view, classes })
        };
        let shown = selection.iter().map(show).collect::<Result<_>>()?;
        Ok(Outputs { specs, shown, non_finite: endpoint.non_finite })
    }

    /// Bytes of the selected outputs.
    pub fn bytes(&self) -> usize {
        let bytes = |shown: &Shown<'_>| match &shown.view.data {
            Data::Bytes(bytes) => bytes.len(),
            Data::Strings { bytes, offsets } => bytes.len() + size_of_val(&offsets[..]),
        };
        self.shown.iter().map(bytes).sum()
    }

    fn tensors(&self) -> Result<Vec<OutputTensor<'_>>> {
        self.shown
            .iter()
            .map(|shown| {
                let Shown { selected, view, classes } = shown;
                let (datatype, shape, data) = match classes {
                    Some((classes, shape)) => (DataType::Bytes, *shape, TensorData::Strings(classes.view())),
                    None if selected.binary => (view.datatype, view.shape, blob(view)?),
                    None => (view.datatype, view.shape, elements(view)?),
                };
                let name = &self.specs[selected.index].name;
                let (binary, non_finite) = (selected.binary, self.non_finite);
                Ok(OutputTensor { name, datatype, shape, data, binary, non_finite })
            })
            .collect()
    }

    /// Writes an answer as JSON, with binary data behind it where that is asked for.
    ///
    /// # Errors
    /// As [`reply::write`].
    pub fn write_json(&self, head: &ReplyHead<'_>, out: &mut Vec<u8>) -> Result<Sent> {
        let written = reply::write(out, head, &self.tensors()?)?;
        // An empty tensor sent as binary data leaves no byte behind the JSON, and still is binary data.
        let binary = self.shown.iter().any(|shown| shown.selected.binary);
        Ok(Sent { json_length: binary.then_some(written.json_len) })
    }

    /// Writes an answer to `:predict`, in the form of the request.
    ///
    /// # Errors
    /// As [`predict::write`].
    pub fn write_predictions(&self, form: Form<'_>, rows: usize, out: &mut Vec<u8>) -> Result<Sent> {
        predict::write(out, form, rows, &self.tensors()?)?;
        Ok(Sent { json_length: None })
    }

    /// Writes an answer behind the room for what a stream puts in front.
    ///
    /// # Errors
    /// As [`protobuf::write`].
    pub fn write_in_stream(
        &self,
        head: &ReplyHead<'_>,
        marks_final: bool,
        out: &mut Vec<u8>,
    ) -> Result<Sent> {
        message::begin_in_stream(out);
        self.write_protobuf(head, marks_final, out)
    }

    fn write_protobuf(&self, head: &ReplyHead<'_>, marks_final: bool, out: &mut Vec<u8>) -> Result<Sent> {
        protobuf::write(out, head, &self.tensors()?, marks_final)?;
        Ok(Sent { json_length: None })
    }

    /// Writes an answer as a gRPC message: protobuf behind its prefix.
    ///
    /// # Errors
    /// As [`protobuf::write`]; `payload_too_large` beyond 4 GiB.
    pub fn write_message(&self, head: &ReplyHead<'_>, marks_final: bool, out: &mut Vec<u8>) -> Result<Sent> {
        message::begin(out);
        let sent = self.write_protobuf(head, marks_final, out)?;
        message::end(out)?;
        Ok(sent)
    }
}

fn classes(view: &View<'_>, name: &str, most: u64, endpoint: &LiveEndpoint) -> Result<(StringTable, Shape)> {
    let mut table = StringTable::default();
    let labels = endpoint.labels.get(name).map(Vec::as_slice);
    let (datatype, shape, data) = (view.datatype, view.shape, elements(view)?);
    let output = OutputTensor { name, datatype, shape, data, binary: false, non_finite: endpoint.non_finite };
    let shape = classify(&output, most, labels, &mut table)?;
    Ok((table, shape))
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
