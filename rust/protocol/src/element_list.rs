//! A JSON `data` list along the shape of its tensor: flat, or nested exactly as the shape is.
//!
//! Not here: the elements, which a [`Sink`] reads row by row (`numbers`, `strings`). Next: `numbers`.

use headgate_core::tensor::Shape;

use crate::cursor::skip_space;
use crate::fault::{Fault, Scan, Why};

/// Where rows of elements go.
pub(crate) trait Sink {
    /// Reads exactly `n` elements and the closing bracket; `pos` is behind the opening one. Returns the
    /// offset behind the closing one.
    fn row(&mut self, data: &[u8], pos: usize, n: usize) -> Scan<usize>;
}

/// Reads a list along `shape`: either one flat list of all elements, or lists nested exactly as the shape is.
pub(crate) fn walk(data: &[u8], shape: &Shape, sink: &mut impl Sink) -> Scan<()> {
    let start = open(data, 0)?;
    let end = match data.get(skip_space(data, start)) {
        Some(b'[') => nested(data, start, shape.dims(), sink)?,
        _ => sink.row(data, start, shape.count())?,
    };
    match skip_space(data, end) {
        end if end == data.len() => Ok(()),
        end => Err(Fault::new(data, end, Why::Trailing)),
    }
}

/// Passes an opening bracket.
fn open(data: &[u8], pos: usize) -> Scan<usize> {
    let pos = skip_space(data, pos);
    match data.get(pos) {
        Some(b'[') => Ok(pos + 1),
        _ => Err(Fault::new(data, pos, Why::Nesting)),
    }
}

/// Reads a list nested along `dims`; `pos` is behind its opening bracket. Depth is bounded by the rank.
fn nested(data: &[u8], mut pos: usize, dims: &[i64], sink: &mut impl Sink) -> Scan<usize> {
    let Some((&length, inner)) = dims.split_first() else { return Err(Fault::new(data, pos, Why::Nesting)) };
    if inner.is_empty() {
        return sink.row(data, pos, length as usize);
    }
    for index in 0..length {
        if index > 0 {
            pos = skip_space(data, pos);
            if data.get(pos) != Some(&b',') {
                return Err(Fault::new(data, pos, Why::Nesting));
            }
            pos += 1;
        }
        pos = nested(data, open(data, pos)?, inner, sink)?;
    }
    pos = skip_space(data, pos);
    if data.get(pos) == Some(&b']') { Ok(pos + 1) } else { Err(Fault::new(data, pos, Why::Nesting)) }
}

/// The fault behind a comma that follows the last element.
pub(crate) fn too_long(data: &[u8], pos: usize) -> Fault {
    let ends = data.get(pos) == Some(&b']');
    Fault::new(data, pos, if ends { Why::Expected("an element") } else { Why::Long })
}
