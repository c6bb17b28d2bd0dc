//! Shapes: kept inline, or borrowed.

use std::fmt;

use crate::error::{Error, Result};

/// The most dimensions a tensor may have.
pub const MAX_RANK: usize = 16;

/// The largest product of the nonzero dimensions of a shape without elements.
pub const MAX_EMPTY: usize = 1 << 20;

/// A concrete shape, kept inline: row-major, no negative dimension, element count within `usize`.
#[derive(Clone, Copy, Eq)]
pub struct Shape {
    dims: [i64; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape of a scalar: no dimensions, one element.
    pub const SCALAR: Shape = Shape { dims: [0; MAX_RANK], rank: 0 };

    /// A shape from its dimensions.
    ///
    /// # Errors
    /// `invalid_argument` for a negative dimension, more than [`MAX_RANK`] dimensions, a count that overflows, or a shape
    /// without elements whose other dimensions exceed [`MAX_EMPTY`].
    pub fn new(dims: &[i64]) -> Result<Shape> {
        check_dims(dims)?;
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// The shape, borrowed.
    pub fn view(&self) -> ShapeRef<'_> {
        ShapeRef::of_checked(self.dims())
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[i64] {
        &self.dims[..self.rank as usize]
    }

    /// The number of elements; 1 for a scalar.
    pub fn count(&self) -> usize {
        self.dims().iter().map(|&dim| dim as usize).product()
    }

    /// The number of rows: the first dimension, or 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.dims().first().map_or(1, |&dim| dim as usize)
    }
}

impl PartialEq for Shape {
    // By the dimensions that there are: a derived comparison would look at all places.
    #[inline]
    fn eq(&self, other: &Shape) -> bool {
        self.rank == other.rank && self.dims().iter().zip(other.dims()).all(|(one, other)| one == other)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

/// Checks the dimensions of a shape.
fn check_dims(dims: &[i64]) -> Result<()> {
    if dims.len() > MAX_RANK {
        return Err(Error::invalid(format!("a shape has at most {MAX_RANK} dimensions, not {}", dims.len())));
    }
    let mut count: usize = 1;
    let mut nonzero: usize = 1;
    for &dim in dims {
        let dim = usize::try_from(dim)
            .map_err(|_| Error::invalid(format!("shape {dims:?} has the negative dimension {dim}")))?;
        count = count
            .checked_mul(dim)
            .filter(|&count| count <= isize::MAX as usize / 16)
            .ok_or_else(|| Error::invalid(format!("shape {dims:?} has too many elements")))?;
        nonzero = nonzero.saturating_mul(dim.max(1));
    }
    // Nothing else bounds the dimensions of a shape without elements, and outputs take their sizes from them.
    if count == 0 && nonzero > MAX_EMPTY {
        return Err(Error::invalid(format!(
            "shape {dims:?} has no elements; its other dimensions may multiply to at most {MAX_EMPTY}"
        )));
    }
    Ok(())
}

/// A shape that is borrowed. The first dimension is apart from the others, so that some rows of a tensor have a shape without a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShapeRef<'a> {
    /// The first dimension; `None` for a scalar.
    first: Option<i64>,
    /// The dimensions of a row.
    inner: &'a [i64],
}

impl<'a> ShapeRef<'a> {
    /// The shape of a scalar.
    pub const SCALAR: ShapeRef<'static> = ShapeRef { first: None, inner: &[] };

    /// A shape from its dimensions.
    ///
    /// # Errors
    /// As [`Shape::new`].
    pub fn new(dims: &'a [i64]) -> Result<ShapeRef<'a>> {
        check_dims(dims)?;
        Ok(ShapeRef::of_checked(dims))
    }

    #[inline]
    fn of_checked(dims: &'a [i64]) -> ShapeRef<'a> {
        match dims {
            [first, inner @ ..] => ShapeRef { first: Some(*first), inner },
            [] => ShapeRef::SCALAR,
        }
    }

    /// The dimensions, outermost first.
    pub fn dims(self) -> impl Iterator<Item = i64> + use<'a> {
        self.first.into_iter().chain(self.inner.iter().copied())
    }

    /// The number of dimensions.
    #[inline]
    pub fn rank(self) -> usize {
        usize::from(self.first.is_some()) + self.inner.len()
    }

    /// The number of elements; 1 for a scalar.
    #[inline]
    pub fn count(self) -> usize {
        self.rows() * self.inner.iter().map(|&dim| dim as usize).product::<usize>()
    }

    /// The number of rows: the first dimension, or 1 for a scalar.
    #[inline]
    pub fn rows(self) -> usize {
        self.first.map_or(1, |rows| rows as usize)
    }

    /// The dimensions of a row: all but the first. None for a scalar.
    #[inline]
    pub fn inner(self) -> &'a [i64] {
        self.inner
    }

    /// The shape of a row; a scalar for a scalar.
    pub fn row(self) -> ShapeRef<'a> {
        ShapeRef::of_checked(self.inner)
    }

    /// The shape of so many of the rows; `None` for a scalar, and if there are fewer.
    pub fn with_rows(self, rows: usize) -> Option<ShapeRef<'a>> {
        let first = i64::try_from(rows).ok()?;
        self.first.filter(|&all| first <= all).map(|_| ShapeRef { first: Some(first), ..self })
    }

    /// A copy.
    pub fn to_shape(self) -> Shape {
        let mut shape = Shape { dims: [0; MAX_RANK], rank: self.rank() as u8 };
        shape.dims.iter_mut().zip(self.dims()).for_each(|(slot, dim)| *slot = dim);
        shape
    }
}

impl fmt::Debug for ShapeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.dims()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_refuse_what_cannot_be_counted() {
        assert_eq!(Shape::new(&[2, 3]).unwrap().count(), 6);
        assert_eq!(Shape::new(&[]).unwrap().count(), 1);
        assert_eq!(Shape::new(&[4, 0]).unwrap().count(), 0);
        assert!(Shape::new(&[-1]).is_err());
        assert!(Shape::new(&[1 << 40, 0]).is_err());
        assert!(Shape::new(&[i64::MAX, 2]).is_err());
        assert!(Shape::new(&[1; MAX_RANK + 1]).is_err());
    }

    #[test]
    fn a_borrowed_shape_is_the_shape_and_its_rows_are_shapes() {
        for dims in [&[][..], &[3], &[2, 3], &[4, 0], &[0, 7], &[2, 1, 5]] {
            let shape = Shape::new(dims).unwrap();
            let borrowed = shape.view();
            assert_eq!(borrowed, ShapeRef::new(dims).unwrap());
            assert_eq!((borrowed.count(), borrowed.rows()), (shape.count(), shape.rows()));
            assert_eq!((borrowed.rank(), borrowed.to_shape()), (dims.len(), shape));
            assert_eq!(borrowed.dims().collect::<Vec<_>>(), dims);
            assert_eq!(format!("{borrowed:?}"), format!("{shape:?}"));
            assert_eq!(borrowed.row().dims().collect::<Vec<_>>(), dims.get(1..).unwrap_or_default());
            let some = borrowed.with_rows(1).map(ShapeRef::to_shape);
            let wanted = dims.split_first().filter(|(rows, _)| **rows >= 1);
            assert_eq!(some, wanted.map(|(_, inner)| Shape::new(&[&[1][..], inner].concat()).unwrap()));
            assert_eq!(borrowed.with_rows(shape.rows() + 1), None);
        }
        assert!(ShapeRef::new(&[-1]).is_err() && ShapeRef::new(&[1; MAX_RANK + 1]).is_err());
    }
}
