//! Columns as Arrow lays them out: validity, offsets, values.
//!
//! Next: `tensor_column`.

/// The buffers of a batch, in the order of the schema, each padded to eight bytes.
#[derive(Default)]
pub(crate) struct Body {
    /// The contents of the buffers.
    pub(crate) bytes: Vec<u8>,
    /// Where each buffer begins, and how long it is.
    pub(crate) buffers: Vec<(usize, usize)>,
    /// The number of values and of nulls of each column and of each column of elements.
    pub(crate) nodes: Vec<(usize, usize)>,
}

impl Body {
    /// Adds the next column.
    pub(crate) fn node(&mut self, values: usize, nulls: usize) {
        self.nodes.push((values, nulls));
    }

    /// Adds the next buffer.
    pub(crate) fn buffer(&mut self, contents: &[u8]) {
        self.buffers.push((self.bytes.len(), contents.len()));
        self.bytes.extend_from_slice(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Adds the next buffer, of numbers.
    pub(crate) fn numbers<T: LittleEndian>(&mut self, values: &[T]) {
        let begin = self.bytes.len();
        for value in values {
            value.append(&mut self.bytes);
        }
        self.buffers.push((begin, self.bytes.len() - begin));
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

/// A number as its bytes.
pub(crate) trait LittleEndian: Copy + Default {
    /// Appends the bytes.
    fn append(self, to: &mut Vec<u8>);
}

macro_rules! little_endian {
    ($($number:ty),+) => {$(
        impl LittleEndian for $number {
            fn append(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
        }
    )+};
}

little_endian!(u16, u64, i32, i64);

/// Bits, the first in the lowest bit of the first byte.
#[derive(Default)]
pub(crate) struct Bits {
    bytes: Vec<u8>,
    count: usize,
    zeros: usize,
}

impl Bits {
    /// Adds a bit.
    pub(crate) fn push(&mut self, bit: bool) {
        if self.count.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if bit {
            self.bytes[self.count / 8] |= 1 << (self.count % 8);
        } else {
            self.zeros += 1;
        }
        self.count += 1;
    }

    /// The number of bits.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The bits in bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds the node of a column with this validity, and the buffer, which a column without nulls leaves empty.
    pub(crate) fn write_validity(&self, body: &mut Body) {
        body.node(self.count, self.zeros);
        body.buffer(if self.zeros == 0 { &[] } else { &self.bytes });
    }
}

/// Numbers, some of which may be null.
#[derive(Default)]
pub(crate) struct Numbers<T> {
    validity: Bits,
    values: Vec<T>,
}

impl<T: LittleEndian> Numbers<T> {
    /// Adds a number.
    pub(crate) fn push(&mut self, value: Option<T>) {
        self.validity.push(value.is_some());
        self.values.push(value.unwrap_or_default());
    }

    /// Adds the column to a batch.
    pub(crate) fn write(&self, body: &mut Body) {
        self.validity.write_validity(body);
        body.numbers(&self.values);
    }
}

/// Byte strings, one after the other.
pub(crate) struct Texts {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Default for Texts {
    fn default() -> Texts {
        Texts { offsets: vec![0], bytes: Vec::new() }
    }
}

impl Texts {
    /// Adds a text.
    pub(crate) fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    /// Adds a byte string. The caller has seen that the bytes of all have a length of 31 bits.
    pub(crate) fn push_bytes(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.offsets.push(self.bytes.len() as i32);
    }

    /// Adds the column to a batch.
    pub(crate) fn write(&self, body: &mut Body) {
        body.node(self.offsets.len() - 1, 0);
        body.buffer(&[]);
        body.numbers(&self.offsets);
        body.buffer(&self.bytes);
    }

    /// The number of strings.
    pub(crate) fn count(&self) -> usize {
        self.offsets.len() - 1
    }
}
