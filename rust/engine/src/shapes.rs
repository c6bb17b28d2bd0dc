//! Shapes with another number of rows.

use headgate_core::error::Result;
use headgate_core::tensor::{MAX_RANK, Shape};

/// A shape with another number of rows.
pub(crate) fn with_rows(shape: &Shape, rows: usize) -> Result<Shape> {
    let mut dims = [0; MAX_RANK];
    let rank = shape.dims().len();
    dims[..rank].copy_from_slice(shape.dims());
    if rank > 0 {
        dims[0] = rows as i64;
    }
    Shape::new(&dims[..rank])
}
