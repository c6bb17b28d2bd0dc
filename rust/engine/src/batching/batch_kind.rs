//! What requests must have in common to share a batch.

use headgate_core::tensor::Shape;

/// What the rows of a batch have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchKind {
    /// The shape of one row of each input.
    pub(crate) row_shapes: Vec<Shape>,
    /// The class. Requests of different classes share no batch, since each class is queued for itself.
    pub(crate) class: u8,
}

impl BatchKind {
    /// Whether inputs of these shapes, in that class, are of this kind.
    pub(crate) fn matches(&self, shapes: &[Shape], class: u8) -> bool {
        let alike = |(row, shape): (&Shape, &Shape)| {
            row.dims().len() == shape.dims().len()
                && row.dims().iter().skip(1).eq(shape.dims().iter().skip(1))
        };
        self.class == class
            && self.row_shapes.len() == shapes.len()
            && self.row_shapes.iter().zip(shapes).all(alike)
    }
}
