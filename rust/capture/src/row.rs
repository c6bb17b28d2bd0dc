//! One captured request: what is known of it, and its tensors, borrowed.
//!
//! Next: `batch`.

/// One captured request.
#[derive(Clone, Debug)]
pub struct CapturedRow<'a> {
    /// What is known of it.
    pub facts: RowFacts,
    /// Its tensors, in the order of the layout. `None` for one that the request did not send, or that the model did not answer.
    pub tensors: Vec<Option<TensorData<'a>>>,
}

/// What is known of a captured request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFacts {
    /// When it was answered, in microseconds since 1970.
    pub time_us: i64,
    /// The number by which it was drawn.
    pub request: u64,
    /// The revision of the endpoint.
    pub revision: u64,
    /// A hash of the sticky key. The key itself is nowhere.
    pub unit: Option<u64>,
    /// Why the version answered.
    pub reason: &'static str,
    /// The number of the rule that chose the version.
    pub rule: Option<u16>,
    /// `ok`, or the code of the error.
    pub code: &'static str,
    /// How long the run took, in nanoseconds.
    pub run_ns: Option<u64>,
    /// How long the request took, in nanoseconds.
    pub total_ns: u64,
}

/// The contents of a tensor, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct TensorData<'a> {
    /// Its dimensions.
    pub shape: &'a [i64],
    /// Its elements.
    pub elements: Elements<'a>,
}

/// The elements of a tensor, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// Elements of a fixed size, little-endian.
    Fixed(&'a [u8]),
    /// Strings: all bytes, and the offset of each string, which ends at the offset of the next.
    Strings {
        /// The bytes.
        bytes: &'a [u8],
        /// The offsets.
        offsets: &'a [usize],
    },
}

impl TensorData<'_> {
    /// The number of elements by the shape.
    pub(crate) fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
    }

    /// The bytes of the elements, the shape and the offsets.
    pub fn bytes(&self) -> usize {
        let elements = match self.elements {
            Elements::Fixed(bytes) => bytes.len(),
            Elements::Strings { bytes, offsets } => bytes.len() + size_of_val(offsets),
        };
        elements + size_of_val(self.shape)
    }
}

impl CapturedRow<'_> {
    /// The bytes that the row takes, about.
    pub fn bytes(&self) -> usize {
        const FACTS: usize = 160;
        FACTS + self.tensors.iter().flatten().map(TensorData::bytes).sum::<usize>()
    }
}
