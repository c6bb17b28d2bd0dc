//! How tonic's services carry messages: generated ones by prost, those of the inference stream as bytes.
//!
//! Next: `grpc/stream`.

use std::marker::PhantomData;
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes};
use headgate_protocol::pb::inference as pb;
use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, EncodeBuf};

use crate::taps::Tap;

/// A `ModelInferRequest`, not yet parsed.
#[derive(Debug)]
pub struct InferRequest(pub Bytes);

/// A `ModelStreamInferResponse`: an answer, or a sentence and the id of the request that it answers.
pub struct StreamResponse {
    /// Why there is no answer.
    pub error: Option<String>,
    /// A `ModelInferResponse`.
    pub response: Vec<u8>,
    /// What is left to do when the bytes are with the HTTP layer.
    pub tap: Option<Tap>,
}

/// What a service can receive.
pub trait Incoming: Sized + Send + 'static {
    /// Reads the message.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it is not well-formed.
    fn read(buf: &mut DecodeBuf<'_>) -> Result<Self, Status>;
}

/// What a service can send.
pub trait Outgoing: Send + 'static {
    /// Writes the message.
    fn write(self, buf: &mut EncodeBuf<'_>);
}

impl<M: Message + Default + 'static> Incoming for M {
    fn read(buf: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        M::decode(buf).map_err(|error| {
            Status::invalid_argument(format!("the message is not well-formed protobuf: {error}"))
        })
    }
}

impl Incoming for InferRequest {
    fn read(buf: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        Ok(Self(buf.copy_to_bytes(buf.remaining())))
    }
}

impl<M: Message + 'static> Outgoing for M {
    fn write(self, buf: &mut EncodeBuf<'_>) {
        // The buffer grows, so there is always room.
        let _ = self.encode(buf);
    }
}

impl Outgoing for StreamResponse {
    fn write(self, buf: &mut EncodeBuf<'_>) {
        // The fields of the generated message, around an answer that is bytes already.
        let head = pb::ModelStreamInferResponse {
            error_message: self.error.unwrap_or_default(),
            infer_response: None,
        };
        Outgoing::write(head, buf);
        prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, buf);
        prost::encoding::encode_varint(self.response.len() as u64, buf);
        buf.put_slice(&self.response);
        if let Some(tap) = self.tap {
            tap.delivered(Instant::now());
        }
    }
}

/// The codec that the generated services name.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Writes messages.
pub struct Encoder<T>(PhantomData<T>);

/// Reads messages.
pub struct Decoder<U>(PhantomData<U>);

impl<T: Outgoing, U: Incoming> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Encoder<T> {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Decoder<U> {
        Decoder(PhantomData)
    }
}

impl<T: Outgoing> tonic::codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.write(buf);
        Ok(())
    }
}

impl<U: Incoming> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::read(buf).map(Some)
    }
}
