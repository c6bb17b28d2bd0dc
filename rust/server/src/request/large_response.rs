//! Large responses, which are written on another thread: a million numbers in JSON take 30 ms, in which the IO thread could answer no
//! other request.
//!
//! Not here: how a response is written (`outputs`).

use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;
use headgate_engine::RunResult;
use headgate_protocol::envelope::{InputForm, SelectedOutput};

use crate::after::record::RequestRecord;
use crate::after::record::non_finite;
use crate::after::record::routed_version::RoutedVersion;
use crate::request::inference::{ParsedRequest, ResponseLayout, WireFormat};
use crate::request::outputs::{self, OutputLists, Outputs, ResponseFormat};
use crate::request::tensors;
use crate::thread::offload::{self, OffloadMemory};

/// A response with more elements in JSON than this is large: they take about two milliseconds of a core.
const ELEMENTS: usize = 1 << 16;
/// Bytes in binary data that take as long as one element in JSON.
const BYTES_PER_ELEMENT: usize = 256;

/// Whether a response from outputs of so many bytes is written on another thread. The client's `id` comes back, however long it is.
pub fn is_large(outputs: &Outputs<'_>, bytes: usize, id: Option<&str>) -> bool {
    let id = id.map_or(0, str::len);
    // No element has less than a byte: small ones are not looked at one by one.
    bytes + id > ELEMENTS && {
        let (elements, bytes) = outputs.sizes();
        elements + (bytes + id) / BYTES_PER_ELEMENT > ELEMENTS
    }
}

/// Everything that a response is written from, for another thread.
struct OffloadedResponse {
    ran: RunResult,
    selection: Vec<SelectedOutput>,
    routed: RoutedVersion,
    id: Option<String>,
    form: InputForm<'static>,
    marks_final: bool,
    wire_format: WireFormat,
}

/// Writes the response of the record's run, whose outputs were selected a moment ago, until `until` at most. The run comes back to the
/// record, unless writing took too long or panicked. What the response and its outputs take is counted by the record.
///
/// # Errors
/// Those of writing; `internal` without a run.
pub async fn write(
    request: &ParsedRequest<'_>,
    record: &mut RequestRecord,
    until: Instant,
    out: &mut Vec<u8>,
) -> Result<ResponseLayout> {
    let Some(ran) = record.sample.run.take() else {
        return Err(Error::new(Code::Internal, "a response without a run"));
    };
    let ParsedRequest { envelope, wire_format, .. } = *request;
    let answer = OffloadedResponse {
        ran,
        selection: tensors::with_scratch(|scratch| scratch.selection.clone()),
        routed: record.routed.clone(),
        id: envelope.id.as_deref().map(str::to_owned),
        // Only the kind matters for a response.
        form: envelope.form.with(&[]),
        marks_final: envelope.parameters.marks_final,
        wire_format,
    };
    let mut buffer = std::mem::take(out);
    let has_trial = record.has_trial();
    let written = offload::run(Some(until), &mut record.memory, move |memory| {
        let result = answer.write(memory, &mut buffer);
        // Here, because an IO thread has no time for all elements.
        let outputs = has_trial.then(|| non_finite::whole_outputs(&answer.ran));
        Ok((answer.ran, buffer, result, outputs))
    });
    let (ran, buffer, result, outputs) = written.await?;
    *out = buffer;
    record.looked_at(outputs);
    record.sample.run = Some(ran);
    result
}

impl OffloadedResponse {
    fn write(&self, memory: &mut OffloadMemory, out: &mut Vec<u8>) -> Result<ResponseLayout> {
        let head = outputs::head(&self.routed, self.id.as_deref());
        let format = ResponseFormat {
            wire_format: self.wire_format,
            form: self.form,
            marks_final: self.marks_final,
            rows: self.ran.rows(),
        };
        let mut lists = OutputLists::default();
        let outputs = Outputs::of(&self.selection, &self.ran, &self.routed, self.wire_format, &mut lists)?;
        let bytes = outputs.bytes();
        // Outputs may have any size: their memory is reserved before they are written.
        let mut room = memory.reserve_response(bytes.saturating_add(outputs.max_written_bytes()))?;
        let sent = outputs::write(&format, &head, &outputs.tensors(&mut lists)?, out)?;
        room.resize(bytes + out.len());
        memory.merge(room);
        Ok(sent)
    }
}
