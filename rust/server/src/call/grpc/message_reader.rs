//! Reads the messages of a stream: each within its time, and counted like every large request.
//!
//! Next: `grpc/stream`.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use headgate_core::error::{Code, Error, Result};

use super::message::{self, PREFIX};
use crate::budget::ConnectionMemory;
use crate::headers::Headers;
use crate::thread::io::{self, Io};
use crate::thread::request_memory::{BodyMemory, RequestMemory};
use crate::transport::body::{self, ReadBody};
use crate::transport::coding::DecodeBounds;
use crate::transport::streamed_body::StreamedBody;

/// A message that was read whole.
pub type Message = ReadBody;

/// A message as it stands in its stream.
struct RawMessage {
    flag: u8,
    bytes: Bytes,
    memory: RequestMemory,
}

/// What a client sends on one stream.
pub struct MessageReader {
    body: StreamedBody,
    buffered: BytesMut,
    limit: usize,
    connection_memory: Rc<ConnectionMemory>,
}

impl MessageReader {
    /// The messages of a body, which are counted for its connection.
    pub fn new(io: &Io, body: StreamedBody, connection_memory: Rc<ConnectionMemory>) -> MessageReader {
        let limit = io.shared.config.max_body_bytes;
        MessageReader { body, buffered: BytesMut::new(), limit, connection_memory }
    }

    /// Whether there is another message, once its first byte is here. A client may take its time between messages, not within
    /// one.
    ///
    /// # Errors
    /// `invalid_argument`, `cancelled`.
    pub async fn has_next(&mut self) -> Result<bool> {
        Ok(!self.buffered.is_empty() || self.read_some().await?)
    }

    /// The message that has begun.
    ///
    /// # Errors
    /// `invalid_argument` for a stream that ends within a message, `payload_too_large`, `request_timeout`, `cancelled`, and
    /// as [`message::plain`]; nothing can be read after an error.
    pub async fn next(&mut self, headers: Headers<'_>) -> Result<Message> {
        let timeout = io::with(|io| io.shared.config.body_timeout());
        let whole = tokio::time::timeout(timeout, self.read_raw());
        let RawMessage { flag, bytes, mut memory } = whole.await.map_err(|_| {
            let seconds = timeout.as_secs_f64();
            Error::new(
                Code::RequestTimeout,
                format!("a message of the stream did not arrive within {seconds} s"),
            )
        })??;
        let bounds = DecodeBounds { limit: self.limit, until: None };
        let bytes = message::plain(headers, flag, bytes, bounds, &mut memory).await?;
        Ok(ReadBody { bytes, memory })
    }

    /// The message that has begun.
    async fn read_raw(&mut self) -> Result<RawMessage> {
        self.read_to(PREFIX).await?;
        let mut prefix = self.buffered.split_to(PREFIX);
        let (flag, length) = (prefix.get_u8(), prefix.get_u32() as usize);
        if length > self.limit {
            return Err(message::too_large(length, self.limit));
        }
        io::with(|io| body::check_room(io, length))?;
        let body_memory = self.read_to(length).await?;
        let bytes = self.buffered.split_to(length).freeze();
        Ok(RawMessage { flag, bytes, memory: body_memory.finish() })
    }

    /// Reads until that many bytes are there.
    async fn read_to(&mut self, length: usize) -> Result<BodyMemory> {
        let mut body_memory = BodyMemory::of_connection(&self.connection_memory);
        loop {
            io::with(|io| body_memory.count_to(io, self.buffered.len().min(length)))?;
            if self.buffered.len() >= length {
                return Ok(body_memory);
            }
            let buffered = self.buffered.len();
            self.buffered.reserve(body::buffer_capacity(buffered, length) - buffered);
            if !self.read_some().await? {
                return Err(Error::invalid("the stream ends within a message"));
            }
        }
    }

    /// Reads some bytes; false at the end.
    async fn read_some(&mut self) -> Result<bool> {
        loop {
            let data = poll_fn(|cx| self.body.poll_data(cx)).await;
            match data.transpose().map_err(|error| body::read_error(&error))? {
                None => return Ok(false),
                // A frame without a byte.
                Some(data) if data.is_empty() => {}
                Some(data) => {
                    self.buffered.extend_from_slice(&data);
                    return Ok(true);
                }
            }
        }
    }
}
