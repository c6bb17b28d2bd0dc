//! The header fields of a reply, before they become lines of a head of our own loop or entries of hyper's map.

use headgate_http2::write_field;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::headers;
use crate::request_context::{ContextFields, Trace};

/// The header fields of a reply without its content type and those of its framing, each name at most once.
#[derive(Default)]
pub struct ReplyFields(Vec<ReplyField>);

/// One header field.
pub enum ReplyField {
    /// A name and a value.
    Pair(HeaderName, HeaderValue),
    /// The trace of the request: its text is here, so that a line of it needs no value of its own.
    Trace(Trace),
}

impl ReplyFields {
    /// No fields yet, in the memory of `list`.
    pub fn in_memory_of(list: Vec<ReplyField>) -> ReplyFields {
        ReplyFields(list)
    }

    /// The memory of the fields.
    pub fn into_memory(self) -> Vec<ReplyField> {
        self.0
    }

    /// Adds a field.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push(ReplyField::Pair(name, value));
    }

    /// Appends the fields to a head, behind the end of the line before them.
    pub fn write_lines(&self, head: &mut Vec<u8>) {
        for field in &self.0 {
            match field {
                ReplyField::Pair(name, value) => headers::write_line(head, name, value),
                ReplyField::Trace(trace) => trace.write_line(head),
            }
        }
    }

    /// Appends the fields to a block of HTTP/2.
    pub fn write_block(&self, block: &mut Vec<u8>) {
        for field in &self.0 {
            match field {
                ReplyField::Pair(name, value) => {
                    write_field(block, name.as_str().as_bytes(), value.as_bytes())
                }
                ReplyField::Trace(trace) => trace.write_field(block),
            }
        }
    }

    /// Moves the fields to a map.
    pub fn move_to(&mut self, map: &mut HeaderMap) {
        for field in self.0.drain(..) {
            match field {
                ReplyField::Pair(name, value) => drop(map.insert(name, value)),
                ReplyField::Trace(trace) => map.add_trace(&trace),
            }
        }
    }
}

impl Extend<(HeaderName, HeaderValue)> for ReplyFields {
    fn extend<T: IntoIterator<Item = (HeaderName, HeaderValue)>>(&mut self, fields: T) {
        self.0.extend(fields.into_iter().map(|(name, value)| ReplyField::Pair(name, value)));
    }
}

impl ContextFields for ReplyFields {
    fn add_trace(&mut self, trace: &Trace) {
        self.0.push(ReplyField::Trace(*trace));
    }
}
