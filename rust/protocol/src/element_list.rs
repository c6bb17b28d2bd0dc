//! A JSON `data` list along the shape of its tensor: flat, or nested exactly as the shape is.
//!
//! Not here: the elements, which an [`ElementSink`] reads row by row (`numbers`, `strings`). Next: `numbers`.

use headgate_core::tensor::Shape;

use crate::json_cursor::skip_space;
use crate::json_fault::{FaultKind, JsonFault, ParseResult};

/// Reads the elements of one row after another.
pub(crate) trait ElementSink {
    /// Reads exactly `n` elements and the closing bracket. `pos` is behind the opening bracket. Returns the offset behind
    /// the closing one.
    fn read_row(&mut self, data: &[u8], pos: usize, n: usize) -> ParseResult<usize>;
}

/// Reads a list along `shape`: either one flat list of all elements, or lists nested exactly as the shape is.
pub(crate) fn walk(data: &[u8], shape: &Shape, sink: &mut impl ElementSink) -> ParseResult<()> {
    let start = open_bracket(data, 0)?;
    let end = match data.get(skip_space(data, start)) {
        Some(b'[') => walk_nested(data, start, shape.dims(), sink)?,
        _ => sink.read_row(data, start, shape.count())?,
    };
    match skip_space(data, end) {
        end if end == data.len() => Ok(()),
        end => Err(JsonFault::new(data, end, FaultKind::Trailing)),
    }
}

/// Skips an opening bracket.
fn open_bracket(data: &[u8], pos: usize) -> ParseResult<usize> {
    let pos = skip_space(data, pos);
    match data.get(pos) {
        Some(b'[') => Ok(pos + 1),
        _ => Err(JsonFault::new(data, pos, FaultKind::Nesting)),
    }
}

/// Reads a list nested along `dims`; `pos` is behind its opening bracket. Depth is bounded by the rank.
fn walk_nested(data: &[u8], mut pos: usize, dims: &[i64], sink: &mut impl ElementSink) -> ParseResult<usize> {
    let Some((&length, inner)) = dims.split_first() else {
        return Err(JsonFault::new(data, pos, FaultKind::Nesting));
    };
    if inner.is_empty() {
        return sink.read_row(data, pos, length as usize);
    }
    for index in 0..length {
        if index > 0 {
            pos = skip_space(data, pos);
            if data.get(pos) != Some(&b',') {
                return Err(JsonFault::new(data, pos, FaultKind::Nesting));
            }
            pos += 1;
        }
        pos = walk_nested(data, open_bracket(data, pos)?, inner, sink)?;
    }
    pos = skip_space(data, pos);
    if data.get(pos) == Some(&b']') {
        Ok(pos + 1)
    } else {
        Err(JsonFault::new(data, pos, FaultKind::Nesting))
    }
}

/// The fault for a comma behind the last element.
pub(crate) fn too_many(data: &[u8], pos: usize) -> JsonFault {
    let ends = data.get(pos) == Some(&b']');
    JsonFault::new(data, pos, if ends { FaultKind::Expected("an element") } else { FaultKind::TooMany })
}
