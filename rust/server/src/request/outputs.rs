//! From the runtime to the wire: the outputs that are wanted, in the form in which they are wanted. Elements are written
//! straight from the buffer that the run filled.

use headgate_core::error::{Code, Error, Result};
use headgate_core::reuse::reuse_allocation;
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape, TensorSpec};
use headgate_engine::RunResult;
use headgate_engine::runtime::{Elements, TensorView};
use headgate_protocol::classification::classify;
use headgate_protocol::envelope::{InputForm, SelectedOutput};
use headgate_protocol::response::{self, OutputTensor, ResponseHead, ResponseTemplate, TensorData};
use headgate_protocol::strings::{StringTable, StringTableView};
use headgate_protocol::{predict, protobuf};

use crate::after::record::routed_version::RoutedVersion;
use crate::request::inference::{ResponseLayout, WireFormat};
use crate::serving::shared::LiveEndpoint;

/// The selected outputs of a run; [`OutputTensor`]s borrow from them.
pub struct Outputs<'a> {
    specs: &'a [TensorSpec],
    template: &'a ResponseTemplate,
    outputs: Vec<OutputView<'a>>,
    non_finite: NonFinite,
}

/// One output.
struct OutputView<'a> {
    selected: SelectedOutput,
    view: TensorView<'a>,
    /// Its highest values as strings, if the request wants them in its place.
    classes: Option<Box<(StringTable, Shape)>>,
}

/// The lists of past responses, for the next one.
#[derive(Default)]
pub struct OutputLists {
    outputs: Vec<OutputView<'static>>,
    tensors: Vec<OutputTensor<'static>>,
}

impl OutputLists {
    /// Takes a list of [`Outputs::tensors`] back.
    pub fn keep_tensors(&mut self, tensors: Vec<OutputTensor<'_>>) {
        self.tensors = reuse_allocation(tensors);
    }

    /// Takes the lists of outputs back.
    pub fn keep(&mut self, outputs: Outputs<'_>) {
        self.outputs = reuse_allocation(outputs.outputs);
    }
}

impl<'a> Outputs<'a> {
    /// The selected outputs of a run of that version.
    ///
    /// # Errors
    /// `internal` for an output that the runtime cannot show; `invalid_argument` for classes of what has no order.
    // Inlined into the phase that calls it for nearly every request; large responses are the other caller.
    #[inline(always)]
    pub fn of(
        selection: &[SelectedOutput],
        ran: &'a RunResult,
        routed: &'a RoutedVersion,
        wire_format: WireFormat,
        lists: &mut OutputLists,
    ) -> Result<Outputs<'a>> {
        let specs = &ran.model().signature().outputs;
        let (endpoint, template) = (&*routed.endpoint, &routed.version().payload.response);
        let mut outputs = std::mem::take(&mut lists.outputs);
        for &selected in selection {
            // Protobuf responses are always raw.
            let binary = selected.binary || !matches!(wire_format, WireFormat::Rest);
            let view = ran.output(selected.index)?;
            let classes = match selected.classification {
                None => None,
                Some(most) => Some(classes(&view, &specs[selected.index], most, endpoint)?),
            };
            let (selected, classes) = (SelectedOutput { binary, ..selected }, classes.map(Box::new));
            outputs.push(OutputView { selected, view, classes });
        }
        Ok(Outputs { specs, template, outputs, non_finite: endpoint.non_finite })
    }

    /// Elements that are written as JSON, and bytes that are written as they are.
    pub fn sizes(&self) -> (usize, usize) {
        let mut amounts = (0, 0);
        for OutputView { selected, view, classes } in &self.outputs {
            match (selected.binary, &view.data) {
                (true, Elements::Bytes(bytes)) => amounts.1 += bytes.len(),
                // Each is looked at, and each byte of it for an escape.
                (_, Elements::Strings { bytes, offsets }) => amounts.0 += offsets.len() + bytes.len() / 16,
                (false, Elements::Bytes(_)) if classes.is_none() => amounts.0 += view.shape.count(),
                (false, Elements::Bytes(_)) => {}
            }
        }
        amounts
    }

    /// Bytes that the tensors take in a response, at most; escapes in strings and the brackets of rows come on top.
    pub fn max_written_bytes(&self) -> usize {
        let bytes = |OutputView { selected, view, classes }: &OutputView<'_>| match &view.data {
            Elements::Bytes(_) if classes.is_some() => 0,
            Elements::Bytes(bytes) if selected.binary => bytes.len(),
            Elements::Bytes(_) => view.shape.count().saturating_mul(in_json(view.datatype)),
            Elements::Strings { bytes, offsets } => {
                bytes.len().saturating_add(offsets.len() * in_json(DataType::Bytes))
            }
        };
        self.outputs.iter().map(bytes).fold(0, usize::saturating_add)
    }

    /// Bytes of the selected outputs.
    pub fn bytes(&self) -> usize {
        let bytes = |outputs: &OutputView<'_>| match &outputs.view.data {
            Elements::Bytes(bytes) => bytes.len(),
            Elements::Strings { bytes, offsets } => bytes.len() + size_of_val(&offsets[..]),
        };
        self.outputs.iter().map(bytes).sum()
    }

    /// The outputs as writers take them.
    ///
    /// # Errors
    /// `internal` for strings that contradict themselves.
    #[inline(always)]
    pub fn tensors(&self, lists: &mut OutputLists) -> Result<Vec<OutputTensor<'_>>> {
        let mut tensors = std::mem::take(&mut lists.tensors);
        for OutputView { selected, view, classes } in &self.outputs {
            let (datatype, shape, data) = match classes.as_deref() {
                Some((classes, shape)) => {
                    (DataType::Bytes, shape.view(), TensorData::Strings(classes.view()))
                }
                None if selected.binary => (view.datatype, view.shape, blob(view)?),
                None => (view.datatype, view.shape, elements(view)?),
            };
            let (name, template) = (&self.specs[selected.index].name, self.template.output(selected.index));
            let (binary, non_finite) = (selected.binary, self.non_finite);
            tensors.push(OutputTensor { name, datatype, shape, data, binary, non_finite, template });
        }
        Ok(tensors)
    }
}

/// Bytes of an element in JSON with the comma behind it, at most; of a string, without its characters.
const fn in_json(datatype: DataType) -> usize {
    match datatype {
        DataType::Bool | DataType::Uint8 | DataType::Int8 | DataType::Bytes => "false,".len(),
        DataType::Uint16 | DataType::Int16 => "-32768,".len(),
        DataType::Uint32 | DataType::Int32 => "-2147483648,".len(),
        DataType::Uint64 | DataType::Int64 => "-9223372036854775808,".len(),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 => "-0.0000123456789,".len(),
        DataType::Fp64 => "-0.000012345678901234567,".len(),
    }
}

/// What a response of a version begins with, to the request with that id.
pub fn head<'a>(routed: &'a RoutedVersion, id: Option<&'a str>) -> ResponseHead<'a> {
    let version = routed.version();
    let template = Some(&version.payload.response);
    ResponseHead { id, model_name: &routed.endpoint.name, model_version: &version.name, template }
}

/// How a response is written.
pub struct ResponseFormat<'a> {
    /// The wire.
    pub wire_format: WireFormat,
    /// The form of the request.
    pub form: InputForm<'a>,
    /// Whether the response says that it is the last one.
    pub marks_final: bool,
    /// The rows of the request.
    pub rows: usize,
}

/// Writes a response.
///
/// # Errors
/// As [`reply::write`], [`predict::write`] and [`protobuf::write`]; `payload_too_large` beyond gRPC's 4 GiB.
#[inline(always)]
pub fn write(
    format: &ResponseFormat<'_>,
    head: &ResponseHead<'_>,
    outputs: &[OutputTensor<'_>],
    out: &mut Vec<u8>,
) -> Result<ResponseLayout> {
    let mut sent = ResponseLayout { json_length: None };
    match (format.wire_format, format.form) {
        (WireFormat::Rest, InputForm::Listed | InputForm::Raw(_)) => {
            let written = response::write(out, head, outputs)?;
            // An empty tensor sent as binary data leaves no byte behind the JSON, and still is binary data.
            let binary = outputs.iter().any(|output| output.binary);
            sent.json_length = binary.then_some(written.json_len);
        }
        (WireFormat::Rest, form) => predict::write(out, form, format.rows, outputs)?,
        (WireFormat::Protobuf(framing), _) => {
            (framing.begin)(out);
            protobuf::write(out, head, outputs, format.marks_final)?;
            (framing.end)(out)?;
        }
    }
    Ok(sent)
}

/// The highest values as strings, with the names that the document has for them, else those of the model.
fn classes(
    view: &TensorView<'_>,
    spec: &TensorSpec,
    most: u64,
    endpoint: &LiveEndpoint,
) -> Result<(StringTable, Shape)> {
    let (mut table, name) = (StringTable::default(), &*spec.name);
    let own = Some(&spec.labels).filter(|labels| !labels.is_empty());
    let labels = endpoint.labels.get(name).or(own).map(Vec::as_slice);
    let (datatype, shape, data) = (view.datatype, view.shape, elements(view)?);
    let non_finite = endpoint.non_finite;
    let output = OutputTensor { name, datatype, shape, data, binary: false, non_finite, template: None };
    let shape = classify(&output, most, labels, &mut table)?;
    Ok((table, shape))
}

/// A view's elements as the writers of binary data take them: in one piece.
fn blob<'a>(view: &'a TensorView<'a>) -> Result<TensorData<'a>> {
    match &view.data {
        Elements::Bytes(bytes) => Ok(TensorData::Raw(bytes)),
        Elements::Strings { bytes, offsets } => StringTableView::new(bytes, offsets).map(TensorData::Strings),
    }
}

/// A view's elements as the writer of JSON takes them.
fn elements<'a>(view: &'a TensorView<'a>) -> Result<TensorData<'a>> {
    if let Elements::Strings { bytes, offsets } = &view.data {
        return StringTableView::new(bytes, offsets).map(TensorData::Strings);
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
        (None, Elements::Bytes(bytes)) => Ok(TensorData::Raw(bytes)),
        (None, Elements::Strings { .. }) => Err(Error::new(Code::Internal, "strings under a number's type")),
    }
}
