//! What requests must have in common to share a batch.

use headgate_core::tensor::Shape;

/// What the rows of a batch have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The shapes of one row.
    pub(crate) each: Vec<Shape>,
    /// The class: a batch that is run first holds nobody who is not.
    pub(crate) class: u8,
}

impl Kind {
    /// Whether rows of tensors of these shapes, in that class, are of this kind.
    pub(crate) fn is(&self, shapes: &[Shape], class: u8) -> bool {
        let alike = |(row, shape): (&Shape, &Shape)| {
            row.dims().len() == shape.dims().len()
                && row.dims().iter().skip(1).eq(shape.dims().iter().skip(1))
        };
        self.class == class && self.each.len() == shapes.len() && self.each.iter().zip(shapes).all(alike)
    }
}
