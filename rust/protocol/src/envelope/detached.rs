//! An envelope without its body, for another thread, which can borrow nothing from a request.
//!
//! Names and parameters are copied. Tensors are not: their ranges within the body are stored.

use std::borrow::Cow;
use std::ops::Range;

use super::types::{
    ElementSource, Envelope, InputForm, InputTensor, ParameterValue, Parameters, RequestedOutput,
};

/// An [`Envelope`] that borrows nothing.
#[derive(Debug)]
pub struct DetachedEnvelope {
    /// The envelope, in which the bytes of inputs are empty.
    envelope: Envelope<'static>,
    /// The range of the bytes of [`Envelope::form`].
    form: Range<usize>,
    /// The range of the bytes of each input.
    sources: Vec<Range<usize>>,
}

impl Envelope<'_> {
    /// Detaches the envelope from the body that it borrows from.
    pub fn detach(&self, body: &[u8]) -> DetachedEnvelope {
        let output = |output: &RequestedOutput<'_>| RequestedOutput {
            name: owned(&output.name),
            binary_data: output.binary_data,
            classification: output.classification,
        };
        let DetachedEnvelope { envelope, form, sources } = self.detach_inputs(body);
        let envelope = Envelope {
            id: self.id.as_deref().map(owned),
            parameters: self.parameters.detach(),
            outputs: self.outputs.iter().map(output).collect(),
            ..envelope
        };
        DetachedEnvelope { envelope, form, sources }
    }

    /// Detaches the inputs only. The rest may be as long as the body, and would be copied.
    pub fn detach_inputs(&self, body: &[u8]) -> DetachedEnvelope {
        let input = |input: &InputTensor<'_>| InputTensor {
            name: owned(&input.name),
            datatype: input.datatype,
            shape: input.shape,
            source: input.source.with(&[]),
            base64: input.base64,
            non_finite: input.non_finite,
        };
        let envelope = Envelope {
            inputs: self.inputs.iter().map(input).collect(),
            form: self.form.with(&[]),
            non_finite: self.non_finite,
            ..Envelope::default()
        };
        DetachedEnvelope {
            envelope,
            form: range_within(self.form.bytes(), body),
            sources: self.inputs.iter().map(|input| range_within(input.source.bytes(), body)).collect(),
        }
    }
}

impl DetachedEnvelope {
    /// Attaches the envelope to the body that it was detached from.
    pub fn attach(self, body: &[u8]) -> Envelope<'_> {
        let DetachedEnvelope { envelope, form, sources } = self;
        // The envelope borrows nothing, so that its lifetime may become shorter.
        let mut envelope: Envelope<'_> = envelope;
        envelope.form = envelope.form.with(&body[form]);
        for (input, place) in envelope.inputs.iter_mut().zip(sources) {
            input.source = input.source.with(&body[place]);
        }
        envelope
    }
}

impl Parameters<'_> {
    fn detach(&self) -> Parameters<'static> {
        let value = |value: &ParameterValue<'_>| match value {
            ParameterValue::Text(text) => ParameterValue::Text(owned(text)),
            ParameterValue::Integer(integer) => ParameterValue::Integer(*integer),
            ParameterValue::Number(number) => ParameterValue::Number(*number),
            ParameterValue::Bool(flag) => ParameterValue::Bool(*flag),
        };
        Parameters {
            binary_data_output: self.binary_data_output,
            timeout_us: self.timeout_us,
            priority: self.priority,
            marks_final: self.marks_final,
            custom: self.custom.iter().map(|(name, of)| (owned(name), value(of))).collect(),
        }
    }
}

impl<'a> ElementSource<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            ElementSource::JsonList(bytes)
            | ElementSource::JsonScalar(bytes)
            | ElementSource::Binary(bytes)
            | ElementSource::ProtobufContents(bytes) => bytes,
        }
    }

    fn with<'b>(&self, bytes: &'b [u8]) -> ElementSource<'b> {
        match self {
            ElementSource::JsonList(_) => ElementSource::JsonList(bytes),
            ElementSource::JsonScalar(_) => ElementSource::JsonScalar(bytes),
            ElementSource::Binary(_) => ElementSource::Binary(bytes),
            ElementSource::ProtobufContents(_) => ElementSource::ProtobufContents(bytes),
        }
    }
}

impl<'a> InputForm<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            InputForm::Listed => &[],
            InputForm::Raw(bytes) | InputForm::Rows(bytes) | InputForm::Columns(bytes) => bytes,
        }
    }

    /// The same form with these bytes.
    pub fn with<'b>(&self, bytes: &'b [u8]) -> InputForm<'b> {
        match self {
            InputForm::Listed => InputForm::Listed,
            InputForm::Raw(_) => InputForm::Raw(bytes),
            InputForm::Rows(_) => InputForm::Rows(bytes),
            InputForm::Columns(_) => InputForm::Columns(bytes),
        }
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

/// The range of `bytes` within `body`, in which a parser found them.
pub(crate) fn range_within(bytes: &[u8], body: &[u8]) -> Range<usize> {
    if bytes.is_empty() {
        // Empty bytes may be static: they need not lie in the body.
        return 0..0;
    }
    let start = (bytes.as_ptr() as usize).checked_sub(body.as_ptr() as usize);
    let start = start.expect("an envelope borrows from its body");
    start..start + bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::BodyParts;
    use crate::envelope::EnvelopeScratch;

    /// The fields of an envelope as text.
    fn said(envelope: &Envelope<'_>) -> String {
        format!("{envelope:?}")
    }

    #[test]
    fn an_envelope_is_the_same_with_its_body_again() {
        let json = br#"{"id":"a\n","parameters":{"text":"t","whole":1,"number":1.5,"flag":true,"timeout":9},
            "inputs":[{"name":"j","shape":[2],"datatype":"FP32","data":[1,2]},
                {"name":"e","shape":[],"datatype":"FP32","data":1.5},
                {"name":"n","shape":[0],"datatype":"INT8","parameters":{"binary_data_size":0}},
                {"name":"b","shape":[4],"datatype":"UINT8","parameters":{"binary_data_size":4}}],
            "outputs":[{"name":"y","parameters":{"classification":3}},{"name":"z","parameters":{"binary_data":true}}]}"#;
        let body = [&json[..], b"abcd"].concat();
        let (json, tail) = body.split_at(json.len());
        let parts = BodyParts { json, tail: Some(tail) };
        let envelope = Envelope::parse(parts, &mut EnvelopeScratch::default()).unwrap();
        let detached = envelope.detach(&body);
        assert_eq!(said(&detached.attach(&body)), said(&envelope));
        let inputs = envelope.detach_inputs(&body).attach(&body);
        assert_eq!(format!("{:?}", inputs.inputs), format!("{:?}", envelope.inputs));
        assert_eq!((&inputs.id, inputs.parameters.custom.len(), inputs.outputs.len()), (&None, 0, 0));
    }

    #[test]
    fn inputs_that_are_not_listed_keep_their_place() {
        for body in [&br#"{"instances":[[1,2],[3,4]]}"#[..], br#"{"inputs":[5,6]}"#] {
            let envelope = crate::predict::parse(body, &mut EnvelopeScratch::default()).unwrap();
            assert_eq!(envelope.detach(body).attach(body).form, envelope.form);
        }
        let raw = BodyParts { json: b"", tail: Some(b"12345678") };
        let envelope = Envelope::parse(raw, &mut EnvelopeScratch::default()).unwrap();
        let body = raw.tail.unwrap();
        assert_eq!(envelope.detach(body).attach(body).form, InputForm::Raw(body));
    }
}
