//! An answer on a stream: its error, and the parameters that stand for the header fields that a message of a stream has not.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use headgate_core::error::Code;
use headgate_protocol::pb::inference::InferParameter;
use headgate_protocol::pb::inference::infer_parameter::ParameterChoice;
use prost::Message;

use crate::phases::Phases;
use crate::reply::Status;

/// The entry of a `ModelInferRequest`'s parameters that asks for the phases: `x-headgate-timing: true`.
const ASKS: &[u8] = b"\x22\x17\x0a\x11x-headgate-timing\x12\x02\x08\x01";
/// A parameter of an answer: the phases, as the header field has them.
const PHASES: &str = "server-timing";
/// A parameter of a failure: its code.
const CODE: &str = "x-headgate-code";
/// The bytes in front of a message.
const FRAME: usize = 5;
/// The first byte of an answer with an error: its field 1.
const ERROR_MESSAGE: u8 = 0x0a;

/// A framed request with one more parameter, in pieces so that its body is not copied.
pub(super) fn asking_for_phases(framed: &Bytes) -> [Bytes; 3] {
    let message = framed.slice(FRAME..);
    let mut frame = BytesMut::with_capacity(FRAME);
    frame.put_u8(0);
    // A length near 2^32 wraps around, and the server refuses the message; it takes 64 MiB.
    frame.put_u32((message.len() + ASKS.len()) as u32);
    [frame.freeze(), message, Bytes::from_static(ASKS)]
}

/// What is read of a `ModelStreamInferResponse`; tensors are skipped.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StreamAnswer {
    #[prost(string, tag = "1")]
    error_message: String,
    #[prost(message, optional, tag = "2")]
    response: Option<ResponseParameters>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseParameters {
    #[prost(map = "string, message", tag = "4")]
    parameters: HashMap<String, InferParameter>,
}

impl StreamAnswer {
    /// Reads an answer only if it may have an error; another one has no phases then.
    pub(super) fn read_if_failed(message: &[u8]) -> StreamAnswer {
        match message.first() {
            Some(&ERROR_MESSAGE) => StreamAnswer::read(message),
            _ => StreamAnswer::default(),
        }
    }

    /// Reads an answer; what is no answer is one with an error.
    pub(super) fn read(message: &[u8]) -> StreamAnswer {
        StreamAnswer::decode(message)
            .unwrap_or_else(|error| StreamAnswer { error_message: error.to_string(), response: None })
    }

    pub(super) fn status(&self) -> Status<'_> {
        if self.error_message.is_empty() {
            return Status::Grpc(0, "");
        }
        let said = self.text(CODE);
        let code = said.and_then(|said| Code::ALL.iter().copied().find(|code| code.as_str() == said));
        Status::StreamError(&self.error_message, code)
    }

    pub(super) fn phases(&self) -> Option<Phases> {
        self.text(PHASES).and_then(|text| Phases::parse(text.as_bytes()))
    }

    fn text(&self, name: &str) -> Option<&str> {
        match &self.response.as_ref()?.parameters.get(name)?.parameter_choice {
            Some(ParameterChoice::StringParam(text)) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use headgate_protocol::pb::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
    use headgate_protocol::protobuf;

    use super::*;

    #[test]
    fn a_request_that_asks_for_phases_is_the_same_request_with_a_parameter() {
        let request = ModelInferRequest {
            model_name: "m".into(),
            raw_input_contents: vec![vec![7; 300].into()],
            ..Default::default()
        };
        let body = request.encode_to_vec();
        let framed = Bytes::from([&[0; FRAME][..], &body].concat());
        let sent = asking_for_phases(&framed).concat();
        let (frame, message) = sent.split_first_chunk::<FRAME>().unwrap();
        assert_eq!(*frame, [&[0][..], &(message.len() as u32).to_be_bytes()].concat()[..]);
        assert!(
            protobuf::is_flagged(message, "x-headgate-timing")
                && !protobuf::is_flagged(&body, "x-headgate-timing")
        );
        let mut read = ModelInferRequest::decode(message).unwrap();
        read.parameters.clear();
        assert_eq!(read, request);
    }

    #[test]
    fn phases_and_codes_are_read_beside_tensors_of_any_size() {
        let mut response = ModelInferResponse::default().encode_to_vec();
        protobuf::write_text_parameter(&mut response, PHASES, "queue;dur=0.25, total;dur=1");
        let mut response = ModelInferResponse::decode(&response[..]).unwrap();
        response.raw_output_contents = vec![vec![1; 70_000].into()];
        let good = ModelStreamInferResponse { infer_response: Some(response), ..Default::default() };
        let read = StreamAnswer::read(&good.encode_to_vec());
        assert_eq!(read.status(), Status::Grpc(0, ""));
        assert_eq!(
            read.phases().map(|phases| (phases.queue_ns, phases.total_ns)),
            Some((250_000, 1_000_000))
        );
        assert_eq!(StreamAnswer::read_if_failed(&good.encode_to_vec()).phases(), None);

        let mut failed = Vec::new();
        protobuf::write_stream_error(&mut failed, "no room", "id", (CODE, "overloaded"));
        let read = StreamAnswer::read_if_failed(&failed);
        assert_eq!(read.status(), Status::StreamError("no room", Some(Code::Overloaded)));
        assert_eq!(read.phases(), None);
        let others = ModelStreamInferResponse { error_message: "no room".into(), infer_response: None };
        assert_eq!(
            StreamAnswer::read_if_failed(&others.encode_to_vec()).status(),
            Status::StreamError("no room", None)
        );
        let garbage = StreamAnswer::read(b"\x0a\xff");
        assert!(matches!(garbage.status(), Status::StreamError(_, None)));
    }
}
