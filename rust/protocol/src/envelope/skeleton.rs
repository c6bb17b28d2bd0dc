//! The JSON of past requests: a client sends the same over and over, but for its id and its elements.
//!
//! A skeleton is the text of a request without the content of its id and without its list of elements. A request that has the same text
//! around both is not parsed: parsing reads from the left to the right, so that the same text leads to the same envelope. The two parts
//! that differ are read by the functions that parsing reads them with. At the first difference, and for everything that would be refused,
//! the request is parsed, so that a message has one origin.
//!
//! Not here: parsing (`parse`).

use std::borrow::Cow;
use std::ops::Range;

use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape};

use super::types::{ElementSource, Envelope, InputForm, InputTensor, Parameters};
use crate::binary::{BlobReader, BodyParts};
use crate::json_cursor::JsonCursor;
use crate::json_string;

/// The most skeletons that are kept.
const KEPT: usize = 4;
/// The longest text of a skeleton, in bytes.
const MAX_TEXT: usize = 512;
/// So many requests in a row that no skeleton fits must come before one is kept: if nothing repeats, keeping costs next to nothing.
const PATIENCE: u8 = 16;

/// The skeletons of one thread.
#[derive(Debug, Default)]
pub(super) struct Skeletons {
    kept: Vec<Skeleton>,
    /// The place of the one that fitted last.
    last: usize,
    /// The place that is overwritten next.
    next: usize,
    /// Requests that none fitted, since one was kept.
    missed: u8,
}

/// The text of a request with one input, without outputs and parameters of its own, and what follows from it.
#[derive(Debug, Default)]
struct Skeleton {
    text: Vec<u8>,
    /// Where the content of the id stands in the text, behind its quote; the text goes on with the other quote.
    id_at: Option<usize>,
    /// Where the list of elements stands in the text; `None` for binary data behind the JSON.
    data_at: Option<usize>,
    name: Range<usize>,
    datatype: Option<DataType>,
    shape: Option<Shape>,
    base64: bool,
    /// The size of the binary data.
    blob_bytes: u64,
    parameters: FixedParameters,
}

/// The parameters with a meaning, which are part of the text.
#[derive(Clone, Copy, Debug, Default)]
struct FixedParameters {
    binary_data_output: Option<bool>,
    timeout_us: Option<u64>,
    priority: Option<u64>,
}

/// What differs between two requests of a skeleton.
#[derive(Default)]
struct Filling<'a> {
    id: Option<Cow<'a, str>>,
    /// The length of the id in the request.
    id_bytes: usize,
    data: &'a [u8],
}

impl Skeletons {
    /// Reads a request into an empty envelope if a skeleton fits it. Otherwise the envelope stays empty.
    pub(super) fn read<'a>(&mut self, body: BodyParts<'a>, into: &mut Envelope<'a>) -> bool {
        let order = (self.last..self.kept.len()).chain(0..self.last.min(self.kept.len()));
        for place in order {
            if self.kept[place].read(body, into).is_some() {
                self.last = place;
                return true;
            }
        }
        false
    }

    /// Keeps the skeleton of a request that was parsed because none fitted it, if it has one.
    pub(super) fn learn(&mut self, json: &[u8], envelope: &Envelope<'_>) {
        self.missed += 1;
        if self.missed < PATIENCE && self.kept.len() == KEPT {
            return;
        }
        self.missed = 0;
        let mut skeleton = match self.kept.len() {
            KEPT => std::mem::take(&mut self.kept[self.next]),
            _ => Skeleton::default(),
        };
        let fits = skeleton.learn(json, envelope).is_some();
        if self.kept.len() == KEPT {
            if !fits {
                // It fits no request, and its memory is used again.
                skeleton.datatype = None;
            }
            self.kept[self.next] = skeleton;
            self.next = (self.next + 1) % KEPT;
        } else if fits {
            self.kept.push(skeleton);
        }
    }
}

impl Skeleton {
    /// Takes over the text of a request. `None` if it has no skeleton; this one is then undefined.
    fn learn(&mut self, json: &[u8], envelope: &Envelope<'_>) -> Option<()> {
        let ([input], []) = (&envelope.inputs[..], &envelope.outputs[..]) else { return None };
        let Parameters { binary_data_output, timeout_us, priority, marks_final, custom } =
            &envelope.parameters;
        if envelope.form != InputForm::Listed || !custom.is_empty() || *marks_final {
            return None;
        }
        let borrowed = |text: &str| (!text.is_empty()).then(|| range_of(json, text.as_bytes())).flatten();
        let Cow::Borrowed(name) = &input.name else { return None };
        let name = borrowed(name)?;
        let id = match &envelope.id {
            None => None,
            Some(Cow::Borrowed(id)) => Some(borrowed(id)?),
            Some(Cow::Owned(_)) => return None,
        };
        let (data, blob_bytes) = match input.source {
            ElementSource::JsonList(data) => (Some(range_of(json, data)?), 0),
            ElementSource::Binary(blob) => (None, blob.len() as u64),
            ElementSource::JsonScalar(_) | ElementSource::ProtobufContents(_) => return None,
        };
        let id_bytes = id.as_ref().map_or(0, Range::len);
        let data_bytes = data.as_ref().map_or(0, Range::len);
        let end = data.as_ref().map_or(json.len(), |data| data.start);
        if json.len() - id_bytes - data_bytes > MAX_TEXT || id.as_ref().is_some_and(|id| id.end > end) {
            return None;
        }
        let behind = |hole: &Option<Range<usize>>, at: usize| {
            hole.as_ref().filter(|hole| hole.end <= at).map_or(0, Range::len)
        };
        let place = |at: usize| at - behind(&id, at) - behind(&data, at);
        self.text.clear();
        let begin = id.as_ref().map_or(0, |id| id.end);
        self.text.extend_from_slice(&json[..id.as_ref().map_or(0, |id| id.start)]);
        self.text.extend_from_slice(&json[begin..end]);
        self.text.extend_from_slice(&json[end + data_bytes..]);
        self.id_at = id.as_ref().map(|id| id.start);
        self.data_at = data.as_ref().map(|data| place(data.start));
        self.name = place(name.start)..place(name.end);
        (self.datatype, self.shape) = (Some(input.datatype), Some(input.shape));
        (self.base64, self.blob_bytes) = (input.base64, blob_bytes);
        self.parameters = FixedParameters {
            binary_data_output: *binary_data_output,
            timeout_us: *timeout_us,
            priority: *priority,
        };
        Some(())
    }

    /// Reads a request that has this text. `None` if it has not, or would be refused; the envelope then stays empty.
    fn read<'a>(&self, body: BodyParts<'a>, into: &mut Envelope<'a>) -> Option<()> {
        let (datatype, shape) = (self.datatype?, self.shape.as_ref()?);
        let filling = self.filling(body.json)?;
        let mut blobs = BlobReader::new(body);
        let source = match self.data_at {
            // As in parsing: each element takes a byte and a comma or bracket, and the list has one bracket more.
            Some(_) if shape.count() <= (filling.data.len() - 1) / 2 => ElementSource::JsonList(filling.data),
            Some(_) => return None,
            None => ElementSource::Binary(blobs.next(self.blob_bytes, "").ok()?),
        };
        blobs.finish().ok()?;
        let shift = |at: usize| {
            let id = self.id_at.filter(|&hole| hole <= at).map_or(0, |_| filling.id_bytes);
            at + id + self.data_at.filter(|&hole| hole <= at).map_or(0, |_| filling.data.len())
        };
        let start = shift(self.name.start);
        let name = std::str::from_utf8(body.json.get(start..start + self.name.len())?).ok()?;
        let FixedParameters { binary_data_output, timeout_us, priority } = self.parameters;
        let parameters = &mut into.parameters;
        (parameters.binary_data_output, parameters.timeout_us, parameters.priority) =
            (binary_data_output, timeout_us, priority);
        into.id = filling.id;
        let (name, base64, non_finite) = (Cow::Borrowed(name), self.base64, NonFinite::Error);
        into.inputs.push(InputTensor { name, datatype, shape: *shape, source, base64, non_finite });
        Some(())
    }

    /// The parts of the JSON that are not in the text, if all others are the same.
    fn filling<'a>(&self, json: &'a [u8]) -> Option<Filling<'a>> {
        let mut filling = Filling::default();
        let (mut text, mut rest) = (&self.text[..], json);
        let mut taken = 0;
        if let Some(at) = self.id_at {
            rest = rest.strip_prefix(&text[..at])?;
            let (id, end) = json_string::read(json, at).ok()?;
            filling.id = Some(id);
            // The quote behind it is part of the text.
            filling.id_bytes = end - 1 - at;
            rest = &rest[filling.id_bytes..];
            (text, taken) = (&text[at..], at);
        }
        let Some(at) = self.data_at else { return (text == rest).then_some(filling) };
        let (before, behind) = text.split_at(at - taken);
        rest = rest.strip_prefix(before)?;
        if rest.first() != Some(&b'[') {
            return None;
        }
        filling.data = JsonCursor::new(rest).list_extent().ok()?;
        (&rest[filling.data.len()..] == behind).then_some(filling)
    }
}

/// The range of a part within the JSON; `None` for one that lies elsewhere.
fn range_of(json: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= json.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::EnvelopeScratch;

    const REQUESTS: [&str; 6] = [
        r#"{"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 16, 3]}]}"#,
        r#"{"id":"seven","inputs":[{"name":"X","shape":[2,2],"datatype":"FP32","data":[[0,1],[1.5,3]]}]}"#,
        r#"{"inputs":[{"data":["a","]"],"datatype":"BYTES","shape":[2],"name":"X"}],"parameters":{"timeout":5}}"#,
        r#"{"parameters":{"priority":1,"binary_data_output":true},"id":"b","inputs":[{"name":"lang","shape":[1],"datatype":"INT8","data":[1]}],"x":[{}]}"#,
        r#"{"inputs":[{"name":"X","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"id":"9"}"#,
        r#"{"inputs":[{"name":"X","shape":[1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"Y"}]}"#,
    ];

    /// What a request is read as, as words: by parsing alone, or with skeletons.
    fn read(body: BodyParts<'_>, scratch: &mut EnvelopeScratch) -> String {
        match Envelope::parse(body, scratch) {
            Ok(mut envelope) => {
                let words = format!("{envelope:?}");
                scratch.recycle(&mut envelope);
                words
            }
            Err(error) => format!("{error:?}"),
        }
    }

    fn body(json: &[u8], has_tail: bool) -> BodyParts<'_> {
        BodyParts { json, tail: has_tail.then_some(&b"12345678"[..]) }
    }

    #[test]
    fn a_request_that_repeats_is_not_parsed() {
        for json in REQUESTS {
            let has_tail = json.contains("binary_data_size");
            let mut scratch = EnvelopeScratch::default();
            let first = read(body(json.as_bytes(), has_tail), &mut scratch);
            let mut envelope = scratch.take();
            let parts = body(json.as_bytes(), has_tail);
            // One that names outputs is parsed each time.
            let fits = !json.contains("outputs");
            assert_eq!(scratch.skeletons.read(parts, &mut envelope), fits, "{json}");
            if fits {
                assert_eq!(format!("{envelope:?}"), first);
            }
        }
    }

    #[test]
    fn more_than_a_few_are_not_kept() {
        let mut scratch = EnvelopeScratch::default();
        for round in 0..200 {
            let json = format!(
                r#"{{"k{round}":0,"inputs":[{{"name":"X","shape":[1],"datatype":"FP32","data":[1]}}]}}"#
            );
            read(body(json.as_bytes(), false), &mut scratch);
        }
        assert_eq!(scratch.skeletons.kept.len(), KEPT);
        assert!(scratch.skeletons.kept.iter().all(|skeleton| skeleton.text.capacity() <= 2 * MAX_TEXT));
    }

    #[test]
    fn any_change_of_a_request_is_read_as_without_skeletons() {
        type Change = (u8, u16, u8, Vec<u8>, bool);
        bolero::check!().with_type::<Vec<Change>>().for_each(|changes| {
            let mut scratch = EnvelopeScratch::default();
            for json in REQUESTS {
                read(body(json.as_bytes(), json.contains("binary_data_size")), &mut scratch);
            }
            for (which, at, length, bytes, has_tail) in changes {
                let mut json = REQUESTS[usize::from(*which) % REQUESTS.len()].as_bytes().to_vec();
                let at = usize::from(*at) % json.len();
                let end = json.len().min(at + usize::from(length % 4));
                json.splice(at..end, bytes.iter().copied());
                let parts = body(&json, *has_tail);
                let wanted = read(parts, &mut EnvelopeScratch::default());
                assert_eq!(read(parts, &mut scratch), wanted);
                assert_eq!(read(parts, &mut scratch), wanted);
            }
        });
    }
}
